"""`foretaste bench rewards`: one part a file of its own."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings

PARTS = {
    "report": ("bench_rewards_report", "report"),
    "delayed": ("bench_rewards_delayed", "delayed"),
    "delayed-search": ("bench_rewards_delayed_search", "search"),
}
"""Module of foretaste.jobs and function of each part: (Settings, BenchOptions) -> figures, bars, skipped."""


def rewards_bench(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Run one part. Raises ValueError naming those that there are."""
    part = options.part or next(iter(PARTS))
    if part not in PARTS:
        raise ValueError(f"bench rewards has no part {part!r}; there are {', '.join(PARTS)}")
    module, function = PARTS[part]
    found: dict[str, Any] = getattr(import_module(f"foretaste.jobs.{module}"), function)(settings, options)
    return {"bench": "rewards", "part": part, **found}
