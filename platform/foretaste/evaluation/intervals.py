"""Intervals of means over cases, by drawing whole actors again (cases of one actor are not independent).

Cluster bootstrap, percentile intervals: Efron and Tibshirani 1993, chapters 8 and 13.

Shapes: B cases, A actors with cases, M columns (a metric of a model each), R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
_DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean with its 95% interval; None where there is no interval (one actor, or not a mean)."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Difference:
    """How much one model is above another on the same cases."""

    value: float
    low: float | None
    high: float | None
    p_not_better: float | None  # share of resamples in which the difference is 0 or less
    against: str


def resampled_means(
    values_BM: NDArray[np.float64], actor_B: NDArray[np.int64], *, resamples: int, seed: int
) -> NDArray[np.float64]:
    """Means of the columns over cases of A actors drawn with replacement, `resamples` times: float64[R, M].

    All columns share the draws, so a difference of columns is paired.
    """
    actors, place_B = np.unique(actor_B, return_inverse=True)
    num_actors = len(actors)
    totals_AM1 = np.zeros((num_actors, values_BM.shape[1] + 1))
    np.add.at(totals_AM1, place_B, np.column_stack([values_BM, np.ones(len(values_BM))]))
    rng = np.random.default_rng(seed)
    sums_RM1 = np.empty((resamples, totals_AM1.shape[1]))
    block = max(1, _DRAWS_AT_ONCE // max(num_actors, 1))
    for first in range(0, resamples, block):
        size = min(block, resamples - first)
        drawn = rng.integers(0, num_actors, size=(size, num_actors)) + np.arange(size)[:, None] * num_actors
        times_RA = np.bincount(drawn.ravel(), minlength=size * num_actors).reshape(size, num_actors)
        sums_RM1[first : first + size] = times_RA @ totals_AM1
    means_RM: NDArray[np.float64] = sums_RM1[:, :-1] / sums_RM1[:, -1:]
    return means_RM


def figure(value: float, means_R: NDArray[np.float64], num_actors: int) -> Figure:
    """A mean with the percentile interval of its resamples."""
    return Figure(float(value), *_bounds(means_R, num_actors))


def difference(value: float, differences_R: NDArray[np.float64], num_actors: int, *, against: str) -> Difference:
    """A paired difference with its interval and the share of resamples in which it is not above 0."""
    share = float(np.mean(differences_R <= 0)) if num_actors > 1 else None
    return Difference(float(value), *_bounds(differences_R, num_actors), share, against)


def _bounds(means_R: NDArray[np.float64], num_actors: int) -> tuple[float | None, float | None]:
    if num_actors < 2:
        return None, None
    low, high = np.quantile(means_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
