"""What a slate policy earns: means over visits with whole members as the unit, on its own log or, weighted, on another.

Weighted: at each place the reward of what was logged counts by indicator / propensity, given what was logged above it,
self-normalised (Swaminathan and Joachims 2015). Places are taken as independent, which is what simple weighting can
do on slates: what a title above took away from one below is not seen.

Shapes: S visits, P places, N titles, M members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Z = 1.96


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its standard error."""

    value: float
    error: float
    num: float  # members, or what their weights amount to (effective sample size of visits)

    @property
    def low(self) -> float:
        """Lower end of the 95% interval (normal)."""
        return self.value - _Z * self.error

    @property
    def high(self) -> float:
        """Upper end of it."""
        return self.value + _Z * self.error

    def minus(self, other: Estimate) -> Estimate:
        """The difference to an independent estimate."""
        return Estimate(self.value - other.value, float(np.hypot(self.error, other.error)), min(self.num, other.num))

    def plain(self) -> dict[str, float]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "num": self.num}


def follows(
    score_SN: NDArray[np.float64], available_S: NDArray[np.int64], slate_SP: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the title at each place is the one that is greedy for a score, given those logged above it; [S, P].

    On sale are the first `available_S` titles.
    """
    left_SN = np.where(np.arange(score_SN.shape[1]) < available_S[:, None], score_SN, -np.inf)
    found_SP = np.zeros(slate_SP.shape, dtype=np.bool_)
    s = np.arange(len(slate_SP))
    for place in range(slate_SP.shape[1]):
        found_SP[:, place] = left_SN.argmax(axis=1) == slate_SP[:, place]
        left_SN[s, slate_SP[:, place]] = -np.inf
    return found_SP


def per_slate(reward_SP: NDArray[np.float64], weight_SP: NDArray[np.float64], member_S: NDArray[np.int64]) -> Estimate:
    """Sum over places of weighted means, each over the visits where it is known (others are NaN).

    The error is by linearisation, with all visits of a member as one.
    """
    known_SP = ~np.isnan(reward_SP)
    weight_SP = np.where(known_SP, weight_SP, 0.0)
    total_P = weight_SP.sum(axis=0)
    if not (total_P > 0).all():
        return Estimate(float("nan"), float("nan"), 0.0)
    reward_SP = np.where(known_SP, reward_SP, 0.0)
    mean_P = (weight_SP * reward_SP).sum(axis=0) / total_P
    off_S = (weight_SP * (reward_SP - mean_P) / total_P).sum(axis=1)
    off_M = np.bincount(member_S, off_S)
    size = float((total_P**2 / (weight_SP**2).sum(axis=0)).min())
    return Estimate(float(mean_P.sum()), float(np.sqrt((off_M**2).sum())), size)


def of_members(value_M: NDArray[np.float64], weight_M: NDArray[np.float64] | None = None) -> Estimate:
    """A mean over members whose value is known; with weights a ratio of sums, e.g. returns over visits."""
    known_M = ~np.isnan(value_M)
    weight_M = known_M.astype(np.float64) if weight_M is None else np.where(known_M, weight_M, 0.0)
    value_M, total = np.where(known_M, value_M, 0.0), float(weight_M.sum())
    if total == 0:
        return Estimate(float("nan"), float("nan"), 0.0)
    mean = float((weight_M * value_M).sum() / total)
    error = float(np.sqrt(((weight_M * (value_M - mean)) ** 2).sum()) / total)
    return Estimate(mean, error, float((weight_M > 0).sum()))


def paired(one_M: NDArray[np.float64], other_M: NDArray[np.float64]) -> Estimate:
    """How much one policy is above another, of the members whose value is known under both."""
    return of_members(one_M - other_M)
