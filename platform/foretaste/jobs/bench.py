"""`foretaste bench`: a benchmark with its comparators in the same run, and the bars that it must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from foretaste.jobs.cluster import cluster
from foretaste.jobs.evaluate import evaluate
from foretaste.jobs.imports import import_log
from foretaste.jobs.prepare import prepare
from foretaste.jobs.settings import Settings
from foretaste.jobs.train import train
from foretaste.ops.files import read_json
from foretaste.ops.telemetry import say

QUICK_WORLD = {"num_members": 600, "days": 42}
QUICK_EPOCHS = 4


def bench(
    settings: Settings,
    name: str,
    *,
    data: str | None = None,
    source: Path | None = None,
    split: Literal["time", "last", "both"] = "both",
    size: int | None = None,
    quick: bool = False,
) -> dict[str, Any]:
    """Run a benchmark in a folder of its own under the workspace; returns its figures and bars.

    `size` is in events (prepare) or requests (parity). Raises ValueError for a name that no benchmark has.
    """
    if name == "models":
        return models(settings, data=data or "world", source=source, split=split, quick=quick)
    if name == "prepare":
        from foretaste.jobs.bench_prepare import prepare_bench

        return prepare_bench(settings, events=size or 10_000_000, quick=quick)
    if name == "features":
        return features(settings, quick=quick)
    if name == "parity":
        from foretaste.jobs.bench_parity import parity_bench

        return parity_bench(settings, requests=size or 100_000, quick=quick)
    raise ValueError(f"there is no benchmark {name!r}; there are prepare, features, models, parity")


def features(settings: Settings, *, quick: bool) -> dict[str, Any]:
    """Slow views, session log and request signals against raw clients, a join and a twin of ours, in one run."""
    from foretaste.jobs.bench_features import feature_figures
    from foretaste.jobs.bench_session_log import session_log_figures
    from foretaste.jobs.bench_signals import signal_figures

    parts = (feature_figures(settings, quick=quick), session_log_figures(quick=quick), signal_figures(quick=quick))
    merged = {key: {k: v for part in parts for k, v in part[key].items()} for key in ("figures", "bars", "skipped")}
    return {"bench": "features", **merged}


def models(
    settings: Settings, *, data: str, source: Path | None, split: Literal["time", "last", "both"], quick: bool
) -> dict[str, Any]:
    """The intent model against popularity, popularity of the last 7 days, Markov and session-kNN, per protocol."""
    settings = settings.model_copy(update={"workspace": settings.tables.root / "bench" / data})
    if quick:
        settings = _quick(settings)
    figures: dict[str, Any] = {}
    bars: dict[str, Any] = {}
    with cluster(settings.cluster):
        fetch = data == "movielens-1m" and source is None
        import_log(settings, data, source=source, fetch=fetch)
        prepare(settings)
        for protocol in ("time", "last") if split == "both" else (split,):
            say(f"\n{data}, {'global time split' if protocol == 'time' else 'leave-one-out'}")
            trained = train(settings, model="intent", split=protocol)
            found = evaluate(settings, split=protocol)
            report = read_json(settings.tables.evaluation / "report.json")
            best = report["best_baseline"]
            figures[protocol] = {
                "protocol": found["protocol"],
                "figures": report["figures"],
                "over_best_baseline": report["differences"]["intent"]["ndcg@10"],
                "training_seconds": trained["intent"]["seconds"],
                "best_epoch": trained["intent"]["best_epoch"],
            }
            ratio = found["ndcg@10"]["intent"] / found["ndcg@10"][best]
            bars[f"ndcg@10 of intent over {best}, {protocol}"] = {
                "value": round(ratio, 4),
                "want": "> 1.0",
                "holds": ratio > 1.0,
            }
    return {"bench": "models", "data": data, "figures": figures, "bars": bars, "skipped": {}}


def _quick(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "world": settings.world.model_copy(update=QUICK_WORLD),
            "training": settings.training.model_copy(update={"epochs": QUICK_EPOCHS}),
        }
    )
