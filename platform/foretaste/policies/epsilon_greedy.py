"""Epsilon-greedy slates: mostly the best remaining title, sometimes any remaining one, with exact propensities.

Shapes: C candidates of the pool, K places of the slate, D features of a candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from foretaste.policies.by_place import ByPlace, Plan, only
from foretaste.policies.exploration import UNBOUNDED, Exploration
from foretaste.policies.slate import Price, Slate, checked_scores, dice
from foretaste.policies.worth import Scale, worth

VERSION = "2"
REPLAYED = frozenset({"1", VERSION})
"""Version 1 knew no protected places and is otherwise the same."""
BOUNDED_VERSION = "3"
"""With bounds beside epsilon, lists are drawn as those of every other policy are."""


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


@dataclass(frozen=True, kw_only=True)
class BoundedEpsilonGreedy(ByPlace):
    """The best remaining candidate, but for the dice of the bounds: epsilon among the next few, cold ones, a budget."""

    name: ClassVar[str] = "epsilon_greedy"
    version: ClassVar[str] = BOUNDED_VERSION

    def plan(self, scores_C: NDArray[np.float64], features_CD: NDArray[np.float64] | None) -> Plan:
        """Equal scores rank in order of the pool. Features are not read."""
        ranked = np.argsort(-scores_C, kind="stable")

        def base(left_C: NDArray[np.bool_]) -> NDArray[np.float64]:
            return only(int(ranked[left_C[ranked].argmax()]), len(ranked))

        return Plan(worth(scores_C, self.scale), base)


@dataclass(frozen=True, slots=True)
class EpsilonGreedy:
    """`choose_slate` as a policy; with epsilon 0 it is called greedy and every propensity is 1.

    Bounds of `exploration` beside its epsilon make it `BoundedEpsilonGreedy`.
    """

    epsilon: float  # 0..1, probability that a place is filled by the dice
    protected: tuple[int, ...] = ()  # places that the dice never fill
    exploration: Exploration = UNBOUNDED  # its own epsilon does not count
    cold: tuple[int, ...] = ()  # candidates of which little is known, by their number in the pool
    scale: Scale = Scale.VALUE  # of the scores; only the price reads it where there are no bounds

    def __post_init__(self) -> None:
        """Refuse an epsilon that is no probability."""
        if not 0.0 <= self.epsilon <= 1.0:
            raise ValueError(f"epsilon: wanted 0..1, got {self.epsilon}")

    @property
    def name(self) -> str:
        """`epsilon_greedy`, or `greedy` where nothing is left to the dice."""
        return "epsilon_greedy" if self.epsilon > 0 or self._bounded is not None else "greedy"

    @property
    def version(self) -> str:
        """That of the way in which dice are used."""
        return VERSION if self._bounded is None else BOUNDED_VERSION

    @property
    def params(self) -> dict[str, Any]:
        """The epsilon, and bounds and protected places where there are any."""
        if (bounded := self._bounded) is not None:
            return bounded.params
        return {"epsilon": self.epsilon} | ({"protected": list(self.protected)} if self.protected else {})

    @property
    def _bounded(self) -> BoundedEpsilonGreedy | None:
        if self.exploration.only_epsilon:
            return None
        bounds = self.exploration.model_copy(update={"epsilon": self.epsilon})
        return BoundedEpsilonGreedy(exploration=bounds, protected=self.protected, cold=self.cold, scale=self.scale)

    def choose(
        self,
        scores_C: NDArray[np.float64],
        *,
        k: int,
        rng: np.random.Generator,
        features_CD: NDArray[np.float64] | None = None,
    ) -> Slate:
        """See `choose_slate`; features are not read."""
        if (bounded := self._bounded) is not None:
            return bounded.choose(scores_C, k=k, rng=rng)
        slate = choose_slate(scores_C, k=k, epsilon=self.epsilon, rng=rng, protected=self.protected)
        return replace(slate, price=self._price(np.asarray(scores_C, dtype=np.float64), slate))

    def _price(self, scores_C: NDArray[np.float64], slate: Slate) -> Price:
        """What the dice give up: epsilon times the distance of the best remaining candidate from the mean one."""
        worth_C = worth(scores_C, self.scale)
        ranked: list[int] = np.argsort(-scores_C, kind="stable").tolist()
        fixed = _fixed(ranked, self.protected)
        left = [one for one in ranked if one not in set(fixed.values())]
        value_of: list[float] = worth_C.tolist()
        total = sum(value_of[one] for one in left)
        best_K, given_up_K = [], []
        for place, chosen in enumerate(slate.order_K.tolist()):
            if place in fixed:
                best_K.append(value_of[chosen])
                given_up_K.append(0.0)
                continue
            best = value_of[left[0]]
            best_K.append(best)
            given_up_K.append(min(best, self.epsilon * max(0.0, best - total / len(left))))
            left.remove(chosen)
            total -= value_of[chosen]
        return Price(np.array(best_K), np.array(given_up_K))

    def distribution(
        self, scores_C: NDArray[np.float64], placed: Sequence[int], *, features_CD: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Probability of each candidate for the next place, given those `placed` above; all 0 when none is left."""
        if (bounded := self._bounded) is not None:
            return bounded.distribution(scores_C, placed)
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
