"""`foretaste bench loop`: policies that learn from what they show, and what exploring is worth to the next model."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings

PARTS = {"arms": ("bench_loop_arms", "arms"), "price": ("bench_loop_price", "price")}
"""Module of foretaste.jobs and function of each part: (Settings, BenchOptions) -> figures, bars, skipped."""


def loop_bench(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Run one part, by default all of them. Raises ValueError for one that there is not."""
    if options.part is not None and options.part not in PARTS:
        raise ValueError(f"bench loop has no part {options.part!r}; there are {', '.join(PARTS)}")
    merged: dict[str, dict[str, Any]] = {"figures": {}, "bars": {}, "skipped": {}}
    for part in PARTS if options.part is None else (options.part,):
        module, function = PARTS[part]
        found = getattr(import_module(f"foretaste.jobs.{module}"), function)(settings, options)
        merged["figures"][part] = found["figures"]
        for what in ("bars", "skipped"):
            merged[what] |= found.get(what, {})
    return {"bench": "loop", "part": options.part or "all", **merged}
