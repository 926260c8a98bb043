"""What treating those first whom a score puts first would bring: Qini, uplift and incremental reward curves.

Rows are sorted by score, highest first; equal scores are one point. Of the first n rows, n_t were treated with the sum
of outcomes y_t, n_c were not with y_c.

- Qini curve: y_t - y_c n_t / n_c (Radcliffe 2007): what treatment brought among those who got it.
- Uplift curve: (y_t / n_t - y_c / n_c) n (Devriendt et al. 2020): what it would bring if all n got it.
- Coefficient of either (`qini`, `auuc`): its area above the line from its first point to its last, as a share of that
  of the perfect order; outcomes 0 and 1. 0 is any order, below it a harmful one. These are scikit-uplift's
  `qini_auc_score` (with negative effects) and `uplift_auc_score`. causalml's `auuc_score` is something else: the mean
  height of the uplift curve over all rows, ties in file order, divided by its last point where normalised.
- Incremental reward curve: mean over all rows of what treating the first share q brings, from doubly robust or
  inverse-propensity effects of the rows. It wants no equal propensities and no binary outcome.

Intervals draw whole actors again with the scores as they are: they are of this model on other members, not of training
again.

Shapes: N rows, H points of a curve, R resamples, Q shares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foretaste.evaluation.intervals import Figure, figure, resampled_means

Floats = NDArray[np.float64]
Height = Callable[[Floats, Floats, Floats, Floats], Floats]
"""Height of a curve from n_t, y_t, n_c, y_c."""
TENTHS = tuple(tenth / 10 for tenth in range(1, 11))


@dataclass(frozen=True, slots=True)
class Ranked:
    """Coefficients of one score, with 95% intervals where there was something to draw."""

    qini: Figure
    auuc: Figure


@dataclass(frozen=True, slots=True)
class RewardCurve:
    """Incremental reward a row at each share treated, with pointwise 95% intervals."""

    share_Q: Floats
    gain: tuple[Figure, ...]
    area: Figure  # mean height over the shares above the straight line of treating at random


def qini_curve(outcome_N: ArrayLike, score_N: ArrayLike, treated_N: ArrayLike) -> tuple[Floats, Floats]:
    """Number of rows and height of the Qini curve at each distinct score, from (0, 0). Raises as `ranked` does."""
    table = _Table(outcome_N, score_N, treated_N, binary=False)
    return table.curve(_qini, np.ones(len(table.order_N)))


def uplift_curve(outcome_N: ArrayLike, score_N: ArrayLike, treated_N: ArrayLike) -> tuple[Floats, Floats]:
    """Number of rows and height of the uplift curve at each distinct score, from (0, 0). Raises as `ranked` does."""
    table = _Table(outcome_N, score_N, treated_N, binary=False)
    return table.curve(_uplift, np.ones(len(table.order_N)))


def ranked(
    outcome_N: ArrayLike,
    score_N: ArrayLike,
    treated_N: ArrayLike,
    *,
    actor_N: NDArray[np.int64] | None = None,
    resamples: int = 500,
    seed: int = 0,
) -> Ranked:
    """Qini and AUUC coefficients of a score for outcomes 0 and 1; no resamples, no intervals.

    Raises ValueError where lengths differ, outcomes or treatment are not 0 and 1, a score is not finite, or one arm is
    empty.
    """
    table = _Table(outcome_N, score_N, treated_N, binary=True)
    num = len(table.order_N)
    actors, place_N = (num, np.arange(num)) if actor_N is None else _places(actor_N)
    rng = np.random.default_rng(seed)
    found_R2 = np.empty((resamples, 2))
    for number in range(resamples):
        times = np.bincount(rng.integers(0, actors, actors), minlength=actors).astype(np.float64)
        found_R2[number] = table.coefficients(times[place_N])
    qini, auuc = table.coefficients(np.ones(num))
    if not resamples:
        return Ranked(Figure(qini, None, None), Figure(auuc, None, None))
    return Ranked(figure(qini, found_R2[:, 0], actors), figure(auuc, found_R2[:, 1], actors))


def reward_curve(
    effect_N: Floats,
    score_N: Floats,
    *,
    shares: ArrayLike = TENTHS,
    actor_N: NDArray[np.int64] | None = None,
    resamples: int = 500,
    seed: int = 0,
) -> RewardCurve:
    """What treating the best-scored shares brings, a row of all rows.

    `effect_N` are unbiased effects of the rows (`uplift.doubly_robust`, or outcome times signed inverse propensity),
    made without the score. Equal scores share the place at the edge. Raises ValueError for shares outside (0, 1].
    """
    share_Q = np.asarray(shares, dtype=np.float64)
    if not len(share_Q) or share_Q.min() <= 0 or share_Q.max() > 1:
        raise ValueError(f"reward_curve: wanted shares within (0, 1], got {share_Q}")
    sorted_N = np.sort(-score_N)
    below_N, upto_N = (np.searchsorted(sorted_N, -score_N, side=side) / len(score_N) for side in ("left", "right"))
    treated_NQ = np.clip((share_Q - below_N[:, None]) / (upto_N - below_N)[:, None], 0.0, 1.0)
    gain_NQ = effect_N[:, None] * treated_NQ
    above_N = (gain_NQ - effect_N[:, None] * share_Q).mean(axis=1)
    value_NM = np.column_stack([gain_NQ, above_N])
    actor = np.arange(len(effect_N)) if actor_N is None else actor_N
    means_RM = resampled_means(value_NM, actor, resamples=resamples, seed=seed)
    actors = len(np.unique(actor))
    figures = [figure(float(v), r, actors) for v, r in zip(value_NM.mean(axis=0), means_RM.T, strict=True)]
    return RewardCurve(share_Q, tuple(figures[:-1]), figures[-1])


class _Table:
    """Rows in the order of their score, counted with any weights."""

    def __init__(self, outcome_N: ArrayLike, score_N: ArrayLike, treated_N: ArrayLike, *, binary: bool) -> None:
        score = np.asarray(score_N, dtype=np.float64)
        outcome, treated = (_checked(given, what, score, zero_one) for given, what, zero_one in (
            (outcome_N, "outcome", binary), (treated_N, "treated", True)
        ))  # fmt: skip
        if not np.isfinite(score).all():
            raise ValueError(f"uplift: the score of row {int(np.argmin(np.isfinite(score)))} is not finite")
        if treated.all() or not treated.any():
            raise ValueError(f"uplift: wanted rows treated and not, got {int(treated.sum())} treated of {len(treated)}")
        self.order_N = np.argsort(-score, kind="stable")
        self.outcome_N, self.treated_N = outcome[self.order_N], treated[self.order_N]
        ordered = score[self.order_N]
        self.last_H = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)

    def curve(self, height: Height, weight_N: Floats) -> tuple[Floats, Floats]:
        """The curve with rows counted so often."""
        treated_N = weight_N[self.order_N] * self.treated_N
        control_N = weight_N[self.order_N] - treated_N
        sums = [
            np.cumsum(part)[self.last_H]
            for part in (treated_N, treated_N * self.outcome_N, control_N, control_N * self.outcome_N)
        ]
        return _curve(height, *sums)

    def coefficients(self, weight_N: Floats) -> tuple[float, float]:
        """Qini and AUUC with rows counted so often."""
        weight = weight_N[self.order_N]
        cell = (2 * self.treated_N + self.outcome_N).astype(np.int64)
        cells: Floats = np.bincount(cell, weights=weight, minlength=4).astype(np.float64).reshape(2, 2)
        return (
            _share(self.curve(_qini, weight_N), _perfect_qini(cells)),
            _share(self.curve(_uplift, weight_N), _perfect_uplift(cells)),
        )


def _perfect_qini(cells: Floats) -> tuple[Floats, Floats]:
    """Treated responders first, control responders last; cells[treated, outcome] are numbers of rows."""
    order = [[(1, 1)], [(1, 0), (0, 0)], [(0, 1)]]
    return _curve(_qini, *_grouped(cells, order))


def _perfect_uplift(cells: Floats) -> tuple[Floats, Floats]:
    """Those for whom outcome and treatment agree first; the rarer kind of disagreement last."""
    if cells[0, 1] > cells[1, 0]:
        order = [[(1, 1)], [(0, 0)], [(0, 1)], [(1, 0)]]
    else:
        order = [[(1, 1)], [(0, 0)], [(1, 0)], [(0, 1)]]
    return _curve(_uplift, *_grouped(cells, order))


def _grouped(cells: Floats, order: list[list[tuple[int, int]]]) -> list[Floats]:
    """Cumulative n_t, y_t, n_c, y_c over groups of cells; empty groups are no points."""
    order = [group for group in order if sum(cells[cell] for cell in group) > 0]
    return [
        np.cumsum([sum(cells[cell] for cell in group if wanted(cell)) for group in order], dtype=np.float64)
        for wanted in (_treated, _treated_responder, _control, _control_responder)
    ]


def _treated(cell: tuple[int, int]) -> bool:
    return cell[0] == 1


def _treated_responder(cell: tuple[int, int]) -> bool:
    return cell == (1, 1)


def _control(cell: tuple[int, int]) -> bool:
    return cell[0] == 0


def _control_responder(cell: tuple[int, int]) -> bool:
    return cell == (0, 1)


def _curve(
    height: Height, treated_H: Floats, won_H: Floats, control_H: Floats, lost_H: Floats
) -> tuple[Floats, Floats]:
    heights = height(treated_H, won_H, control_H, lost_H)
    return np.append(0.0, treated_H + control_H), np.append(0.0, heights)


def _qini(treated_H: Floats, won_H: Floats, control_H: Floats, lost_H: Floats) -> Floats:
    return won_H - lost_H * _over(treated_H, control_H)


def _uplift(treated_H: Floats, won_H: Floats, control_H: Floats, lost_H: Floats) -> Floats:
    return (_over(won_H, treated_H) - _over(lost_H, control_H)) * (treated_H + control_H)


def _over(one: Floats, other: Floats) -> Floats:
    """The ratio; 0 where nothing is below."""
    return np.divide(one, other, out=np.zeros_like(one), where=other != 0)


def _share(curve: tuple[Floats, Floats], perfect: tuple[Floats, Floats]) -> float:
    """Area above the straight line, as a share of the perfect curve's."""
    base = 0.5 * perfect[0][-1] * perfect[1][-1]
    area, best = (float(np.trapezoid(y, x)) - base for x, y in (curve, perfect))
    return area / best if best else 0.0


def _checked(given: ArrayLike, what: str, score_N: Floats, zero_one: bool) -> Floats:
    values = np.asarray(given, dtype=np.float64)
    if values.shape != score_N.shape:
        raise ValueError(f"uplift: {len(score_N)} scores, but {what} has shape {values.shape}")
    if zero_one and not (fits_N := np.isin(values, (0.0, 1.0))).all():
        row = int(np.argmin(fits_N))
        raise ValueError(f"uplift: {what} of row {row} is {values[row]}, wanted 0 or 1")
    return values


def _places(actor_N: NDArray[np.int64]) -> tuple[int, NDArray[np.intp]]:
    actors, place_N = np.unique(actor_N, return_inverse=True)
    return len(actors), place_N
