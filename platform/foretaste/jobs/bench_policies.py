"""`foretaste bench policies`: propensities against frequencies, what a choice costs, and bandits on real headlines."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from foretaste.jobs.bench_options import BenchOptions

PARTS = {
    "propensities": ("bench_policies_dice", "propensities"),
    "cost": ("bench_policies_dice", "cost"),
    "upworthy": ("bench_policies_upworthy", "upworthy"),
}
"""Module of foretaste.jobs and function of each part, of BenchOptions."""


def policies_bench(options: BenchOptions) -> dict[str, Any]:
    """Run one part, by default all of them. Raises ValueError for one that there is not."""
    if options.part is not None and options.part not in PARTS:
        raise ValueError(f"bench policies has no part {options.part!r}; there are {', '.join(PARTS)}")
    merged: dict[str, dict[str, Any]] = {"figures": {}, "bars": {}, "skipped": {}}
    for part in PARTS if options.part is None else (options.part,):
        module, function = PARTS[part]
        found = getattr(import_module(f"foretaste.jobs.{module}"), function)(options)
        for what, values in merged.items():
            values |= found.get(what, {})
    return {"bench": "policies", "part": options.part or "all", **merged}
