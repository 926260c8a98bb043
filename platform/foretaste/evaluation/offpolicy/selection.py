"""Which of several estimates to believe, and how far to shrink weights: from the log, never from the truth.

SLOPE: Su, Srinath and Krishnamurthy, ICML 2020; without an order given beforehand (SLOPE++): Tucker and Lee, 2021.
Estimated error: Su, Dimakopoulou, Krishnamurthy and Dudik, ICML 2020, section 5.

Shapes: R rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from foretaste.evaluation.offpolicy.estimators import Estimator, shrunk
from foretaste.evaluation.offpolicy.rounds import Floats, Rounds
from foretaste.evaluation.offpolicy.terms import Sums, Terms

DELTA = 0.05
_SLOPE_CONSTANT = np.sqrt(6.0) - 1.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """An estimate with the half-width of its deviation; its bias is not known."""

    name: str
    value: float
    half_width: float

    @classmethod
    def of(cls, name: str, sums: Sums, *, delta: float = DELTA) -> Candidate:
        """From sums: half of Student's interval of level 1 - 2 delta, as `obp` has it."""
        reach = float(stats.t.ppf(1.0 - delta, max(sums.num_rounds - 1, 1)))
        return cls(name, sums.value, reach * sums.standard_error)


def slope(candidates: Sequence[Candidate]) -> int:
    """Place of the narrowest candidate that agrees with all that are wider than it.

    Candidates are gone through from the widest, which is taken to be the least biased, to the narrowest; the first that
    is further from one before than both half-widths allow is biased, and the one before it is taken.
    Raises ValueError where there is no candidate.
    """
    if not candidates:
        raise ValueError("slope: there is no candidate")
    order = np.argsort([-candidate.half_width for candidate in candidates], kind="stable")
    for place, index in enumerate(order):
        found = candidates[index]
        wider = [candidates[i] for i in order[:place]]
        if any(abs(w.value - found.value) > found.half_width + _SLOPE_CONSTANT * w.half_width for w in wider):
            return int(order[place - 1])
    return int(order[-1])


@dataclass(frozen=True, slots=True)
class Tuned:
    """An estimator with one strength of its shrinkage, and what the log says of it."""

    estimator: Estimator
    terms: Terms
    squared_error: float  # estimated: variance plus squared bias


def strengths(estimator: Estimator, rounds: Rounds, *, number: int = 25) -> Floats:
    """A grid that spans the weights of the log: quantiles to cut at, squares of them to shrink by, and no shrinkage."""
    some_R = rounds.weight_R[rounds.weight_R > 0]
    if not len(some_R):
        return np.array([np.inf])
    grid = np.unique(np.quantile(some_R, np.linspace(0.05, 1.0, number)))
    return np.append(4.0 * grid**2 if estimator.shape is shrunk else grid, np.inf)


def tunings(
    rounds: Rounds,
    estimator: Estimator,
    grid: Sequence[float] | Floats,
    *,
    bias_bound: bool = True,
    delta: float = DELTA,
) -> list[Tuned]:
    """The estimator with every strength of the grid, and its estimated squared error.

    That is variance / R + bias^2, the bias that of the mean of (weight - shrunk weight) x what was earned beyond the
    prediction, or with `bias_bound` that plus Bernstein's deviation of it with certainty 1 - delta.
    Raises ValueError for an estimator that has nothing to tune.
    """
    options = [estimator.tuned(float(strength)) for strength in grid]
    weight_R, num_rounds = rounds.weight_R, len(rounds)
    beyond_R = rounds.surprise_R if estimator.modelled else rounds.reward_R
    logarithm = np.log(2.0 / delta)
    deviation = np.sqrt(2.0 * (weight_R @ weight_R) * logarithm) / num_rounds
    deviation += 2.0 * weight_R.max() * logarithm / (3.0 * num_rounds)
    found = []
    for option in options:
        terms = option(rounds)
        shaped_R = weight_R if option.shape is None else option.shape(rounds, option.tuning or 0.0)
        bias = abs(float((weight_R - shaped_R) @ beyond_R)) / num_rounds + (deviation if bias_bound else 0.0)
        found.append(Tuned(option, terms, float(terms.per_round_R.var() / num_rounds + bias**2)))
    return found


def least_error(options: Sequence[Tuned]) -> Tuned:
    """The option of the least estimated error."""
    return min(options, key=lambda option: option.squared_error)


def by_slope(options: Sequence[Tuned], *, delta: float = DELTA) -> Tuned:
    """The option that SLOPE takes."""
    return options[
        slope([Candidate.of(option.estimator.name, Sums.of(option.terms), delta=delta) for option in options])
    ]
