"""`foretaste tune`: search the declared space for the settings with the best validation NDCG."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from foretaste.jobs.cluster import cluster
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.ops.files import write_json
from foretaste.ops.tables import described, read_manifest
from foretaste.ops.telemetry import say
from foretaste.training.config import WHERE_IT_RUNS, TrackingConfig
from foretaste.training.intent import train_intent
from foretaste.training.loop import Epoch
from foretaste.training.search import Board, Value, best_of

SECTIONS = ("intent", "training")
NOT_THE_MODEL = {
    "workspace", "tune", "cluster", "tracking", "serving", "evaluation", "world", "features_url",
    "features_registry_url", "runs_url",
}  # fmt: skip


class GivenUpError(Exception):
    """A trial is not worth its next epoch."""


def tune(
    settings: Settings,
    *,
    trials: int | None = None,
    split: Literal["time", "last"] = "time",
    out: Path | None = None,
) -> dict[str, Any]:
    """Search, or go on with the search of the same settings on the same rows, and write the best settings as YAML.

    A trial is a training run of one worker, scored by NDCG@10 of the validation cases: test rows are not read, and
    nothing is filed. Raises ValueError for a space with keys that the settings do not have.
    """
    if trials is not None:
        settings = settings.model_copy(update={"tune": settings.tune.model_copy(update={"trials": trials})})
    training = settings.training.model_copy(
        update={"split": split, "refit": False, "executor": "plain", "num_workers": 1, "select_by": "ndcg"}
    )
    settings = settings.model_copy(update={"training": training})
    prepared = needed(settings.tables.prepared, made_by="prepare")
    for key in settings.tune.space:
        _has(settings, key)
    folder = settings.tables.root / "tuning" / _identity(settings, prepared)
    with cluster(settings.cluster):
        table = _search(settings, prepared, folder / "trials.journal")
    best = best_of(table)
    chosen = with_values(settings, best["values"])
    path = out or folder / "best.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# validation NDCG@10 {best['ndcg']:.4f}: trial {best['trial']} of {len(table)}\n" + _yaml(chosen))
    write_json(table, folder / "trials.json")
    _show(table)
    say(f"tune: best settings in {path}; use them with --config {path}")
    return {"best": str(path), "ndcg": best["ndcg"], "values": best["values"], "trials": len(table)}


def with_values(settings: Settings, values: Mapping[str, Value]) -> Settings:
    """Put values at their dotted keys. Raises ValueError where the settings refuse them."""
    dumped = settings.model_dump(mode="json")
    for key, value in values.items():
        *sections, last = key.split(".")
        into = dumped
        for section in sections:
            into = into[section]
        into[last] = value
    return Settings.model_validate(dumped)


def _has(settings: Settings, key: str) -> None:
    at: Any = settings.model_dump(mode="json")
    for section in key.split("."):
        if not isinstance(at, dict) or section not in at:
            raise ValueError(f"tune.space: the settings have no key {key!r}")
        at = at[section]
    if key.partition(".")[0] not in SECTIONS:
        raise ValueError(f"tune.space: {key!r} is not of the intent model: wanted a key of {' or '.join(SECTIONS)}")


def _identity(settings: Settings, prepared: Path) -> str:
    """What a search depends on: everything but how many trials it has and how many run at once."""
    about = settings.model_dump(mode="json", exclude=NOT_THE_MODEL | {"workspace"})
    about["tune"] = settings.tune.model_dump(mode="json", exclude={"trials", "parallel"})
    about["prepared"] = described(read_manifest(prepared))
    return hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=6).hexdigest()


def _search(settings: Settings, prepared: Path, journal: Path) -> list[dict[str, Any]]:
    import ray

    board = ray.remote(num_cpus=0)(Board).remote(journal, settings.tune)
    trial = ray.remote(num_cpus=1, max_retries=0)(_trial)
    running: dict[Any, int] = {}
    while True:
        while len(running) < settings.tune.parallel:
            asked = ray.get(board.ask.remote())
            if asked is None:
                break
            running[trial.remote(settings, prepared, board, *asked)] = asked[0]
        if not running:
            break
        (done,), _ = ray.wait(list(running))
        number = running.pop(done)
        state, score = ray.get(done)
        say(f"tune trial {number}: {state}" + (f", NDCG@10 {score:.4f}" if score is not None else ""))
    table: list[dict[str, Any]] = ray.get(board.table.remote())
    ray.kill(board)
    return table


def _trial(
    settings: Settings, prepared: Path, board: Any, number: int, values: dict[str, Value]
) -> tuple[str, float | None]:
    """Train once with these values, in a Ray task."""
    import ray

    scores: list[float] = []

    def on_epoch(epoch: Epoch) -> None:
        scores.append(epoch.metrics["ndcg"])
        if ray.get(board.report.remote(number, epoch.number, max(scores))):
            raise GivenUpError

    def end(state: str, why: str = "") -> tuple[str, float | None]:
        score = max(scores, default=None)
        ray.get(board.end.remote(number, state, score, why))
        return state, score

    try:
        chosen = with_values(settings, values)
        with tempfile.TemporaryDirectory(prefix="foretaste-trial-") as folder:
            train_intent(
                prepared,
                Path(folder) / "registry",
                model=chosen.intent,
                training=chosen.training,
                storage=Path(folder) / "runs",
                tracking=TrackingConfig(enabled=False),
                now=datetime.now(UTC),
                on_progress=on_epoch,
                labels=chosen.labels,
            )
    except GivenUpError:
        return end("pruned")
    except (ValueError, ArithmeticError) as error:
        return end("failed", str(error))
    return end("done")


def _yaml(settings: Settings) -> str:
    """What differs from the defaults and is the model's."""
    values = settings.model_dump(mode="json", exclude_defaults=True, exclude=NOT_THE_MODEL)
    values["training"] = {k: v for k, v in values["training"].items() if k not in WHERE_IT_RUNS}
    return yaml.safe_dump(values, sort_keys=True)


def _show(table: list[dict[str, Any]]) -> None:
    for row in table:
        score = "" if row["ndcg"] is None else f"{row['ndcg']:.4f}"
        values = "  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row["values"].items())
        say(f"{row['trial']:>5} {row['state']:<9} {score:>7} {row['epochs']:>3} epochs  {values}")
