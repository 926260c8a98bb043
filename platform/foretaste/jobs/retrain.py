"""`foretaste retrain`: ingest decisions and outcomes, train, evaluate, gate, register; the closed loop as one job.

    retrain/20260212T000000/
      run.json              when it began, the instant that it knows of, its settings
      10-prepare.json ...   what each step did; a step that stands here is not done again
      decision.json         what was decided and why; the run is over

A run that was killed goes on at its first step that is not done; what a step wrote before it was killed is written
again. What answers changes in the last step alone, and not at all where the gate does not let the release through: then
the models of the release that answers are the current ones again, for whatever reads the registry.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from foretaste.evaluation.gate import Judgement, Ranking, Verdict, judge
from foretaste.evaluation.report import Report, read_report
from foretaste.jobs import evaluate, evaluate_policy, features, outcomes, prepare, releases, train
from foretaste.jobs.settings import Settings
from foretaste.models.baselines import BASELINES
from foretaste.ops.bundles import promote as make_current
from foretaste.ops.files import read_json, write_json
from foretaste.ops.releases import current_release, rollout
from foretaste.ops.telemetry import say
from foretaste.rewards.library import chosen, read_programs
from foretaste.sessions.spread import Spread

RUN, DECISION = "run.json", "decision.json"
MODELS: tuple[Literal["intent", "ranker", "session_knn"], ...] = ("intent", "ranker", "session_knn")


def retrain(
    settings: Settings, *, program: str | None = None, anew: bool = False, now: datetime, spread: Spread | None = None
) -> dict[str, Any]:
    """Run the loop once, or go on with a run that was killed; `anew` begins another one instead.

    Raises ValueError where the run that was killed had other settings or the program is none, and what its steps raise.
    """
    named = program or settings.retrain.program
    chosen(read_programs(settings.rewards.programs), named, what=str(settings.rewards.programs))
    run = _Run.of(settings, named, anew=anew, now=now)
    registry = settings.tables.registry
    run.step("10-prepare", lambda: prepare.prepare(settings))
    run.step("11-features", lambda: features.features(settings))
    joined = run.step("12-outcomes", lambda: _joined(settings, run.as_of, spread))
    for number, model in enumerate(MODELS):
        run.step(f"2{number}-train-{model}", partial(train.train, settings, model=model, release=False))
    filed = run.step("30-file", lambda: {"release": releases.release_trained(settings, MODELS, now=now, answers=False)})
    ranked = run.step("40-evaluate", lambda: _ranked(settings))
    gated = run.step("50-gate", lambda: _gated(settings, filed["release"], joined, named, ranked, spread))
    done = run.step("60-register", lambda: _registered(settings, filed["release"], gated))
    answering = current_release(registry)
    decision: dict[str, Any] = {
        "run": run.folder.name,
        "release": filed["release"],
        "decision": gated["gate"]["verdict"],
        "reasons": gated["gate"]["reasons"] + done["also"],
        "lists_wanted": gated["gate"]["lists_wanted"],
        "live": done["live"],
        "answers": None if answering is None else answering.name,
        "ranking": ranked,
        "policy": gated["policy"],
        "steps": run.done,
    }
    write_json(decision, run.folder / DECISION)
    say(f"retrain: {decision['decision']} {filed['release']}: {'; '.join(decision['reasons'])}")
    return decision


class _Run:
    """One run and what of it is done."""

    def __init__(self, folder: Path, as_of: str) -> None:
        self.folder, self.as_of, self.done = folder, as_of, list[str]()

    @classmethod
    def of(cls, settings: Settings, program: str, *, anew: bool, now: datetime) -> _Run:
        root = settings.tables.root / "retrain"
        kept = settings.model_dump(mode="json", exclude={"cluster", "workspace"})
        about = {"settings": json.loads(json.dumps(kept, default=str)), "program": program}
        begun = sorted(path.parent for path in root.glob(f"*/{RUN}") if not (path.parent / DECISION).is_file())
        if begun and not anew:
            found = read_json(begun[-1] / RUN)
            if changed := sorted(name for name in about if found[name] != about[name]):
                raise ValueError(f"{begun[-1]}: was begun with other {', '.join(changed)}; --anew begins another run")
            say(f"retrain: goes on with {begun[-1].name}")
            return cls(begun[-1], found["as_of"])
        folder = root / f"{now:%Y%m%dT%H%M%S%f}"
        write_json(about | {"as_of": now.isoformat()}, folder / RUN)
        return cls(folder, now.isoformat())

    def step(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do a step, or read what it did."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            say(f"retrain: {name}")
            write_json(json.loads(json.dumps(work(), default=str)), path)
        self.done.append(name)
        found: dict[str, Any] = read_json(path)
        return found


def _joined(settings: Settings, as_of: str, spread: Spread | None) -> dict[str, Any]:
    """Outcomes of the decision log as of the run's instant; nothing to join is no error."""
    if not (settings.tables.serving / "decisions").is_dir():
        return {"outcomes": None, "why": "no decision was ever logged"}
    return {"outcomes": Path(outcomes.join(settings, as_of=as_of, spread=spread)["out"]).name}


def _ranked(settings: Settings) -> dict[str, Any]:
    """How what was trained ranks beside the best baseline."""
    evaluate.evaluate(settings, limit=settings.retrain.evaluate_cases)
    found = ranking_of(read_report(settings.tables.evaluation / "report.json"), settings)
    return {name: getattr(found, name) for name in Ranking.__slots__}


def ranking_of(report: Report, settings: Settings) -> Ranking:
    """The best model of a report against its best baseline, by the gate's metric. Raises ValueError without it."""
    metric = settings.policy_evaluation.gate.ranking_metric
    first = next((name for name in report.models if name in report.differences and name not in BASELINES), None)
    if first is None or report.best_baseline is None or metric not in report.differences[first]:
        raise ValueError(f"the ranking evaluation has no difference by {metric} to a baseline")
    gap, base = report.differences[first][metric], report.figures[report.best_baseline][metric].value
    return Ranking(metric, report.best_baseline, base, gap.value, gap.low, gap.high)


def _gated(
    settings: Settings,
    release: str | None,
    joined: dict[str, Any],
    program: str,
    ranked: dict[str, Any],
    spread: Spread | None,
) -> dict[str, Any]:
    gate, ranking = settings.policy_evaluation.gate, Ranking(**ranked)
    replaces = current_release(settings.tables.registry) is not None
    if release is None:
        none = Judgement(Verdict.REFUSE, ("the trained models do not belong together",))
        return {"gate": none.record(), "policy": None}
    if joined["outcomes"] is None:
        found = judge(None, gate, ranking=ranking, replaces=replaces, why_none=joined["why"])
        return {"gate": found.record(), "policy": None}
    try:
        policy = evaluate_policy.evaluate_policy(
            settings, release=release, program=program, outcomes=joined["outcomes"], spread=spread
        )
    except (ValueError, FileNotFoundError) as error:
        found = judge(None, gate, ranking=ranking, replaces=replaces, why_none=str(error))
        return {"gate": found.record(), "policy": None}
    report = policy.report
    lists = int(report.protocol["lists"])
    found = evaluate_policy.gated(
        report.answer, report.refusals, settings, num_lists=lists, ranking=ranking, replaces=replaces
    )
    return {"gate": found.record(), "policy": policy.record}


def _registered(settings: Settings, release: str | None, gated: dict[str, Any]) -> dict[str, Any]:
    """Let the release answer, or have the registry's current models be those that answer."""
    registry = settings.tables.registry
    known = rollout(registry)
    if gated["gate"]["verdict"] == Verdict.PROMOTE and release is not None:
        if known is not None and known.arms and known.current != release:
            wait = f"arms are under way; `foretaste promote {release}` ends them"
            return {"live": False, "also": [wait]}
        releases.promote(settings, release)
        return {"live": True, "also": []}
    if (answering := current_release(registry)) is not None:
        for name, version in answering.models.items():
            make_current(registry, name, version)
    return {"live": False, "also": []}
