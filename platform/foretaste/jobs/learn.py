"""`foretaste learn`: the ranker that answers goes on learning from logged decisions and what they earned.

    learned/20260301T030405-1f2e3d4c5b6a/      the version of the ranker that was filed
      report.json                              what it and the ranker of before would have earned by the decisions of
                                               actors of whom nothing was learned; not what these did, which a
                                               deletion could not find again

The ranker is filed, not rolled out, with a release that `foretaste promote` lets answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from foretaste.evaluation.offpolicy.answer import answer
from foretaste.evaluation.offpolicy.tables import rounds_of
from foretaste.feedback.decision_log import decision_tables
from foretaste.feedback.forgotten import of_deleted
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs.cluster import cluster
from foretaste.jobs.features import feature_store
from foretaste.jobs.rewards import read_rewards
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.ops.bundles import MANIFEST
from foretaste.ops.files import read_json, write_json
from foretaste.ops.releases import current_release, file_release
from foretaste.ops.telemetry import say
from foretaste.signals.ranked_past import SlowViews
from foretaste.training.decided import READ
from foretaste.training.loop import Epoch
from foretaste.training.off_policy import LearnConfig, Learned, train_off_policy
from foretaste.training.off_policy_objectives import Objective

LEARNED, BEFORE = "learned", "before"


def learn(
    settings: Settings, *, rewards: Path | None = None, program: str | None = None, objective: str | None = None
) -> dict[str, Any]:
    """Learn from the decisions that a folder of rewards speaks of: the one named, or a program's newest.

    Raises FileNotFoundError where there are no rewards, decisions or models, ValueError where nothing can be learned.
    """
    folder = rewards_folder(settings.tables.rewards, rewards, program)
    config = settings.learn
    if objective is not None:
        config = LearnConfig.model_validate(config.model_dump() | {"objective": Objective(objective)})
    with cluster(settings.cluster):
        return learned(settings, folder, config, feature_store(settings), now=datetime.now(UTC))


def learned(
    settings: Settings, folder: Path, config: LearnConfig, features: SlowViews, *, now: datetime
) -> dict[str, Any]:
    """The same with slow views at hand, on the Ray that is connected to where the configuration wants one."""
    tables = settings.tables
    about, paid = read_json(folder / MANIFEST), read_rewards(folder)
    program = f"{about['program']['name']} v{about['program']['version']}"
    result = train_off_policy(
        needed(tables.prepared, made_by="prepare"),
        needed(tables.registry, made_by="train"),
        features,
        _decisions(settings, paid),
        paid,
        config=config,
        temperature=settings.serving.exploring.temperature,
        lineage={name: about[name] for name in ("program_fingerprint", "outcomes", "model_version")}
        | {"program": program},
        storage=tables.runs,
        runs=settings.runs_url,
        tracking=settings.tracking,
        now=now,
        on_progress=_progress(config),
        read_events=settings.serving.session_log.read_events,
    )
    out = tables.learned / result.bundle.version
    report = _report(settings, result) | {"program": program, "out": str(out)}
    write_json(report, out / "report.json")
    _said(report)
    return report


def rewards_folder(root: Path, rewards: Path | None, program: str | None) -> Path:
    """The folder of rewards that is meant.

    Raises FileNotFoundError naming the programs that there are, ValueError where it is not clear which is meant.
    """
    if rewards is not None and program is not None:
        raise ValueError("--rewards names a folder and --program a program: wanted one of them")
    if rewards is not None:
        if not (rewards / MANIFEST).is_file():
            raise FileNotFoundError(f"{rewards} holds no rewards: run `foretaste rewards` first")
        return rewards
    found = [path.parent for path in root.glob(f"*/v*/*/{MANIFEST}") if not path.parent.name.startswith(".")]
    names = sorted({path.parents[1].name for path in found})
    if program is None and len(names) > 1:
        raise ValueError(f"{root} has rewards of {', '.join(names)}: name one by --program, or a folder by --rewards")
    mine = [path for path in found if program in (None, path.parents[1].name)]
    if not mine:
        raise FileNotFoundError(
            f"{root}: wanted rewards{f' of {program}' if program else ''}, found {', '.join(names) or 'none'}: "
            "run `foretaste rewards` first"
        )
    return max(mine, key=lambda path: (path.parent.name, path.name))


def _decisions(settings: Settings, paid: pa.Table) -> pa.Table:
    """Columns of the decisions that were paid, without those of deleted members."""
    serving = settings.tables.serving
    where = needed(serving / "decisions", made_by="serve")
    deleted = Tombstones(serving / TOMBSTONES_FILE).read()
    ids = pc.unique(paid["decision_id"].combine_chunks())

    def kept() -> Iterator[pa.Table]:
        for table in decision_tables(where, settings.serving.decision_log.target, columns=READ):
            some = table.filter(pc.is_in(table["decision_id"], ids))
            yield some.filter(pc.invert(of_deleted(some, deleted)))

    tables = list(kept())
    if not tables:
        raise FileNotFoundError(f"{where} has no decision: run `foretaste serve` first")
    return pa.concat_tables(tables)


def _report(settings: Settings, result: Learned) -> dict[str, Any]:
    registry, filed = settings.tables.registry, result.bundle.manifest
    answering = current_release(registry)
    others = {} if answering is None else dict(answering.models)
    made = file_release(
        registry,
        others | {"intent": result.intent_version, "ranker": result.bundle.version},
        at=datetime.fromisoformat(filed["created_at"]),
        about={"learned_from": result.before.version},
    )
    return {
        "ranker": result.bundle.version,
        "learned_from": result.before.version,
        "release": made.name,
        "objective": filed["about"]["learn_config"]["objective"],
        "temperature": filed["about"]["temperature"],
        "best_epoch": result.best_epoch,
        "counts": result.counts,
        LEARNED: _asked(result.rounds, settings),
        BEFORE: _asked(result.rounds_before, settings),
        "logged": pc.mean(result.rounds["reward"]).as_py(),
    }


def _asked(rounds: pa.Table, settings: Settings) -> dict[str, Any] | None:
    return answer(rounds_of(rounds), settings.off_policy).record() if rounds.num_rows else None


def _said(report: dict[str, Any]) -> None:
    say(f"learn: filed {report['ranker']} by {report['objective']}, epoch {report['best_epoch']}")
    for name in (BEFORE, LEARNED):
        found = report[name]
        if found is None:
            said = "no round of an actor of whom nothing was learned"
        elif found["answers"]:
            at = found["interval"]
            said = f"{at['value']:.4f} [{at['low']:.4f}, {at['high']:.4f}] a place ({found['recommended']})"
        else:
            said = f"the log cannot say: {'; '.join(found['reasons'])}"
        say(f"learn: {name}: {said}")
    say(f"learn: release {report['release']} answers nobody yet: `foretaste promote {report['release']}`")


def _progress(config: LearnConfig) -> Any:
    def on_progress(epoch: Epoch) -> None:
        earned = f"  would earn {-epoch.metrics['loss']:.4f}" if "loss" in epoch.metrics else ""
        best = "  best" if epoch.best else ""
        say(f"learn {config.objective.value} epoch {epoch.number}/{epoch.of}  loss {epoch.loss:.4f}{earned}{best}")

    return on_progress
