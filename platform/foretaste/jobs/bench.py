"""`foretaste bench`: a benchmark with its comparators in the same run, and the bars that it must hold."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings

MODEL_PARTS = {
    "ladder": ("bench_models_ladder", "ladder"),
    "worlds": ("bench_models_worlds", "worlds"),
    "session": ("bench_models_session", "session"),
    "references": ("bench_reference", "references"),
    "scale": ("bench_training", "scale"),
}
"""Module of foretaste.jobs and function of each part of `bench models`: (Settings, BenchOptions) -> figures."""


def bench(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Run a benchmark in a folder of its own under the workspace; returns its figures and bars.

    Raises ValueError for a name that no benchmark has.
    """
    if options.name == "models":
        return models(settings, options)
    if options.name == "prepare":
        from foretaste.jobs.bench_prepare import prepare_bench

        return prepare_bench(settings, events=options.size or 10_000_000, quick=options.quick)
    if options.name == "features":
        return features(settings, quick=options.quick)
    if options.name == "parity":
        from foretaste.jobs.bench_parity import parity_bench

        return parity_bench(settings, requests=options.size or 100_000, quick=options.quick)
    if options.name == "serve":
        from foretaste.jobs.bench_serve import serve_bench

        return serve_bench(settings, options)
    if options.name == "ope":
        from foretaste.jobs.bench_ope import ope

        return ope(settings, options)
    if options.name == "policies":
        from foretaste.jobs.bench_policies import policies_bench

        return policies_bench(options)
    if options.name == "rewards":
        from foretaste.jobs.bench_rewards import rewards_bench

        return rewards_bench(settings, options)
    if options.name == "learn":
        from foretaste.jobs.bench_learn import learn_bench

        return learn_bench(options)
    if options.name == "loop":
        from foretaste.jobs.bench_loop import loop_bench

        return loop_bench(settings, options)
    if options.name == "cluster":
        from foretaste.jobs.bench_cluster import cluster_bench

        return cluster_bench(settings, options)
    known = "prepare, features, models, parity, serve, ope, policies, rewards, learn, loop, cluster"
    raise ValueError(f"there is no benchmark {options.name!r}; there are {known}")


def features(settings: Settings, *, quick: bool) -> dict[str, Any]:
    """Slow views, session log and request signals against raw clients, a join and a twin of ours, in one run."""
    from foretaste.jobs.bench_features import feature_figures
    from foretaste.jobs.bench_session_log import session_log_figures
    from foretaste.jobs.bench_signals import signal_figures

    parts = (feature_figures(settings, quick=quick), session_log_figures(quick=quick), signal_figures(quick=quick))
    merged = {key: {k: v for part in parts for k, v in part[key].items()} for key in ("figures", "bars", "skipped")}
    return {"bench": "features", **merged}


def models(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Run one comparison of models."""
    part = options.part or next(iter(MODEL_PARTS))
    if part not in MODEL_PARTS:
        raise ValueError(f"bench models has no part {part!r}; there are {', '.join(MODEL_PARTS)}")
    module, function = MODEL_PARTS[part]
    found: dict[str, Any] = getattr(import_module(f"foretaste.jobs.{module}"), function)(settings, options)
    return {"bench": "models", "part": part, **found}
