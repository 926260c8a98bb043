"""How sure a figure is over training runs: a mean over seeds with its t-interval, and both kinds of chance together.

Three intervals answer three questions, and each says which it is:
- over seeds (Student's t): where would the mean lie had other seeds been drawn, of the same members?
- over actors (bootstrap, evaluation.intervals): where, had other members been asked, of the same trained models?
- over both: the two half-widths, which are independent sources of chance, added as variances are.

Shapes: S seeds, B cases, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from foretaste.evaluation.intervals import LEVEL, resampled_means

Values = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """A mean over n runs with its 95% interval; None where there is none (one run)."""

    value: float
    low: float | None
    high: float | None
    n: int


def over_seeds(values_S: Values) -> OverSeeds:
    """Mean over seeds with the two-sided 95% t-interval. Raises ValueError without values."""
    values = np.asarray(values_S, dtype=np.float64)
    if not len(values):
        raise ValueError("over_seeds: no values given")
    half = _half(values)
    return _around(float(values.mean()), half, len(values))


def paired(values_S: Values, other_S: Values) -> OverSeeds:
    """Mean difference to another model over the same seeds. Raises ValueError where the numbers of seeds differ."""
    one, two = _same(values_S, other_S)
    return over_seeds(one - two)


def paired_ratio(values_S: Values, other_S: Values) -> OverSeeds:
    """By what share the model is above another, seed by seed; 0.05 is 5% above.

    Raises ValueError where the numbers of seeds differ or the other is 0 somewhere.
    """
    one, two = _same(values_S, other_S)
    if (two == 0).any():
        raise ValueError("paired_ratio: the model compared with has a value of 0")
    return over_seeds(one / two - 1.0)


def over_both(
    values_SB: NDArray[np.float64], actor_B: NDArray[np.int64], *, resamples: int = 1000, seed: int = 0
) -> OverSeeds:
    """Mean over seeds and cases of one metric, or of a paired difference, with the interval over seeds and actors.

    The actors' part is the bootstrap of the case values averaged over seeds. With one seed it is that part alone,
    with one actor the seeds' alone.
    """
    half_seeds = _half(values_SB.mean(axis=1))
    half_actors: float | None = None
    if len(np.unique(actor_B)) > 1:
        means_R = resampled_means(values_SB.mean(axis=0)[:, None], actor_B, resamples=resamples, seed=seed)[:, 0]
        half_actors = float(stats.norm.ppf((1 + LEVEL) / 2) * means_R.std(ddof=1))
    halves = [half for half in (half_seeds, half_actors) if half is not None]
    both = float(np.sqrt(sum(half**2 for half in halves))) if halves else None
    return _around(float(values_SB.mean()), both, len(values_SB))


def _half(values_S: NDArray[np.float64]) -> float | None:
    """Half the width of the t-interval of a mean."""
    count = len(values_S)
    if count < 2:
        return None
    return float(stats.t.ppf((1 + LEVEL) / 2, count - 1) * values_S.std(ddof=1) / np.sqrt(count))


def _around(mean: float, half: float | None, count: int) -> OverSeeds:
    return OverSeeds(mean, None, None, count) if half is None else OverSeeds(mean, mean - half, mean + half, count)


def _same(values_S: Values, other_S: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, two = np.asarray(values_S, dtype=np.float64), np.asarray(other_S, dtype=np.float64)
    if one.shape != two.shape:
        raise ValueError(f"paired: {len(one)} seeds of one model, {len(two)} of the other")
    return one, two
