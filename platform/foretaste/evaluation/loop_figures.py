"""What arms of a closed loop earned, gave up and concentrated on, of one world: rates over visits, days and weeks.

Every figure is a sum over visits of an arm, so the order in which visits stand does not matter.

Shapes: S visits, P places, A arms, D days, W weeks, N titles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.concentration import gini

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

METRICS = {
    "reward": "reward of a visit, as it came",
    "worth": "expected reward of a visit",
    "of_best": "expected reward over that of the best possible slates",
    "reward_a_day": "reward of 1,000 members a day",
    "return": "probability of a return within a week",
    "visits": "visits of a member in a week",
    "gini": "Gini of exposure",
    "coverage": "share of titles on sale that were shown",
    "new": "share of exposure of titles that came out meanwhile",
}
"""What is said of each arm, over the whole experiment."""

WEEKLY = ("of_best", "reward_a_day", "return", "gini", "coverage", "new")
WEEK = 7


@dataclass(frozen=True)
class Served:
    """Visits of an experiment in one world; days count from its beginning."""

    arm_S: Ints
    day_S: Ints
    title_SP: Ints
    reward_S: Floats
    worth_S: Floats  # expected reward of the slate, given what the visit was for
    best_S: Floats  # of the best slate
    new_S: Ints  # places with titles that came out during the experiment
    return_S: Floats
    members_A: Ints  # of each arm, whether they came or not
    on_sale_D: Ints  # titles that were out by each day

    @property
    def num_arms(self) -> int:
        """Arms."""
        return len(self.members_A)

    def take(self, rows: NDArray[np.bool_] | Ints) -> Served:
        """Some of the visits."""
        names = ("arm_S", "day_S", "title_SP", "reward_S", "worth_S", "best_S", "new_S", "return_S")
        return Served(
            **{name: getattr(self, name)[rows] for name in names}, members_A=self.members_A, on_sale_D=self.on_sale_D
        )

    def figures(self, first_day: int, last_day: int) -> dict[str, Floats]:
        """METRICS of each arm over days of the experiment, the last one not included; NaN for one without a visit."""
        part = self.take((self.day_S >= first_day) & (self.day_S < last_day))
        days, num_titles = last_day - first_day, int(self.on_sale_D[last_day - 1])
        visits_A, worth_A, best_A = part._sum(np.ones(len(part.arm_S))), part._sum(part.worth_S), part._sum(part.best_S)
        reward_A, new_A = part._sum(part.reward_S), part._sum(part.new_S)
        shown_AN = np.zeros((self.num_arms, num_titles), dtype=np.int64)
        np.add.at(shown_AN, (part.arm_S[:, None], part.title_SP), 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "reward": reward_A / visits_A,
                "worth": worth_A / visits_A,
                "of_best": worth_A / best_A,
                "reward_a_day": 1_000 * reward_A / (self.members_A * days),
                "return": part._sum(part.return_S) / visits_A,
                "visits": WEEK * visits_A / (self.members_A * days),
                "gini": np.array([gini(shown_N) for shown_N in shown_AN]),
                "coverage": (shown_AN > 0).mean(axis=1),
                "new": new_A / shown_AN.sum(axis=1),
            }

    def regret(self, num_days: int) -> Floats:
        """What a visit gave up against the best slate, in the mean of each day, summed up to it; [A, D]."""
        lost_AD, visits_AD = np.zeros((2, self.num_arms, num_days))
        np.add.at(lost_AD, (self.arm_S, self.day_S), self.best_S - self.worth_S)
        np.add.at(visits_AD, (self.arm_S, self.day_S), 1.0)
        return np.asarray(np.cumsum(lost_AD / np.maximum(visits_AD, 1.0), axis=1))

    def _sum(self, value_S: Floats | Ints) -> Floats:
        return np.bincount(self.arm_S, weights=value_S.astype(np.float64), minlength=self.num_arms).astype(np.float64)
