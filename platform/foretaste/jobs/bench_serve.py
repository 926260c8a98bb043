"""`foretaste bench serve`: the service under load, under faults and beyond what it can do, on real processes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_serve_config import sized
from foretaste.jobs.settings import Settings

PARTS = {
    "compare": ("bench_serve_compare", "compare"),
    "load": ("bench_serve_compare", "load_of"),
    "freshness": ("bench_serve_freshness", "freshness"),
    "replay": ("bench_serve_replay", "replays"),
    "faults": ("bench_serve_faults", "faults"),
    "overload": ("bench_serve_overload", "overload"),
    "soak": ("bench_serve_overload", "soak"),
}
"""Module of foretaste.jobs and function of each part, of (Settings, ServeBenchConfig, BenchOptions)."""


def serve_bench(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Run one part, by default the comparison, with a URL a load on it. Raises ValueError for one that there is not."""
    part = options.part or ("compare" if options.url is None else "load")
    if part not in PARTS:
        raise ValueError(f"bench serve has no part {part!r}; there are {', '.join(PARTS)}")
    config = sized(settings.bench_serve, quick=options.quick, size=options.size, seconds=options.seconds)
    module, function = PARTS[part]
    found: dict[str, Any] = getattr(import_module(f"foretaste.jobs.{module}"), function)(settings, config, options)
    return {"bench": "serve", "part": part, "skipped": {}, **found}
