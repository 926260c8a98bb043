"""The report of closed-loop experiments over several worlds: arms side by side, in the course of weeks.

Shapes: A arms, D days, W weeks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretaste.evaluation.loop_figures import METRICS, WEEK, WEEKLY, Floats, Served
from foretaste.evaluation.seeds import OverSeeds, over_seeds, paired


@dataclass(frozen=True)
class LoopReport:
    """Means over worlds with 95% intervals (Student's t over worlds); differences are paired by world."""

    arms: tuple[str, ...]
    against: str
    figures: dict[str, dict[str, OverSeeds]]  # arm, metric
    differences: dict[str, dict[str, OverSeeds]]  # arm, metric: to the arm that all are compared with
    weekly: dict[str, dict[str, list[OverSeeds]]]  # metric, arm
    regret: dict[str, list[OverSeeds]]  # arm: at the end of each day
    ratio_p: tuple[float, ...]  # of the sample-ratio test of each world
    facts: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "figures": {a: {m: _plain(x) for m, x in found.items()} for a, found in self.figures.items()},
            "differences": {a: {m: _plain(x) for m, x in found.items()} for a, found in self.differences.items()},
            "against": self.against,
            "weekly": {m: {a: [_plain(x) for x in xs] for a, xs in by.items()} for m, by in self.weekly.items()},
            "regret_by_day": {a: [round(x.value, 4) for x in xs] for a, xs in self.regret.items()},
            "sample_ratio_p": list(self.ratio_p),
            "facts": self.facts,
        }


def loop_report(
    worlds: Sequence[Served], arms: Sequence[str], *, days: int, ratio_p: Sequence[float], facts: dict[str, Any]
) -> LoopReport:
    """Compare arms with the first of them over worlds. Raises ValueError without a world or for less than a week."""
    if not worlds or days < WEEK:
        raise ValueError(f"loop report: wanted a world and a week or more, found {len(worlds)} and {days} days")
    whole = [one.figures(0, days) for one in worlds]
    regret = [one.regret(days) for one in worlds]
    by_week = [[one.figures(first, first + WEEK) for one in worlds] for first in range(0, days - WEEK + 1, WEEK)]
    return LoopReport(
        arms=tuple(arms),
        against=arms[0],
        figures={a: {m: over_seeds(_of(whole, m, n)) for m in METRICS} for n, a in enumerate(arms)},
        differences={
            a: {m: paired(_of(whole, m, n), _of(whole, m, 0)) for m in METRICS} for n, a in enumerate(arms) if n
        },
        weekly={m: {a: [over_seeds(_of(week, m, n)) for week in by_week] for n, a in enumerate(arms)} for m in WEEKLY},
        regret={a: [over_seeds([one[n, day] for one in regret]) for day in range(days)] for n, a in enumerate(arms)},
        ratio_p=tuple(ratio_p),
        facts=facts,
    )


def _of(worlds: Sequence[dict[str, Floats]], metric: str, arm: int) -> list[float]:
    return [float(world[metric][arm]) for world in worlds]


def _plain(one: OverSeeds) -> list[float | None]:
    return [None if x is None or np.isnan(x) else round(float(x), 5) for x in (one.value, one.low, one.high)]
