"""A slate and the probability with which it was chosen.

Shapes: C candidates of the pool, K places of the slate, D features of a candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Price:
    """What is expected to be given up at each place against the best that could have stood there.

    The mean over the dice, given the places above: no dice are in it but those that filled these. Who stands lower for
    an explored title still earns there, so the sum is an upper bound of what the list loses.
    """

    best_K: NDArray[np.float64]  # worth of the best that could have stood there
    given_up_K: NDArray[np.float64]  # 0 or more, at most best

    @property
    def share(self) -> float:
        """Share of the list's estimated reward; 0 where there is none."""
        best = float(self.best_K.sum())
        return float(self.given_up_K.sum()) / best if best > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class Slate:
    """K candidates in the order in which they are shown. A slate without its propensity cannot be evaluated."""

    order_K: NDArray[np.int64]  # index into the pool of C
    propensity_K: NDArray[np.float64]  # of this candidate at this place, given those above it
    explored_K: NDArray[np.bool_]  # whether the dice, not the scores, filled the place
    price: Price | None = None  # None: not asked for

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

    def shown_propensity(self, shown: Sequence[int]) -> float:
        """Probability of the list down to the deepest of the places that a client `shown`; 1 where it showed none.

        What it left out in between was chosen by the policy; what is below the deepest is no decision that anybody saw.
        """
        return float(np.prod(self.propensity_K[: max(shown, default=-1) + 1]))


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

    def choose(
        self,
        scores_C: NDArray[np.float64],
        *,
        k: int,
        rng: np.random.Generator,
        features_CD: NDArray[np.float64] | None = None,
    ) -> Slate:
        """Fill min(k, C) places, each candidate at most once.

        `features_CD` describe the candidates to policies that learn from them. Raises ValueError on k < 0, NaN scores,
        or features that are missing, not finite or of another shape where they are read.
        """
        ...

    def distribution(
        self,
        scores_C: NDArray[np.float64],
        placed: Sequence[int],
        *,
        features_CD: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
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
