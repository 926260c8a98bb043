"""What a score stands for: the reward that a policy expects of a candidate, 0 or more, by which exploring has a price.

Shapes: C candidates of the pool.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

LARGEST = 1e300
"""Scores beyond it, infinite ones too, count as it: differences stay numbers."""
LARGEST_LOG = 700.0
LEAST_SHARE = 1e-6
"""Of the best: what is worth less counts as this where a logarithm is taken."""


class Scale(StrEnum):
    """What scores are."""

    VALUE = "value"  # the reward itself, or proportional to it
    LOG = "log"  # its logarithm
    LOGIT = "logit"  # log odds of it


def worth(scores_C: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
    """Expected reward of each candidate, float64[C], 0 or more and finite.

    Of values below 0 the worst of the pool counts as nothing and the others by their distance from it.
    """
    if scale is Scale.VALUE:
        value_C = bounded(scores_C)
        return value_C - min(0.0, float(value_C.min(initial=0.0)))
    bounded_C = np.clip(scores_C, -LARGEST_LOG, LARGEST_LOG)
    return np.exp(bounded_C) if scale is Scale.LOG else 1.0 / (1.0 + np.exp(-bounded_C))


def bounded(scores_C: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of which every difference is a number."""
    return np.clip(scores_C, -LARGEST, LARGEST)


def log_values(scores_C: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of values, none below that of `LEAST_SHARE` of the best; all 0 where no value is above 0."""
    best = float(scores_C.max(initial=0.0))
    if best <= 0.0:
        return np.zeros(len(scores_C))
    return np.log(np.maximum(scores_C, LEAST_SHARE * best))


def logits(scores_C: NDArray[np.float64], *, least: float = 1e-6) -> NDArray[np.float64]:
    """Log odds of probabilities, each taken as no nearer to 0 or 1 than `least`."""
    chance_C = np.clip(scores_C, least, 1.0 - least)
    return np.log(chance_C) - np.log1p(-chance_C)
