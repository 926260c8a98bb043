"""Which reward stands for the long term: programs ranked from a log alone, beside what their policies then did.

Shapes: M members, the same ones under every policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.evaluation.reward_estimates import Estimate, paired

LOGGING = "logging"


@dataclass(frozen=True)
class Row:
    """What is known of one program, by the policy that is greedy for it."""

    program: str
    own_offline: Estimate  # its own reward a slate, from the log
    own_online: Estimate
    clicks_online: Estimate  # clicks a slate
    value_offline: Estimate  # long-term value, from the log: probability of a return within a week, mean over members
    value: Estimate  # the same as lived, by law
    return_weighted: Estimate  # share of visits with a return, by weighting the log, by the first place alone
    return_online: Estimate  # the same as lived
    satisfaction: Estimate
    visits: Estimate  # a member and week
    retained: Estimate  # share of members who came in the last two weeks
    true: Estimate  # long-term value of the policy that is learned where there is plenty


@dataclass(frozen=True)
class RewardReport:
    """All programs, the best by the log alone first; the logging policy beside them."""

    rows: Sequence[Row]
    logging: Mapping[str, Estimate]
    gaps: Mapping[str, Estimate]  # from each to the next, by the log alone
    lived_gaps: Mapping[str, Estimate]  # how much the long-term value of each was above that of the next one; paired
    true_gaps: Mapping[str, Estimate]  # the same of the true values, in their order
    over_clicks: Estimate  # the first one over click-through, by the log alone
    lived_over_clicks: Estimate  # the same as it was lived; paired
    facts: Mapping[str, Any]

    @property
    def order(self) -> list[str]:
        """Programs, the best by the log alone first."""
        return [row.program for row in self.rows]

    @property
    def lived_order(self) -> list[str]:
        """The same by what their policies were worth when members lived with them."""
        return [row.program for row in sorted(self.rows, key=lambda row: -row.value.value)]

    @property
    def true_order(self) -> list[str]:
        """The same by their true values."""
        return [row.program for row in sorted(self.rows, key=lambda row: -row.true.value)]

    @property
    def agreement(self) -> float:
        """Kendall's tau of the order of the log and the true one."""
        return kendall(self.order, self.true_order)

    @property
    def lived_agreement(self) -> float:
        """Kendall's tau of the order as it was lived and the true one."""
        return kendall(self.lived_order, self.true_order)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        rows = [
            {
                name: value.plain() if isinstance(value, Estimate) else value
                for name, value in ((name, getattr(row, name)) for name in Row.__dataclass_fields__)
            }
            | {"own_online_minus_offline": row.own_online.minus(row.own_offline).plain()}
            | {"value_minus_offline": row.value.minus(row.value_offline).plain()}
            for row in self.rows
        ]
        return {
            "order": self.order,
            "lived_order": self.lived_order,
            "true_order": self.true_order,
            "weighted_order": [row.program for row in sorted(self.rows, key=lambda row: -row.return_weighted.value)],
            "click_order": [row.program for row in sorted(self.rows, key=lambda row: -row.clicks_online.value)],
            "agreement": self.agreement,
            "lived_agreement": self.lived_agreement,
            "programs": rows,
            "logging": {name: one.plain() for name, one in self.logging.items()},
            "gaps": {name: one.plain() for name, one in self.gaps.items()},
            "lived_gaps": {name: one.plain() for name, one in self.lived_gaps.items()},
            "true_gaps": {name: one.plain() for name, one in self.true_gaps.items()},
            "over_clicks": self.over_clicks.plain(),
            "lived_over_clicks": self.lived_over_clicks.plain(),
            "facts": dict(self.facts),
        }


def kendall(one: Sequence[str], other: Sequence[str]) -> float:
    """Agreement of two orders of the same names, 1: the same, -1: the reverse (Kendall 1938). Needs two names."""
    place = {name: number for number, name in enumerate(other)}
    signs = [1 if place[a] < place[b] else -1 for a, b in combinations(one, 2)]
    return float(np.mean(signs))


def neighbours(value_M: Mapping[str, NDArray[np.float64]], order: Sequence[str]) -> dict[str, Estimate]:
    """How much each program of an order is above the next one; paired by member."""
    return {f"{a} over {b}": paired(value_M[a], value_M[b]) for a, b in pairwise(order)}
