"""A slate and the probability with which it was chosen.

Shapes: C candidates of the pool, K places of the slate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Slate:
    """K candidates in the order in which they are shown. A slate without its propensity cannot be evaluated."""

    order_K: NDArray[np.int64]  # index into the pool of C
    propensity_K: NDArray[np.float64]  # of this candidate at this place, given those above it
    explored_K: NDArray[np.bool_]  # whether the dice, not the scores, filled the place

    def __len__(self) -> int:
        return len(self.order_K)

    @property
    def slate_propensity(self) -> float:
        """Probability of the whole slate in this order: the product over its places; 1 for an empty one."""
        return float(np.prod(self.propensity_K))

    @property
    def explored(self) -> bool:
        """Whether any place was filled by the dice."""
        return bool(self.explored_K.any())


@runtime_checkable
class SlatePolicy(Protocol):
    """What every policy offers; `foretaste.testing.contract_policy` is what it has to keep."""

    @property
    def name(self) -> str:
        """Name under which decisions log it."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever the same scores, parameters and seed would give another slate."""
        ...

    @property
    def params(self) -> Mapping[str, Any]:
        """All that `choose` reads beside scores, k and dice."""
        ...

    def choose(self, scores_C: NDArray[np.float64], *, k: int, rng: np.random.Generator) -> Slate:
        """Fill min(k, C) places, each candidate at most once. Raises ValueError on k < 0 or NaN scores."""
        ...

    def distribution(self, scores_C: NDArray[np.float64], placed: Sequence[int]) -> NDArray[np.float64]:
        """Probability of each candidate for the next place, given those `placed` above; sums to 1."""
        ...


def checked_scores(scores: NDArray[np.float64], *, k: int) -> NDArray[np.float64]:
    """Give the scores as float64 of one dimension. Raises ValueError on NaN, other shapes or a negative k."""
    scores_C = np.asarray(scores, dtype=np.float64)
    if scores_C.ndim != 1:
        raise ValueError(f"scores: wanted one dimension, got shape {scores_C.shape}")
    if np.isnan(scores_C).any():
        raise ValueError(f"scores: candidate {int(np.isnan(scores_C).argmax())} of {len(scores_C)} is NaN")
    if k < 0:
        raise ValueError(f"k: wanted 0 or more, got {k}")
    return scores_C


def dice(seed: int) -> np.random.Generator:
    """Make the generator that a logged seed stands for: PCG64, named here so that a replay rolls the same."""
    return np.random.Generator(np.random.PCG64(seed))
