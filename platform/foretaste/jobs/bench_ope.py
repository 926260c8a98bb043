"""`foretaste bench ope`: what estimates from logs alone are worth, beside the library that made them known."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings

OPE_PARTS = {
    "speed": ("bench_ope_speed", "speed"),
    "logs": ("bench_ope_logs", "logs"),
    "coverage": ("bench_ope_coverage", "coverage"),
    "actions": ("bench_ope_actions", "actions"),
    "causal": ("bench_ope_causal", "causal"),
}
"""Module of foretaste.jobs and function of each part: (Settings, BenchOptions) -> figures, bars and what is skipped."""


def ope(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Run one part; raises ValueError for a part that there is not."""
    part = options.part or next(iter(OPE_PARTS))
    if part not in OPE_PARTS:
        raise ValueError(f"bench ope has no part {part!r}; there are {', '.join(OPE_PARTS)}")
    module, function = OPE_PARTS[part]
    found: dict[str, Any] = getattr(import_module(f"foretaste.jobs.{module}"), function)(settings, options)
    return {"bench": "ope", "part": part, **found}
