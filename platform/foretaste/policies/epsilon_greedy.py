"""Epsilon-greedy slates: mostly the best remaining title, sometimes any remaining one, with exact propensities.

Shapes: C candidates of the pool, K places of the slate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.policies.slate import Slate, checked_scores, dice

VERSION = "2"
REPLAYED = frozenset({"1", VERSION})
"""Version 1 knew no protected places and is otherwise the same."""


def choose_slate(
    scores: NDArray[np.float64], *, k: int, epsilon: float, rng: np.random.Generator, protected: Sequence[int] = ()
) -> Slate:
    """Fill each place with the best remaining candidate, or, with probability `epsilon`, with any remaining one.

    Equal scores rank in order of the pool. With r candidates remaining, the one placed had the propensity
    (1 - epsilon) * [it is the best remaining] + epsilon / r. A place p that is `protected` gets the candidate of rank p
    with propensity 1, and that one stands nowhere else. Two random numbers are used for every place, whatever they
    decide, so that one seed rolls the same dice under any epsilon. A pool smaller than `k` is shown whole. Raises
    ValueError on NaN scores, k < 0 or epsilon outside 0..1.
    """
    scores_C = checked_scores(scores, k=k)
    if not 0.0 <= epsilon <= 1.0:
        raise ValueError(f"epsilon: wanted 0..1, got {epsilon}")
    ranked: list[int] = np.argsort(-scores_C, kind="stable").tolist()
    fixed = _fixed(ranked, protected)
    remaining = [c for c in ranked if c not in fixed.values()] if fixed else list(ranked)
    num = min(k, len(ranked))
    dice_K2 = rng.random((num, 2))
    order_K = np.zeros(num, dtype=np.int64)
    propensity_K = np.ones(num, dtype=np.float64)
    explored_K = dice_K2[:, 0] < epsilon
    for place in range(num):
        if place in fixed:
            order_K[place], explored_K[place] = fixed[place], False
            continue
        left = len(remaining)
        rank = int(dice_K2[place, 1] * left) if explored_K[place] else 0
        order_K[place] = remaining.pop(rank)
        propensity_K[place] = (1.0 - epsilon) * (rank == 0) + epsilon / left
    return Slate(order_K, propensity_K, explored_K)


@dataclass(frozen=True, slots=True)
class EpsilonGreedy:
    """`choose_slate` as a policy; with epsilon 0 it is called greedy and every propensity is 1."""

    epsilon: float  # 0..1, probability that a place is filled by the dice
    protected: tuple[int, ...] = ()  # places that the dice never fill
    version: str = VERSION

    def __post_init__(self) -> None:
        """Refuse an epsilon that is no probability."""
        if not 0.0 <= self.epsilon <= 1.0:
            raise ValueError(f"epsilon: wanted 0..1, got {self.epsilon}")

    @property
    def name(self) -> str:
        """`epsilon_greedy`, or `greedy` where nothing is left to the dice."""
        return "epsilon_greedy" if self.epsilon > 0 else "greedy"

    @property
    def params(self) -> dict[str, Any]:
        """The epsilon, and the protected places where there are any."""
        return {"epsilon": self.epsilon} | ({"protected": list(self.protected)} if self.protected else {})

    def choose(self, scores_C: NDArray[np.float64], *, k: int, rng: np.random.Generator) -> Slate:
        """See `choose_slate`."""
        return choose_slate(scores_C, k=k, epsilon=self.epsilon, rng=rng, protected=self.protected)

    def distribution(self, scores_C: NDArray[np.float64], placed: Sequence[int]) -> NDArray[np.float64]:
        """Probability of each candidate for the next place, given those `placed` above; all 0 when none is left."""
        scores_C = checked_scores(scores_C, k=0)
        ranked: list[int] = np.argsort(-scores_C, kind="stable").tolist()
        fixed, taken = _fixed(ranked, self.protected), set(placed)
        remaining = [c for c in ranked if c not in taken and c not in fixed.values()]
        probability_C = np.zeros(len(scores_C), dtype=np.float64)
        if len(placed) in fixed:
            probability_C[fixed[len(placed)]] = 1.0
        elif remaining:
            probability_C[remaining] = self.epsilon / len(remaining)
            probability_C[remaining[0]] += 1.0 - self.epsilon
        return probability_C


def replay(
    scores: NDArray[np.float64], *, k: int, params: Mapping[str, Any], seed: int, version: str = VERSION
) -> Slate:
    """Make a logged slate again from the logged scores, parameters and seed, bit for bit.

    Raises ValueError where it was logged by another version of the policy.
    """
    if version not in REPLAYED:
        raise ValueError(f"epsilon_greedy: slate was chosen by version {version}, this is version {VERSION}")
    protected = params.get("protected", ())
    return choose_slate(scores, k=k, epsilon=params["epsilon"], rng=dice(seed), protected=protected)


def _fixed(ranked: Sequence[int], protected: Sequence[int]) -> dict[int, int]:
    """Candidate of each protected place."""
    return {place: ranked[place] for place in sorted(protected) if place < len(ranked)}
