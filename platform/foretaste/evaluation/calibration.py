"""Whether probabilities hold: of those told 20%, does one in five come true?

Shapes: M predictions, K bins, R resamples.
Expected calibration error with bins of equal numbers: Naeini et al., AAAI 2015; Nguyen and O'Connor, EMNLP 2015.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.evaluation.intervals import Figure, figure

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions of like size."""

    count: int
    told: float  # mean prediction
    came: float  # mean of what came


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well predictions hold."""

    count: int
    share: float  # mean label
    told: float  # mean prediction
    ece: Figure  # mean over predictions of |told - came| of their bin
    log_loss: float
    log_loss_of_share: float  # of always telling the mean label
    bins: tuple[Bin, ...]


def reliability(
    chance_M: NDArray[np.floating],
    label_M: NDArray[np.floating],
    actor_M: NDArray[np.int64],
    *,
    resamples: int,
    seed: int,
    num_bins: int = NUM_BINS,
) -> Reliability:
    """Compare predictions in 0..1 with labels in 0..1; the interval of the error draws actors with replacement.

    Bins hold equal numbers of predictions, equal predictions stay together. The error of few predictions is above 0
    also where all probabilities are right. Raises ValueError without predictions or outside 0..1.
    """
    if not len(chance_M) or chance_M.min() < 0 or chance_M.max() > 1:
        raise ValueError(f"reliability: wanted predictions within 0..1, got {len(chance_M)} of them")
    edges = np.unique(np.quantile(chance_M, np.linspace(0, 1, num_bins + 1)[1:-1]))
    bin_M = np.searchsorted(edges, chance_M, side="right")
    size = len(edges) + 1
    actors, actor_M = np.unique(actor_M, return_inverse=True)
    sums = [
        np.bincount(actor_M * size + bin_M, weights=weight_M, minlength=len(actors) * size).reshape(len(actors), size)
        for weight_M in (np.ones(len(chance_M)), chance_M, label_M)
    ]
    rng = np.random.default_rng(seed)
    drawn = [
        np.bincount(rng.integers(0, len(actors), len(actors)), minlength=len(actors)).astype(np.float64)
        for _ in range(resamples)
    ]
    errors_R = np.array([_error(times @ sums[0], times @ sums[1], times @ sums[2]) for times in drawn])
    count_K, told_K, came_K = (one.sum(axis=0) for one in sums)
    full = count_K > 0
    bins = [
        Bin(int(n), float(p / n), float(y / n))
        for n, p, y in zip(count_K[full], told_K[full], came_K[full], strict=True)
    ]
    share = float(label_M.mean())
    return Reliability(
        len(chance_M),
        share,
        float(chance_M.mean()),
        figure(_error(count_K, told_K, came_K), errors_R, len(actors)),
        _log_loss(chance_M, label_M),
        _log_loss(np.full(len(label_M), share), label_M),
        tuple(bins),
    )


def _error(count_K: NDArray[np.float64], told_K: NDArray[np.float64], came_K: NDArray[np.float64]) -> float:
    return float(np.abs(told_K - came_K).sum() / max(count_K.sum(), 1.0))


def _log_loss(chance_M: NDArray[np.floating], label_M: NDArray[np.floating]) -> float:
    chance_M = np.clip(chance_M.astype(np.float64), 1e-12, 1.0 - 1e-12)
    return float(-(label_M * np.log(chance_M) + (1.0 - label_M) * np.log(1.0 - chance_M)).mean())
