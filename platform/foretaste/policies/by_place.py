"""Policies that fill a list place by place: each says whom it would put next, dice and bounds are the same for all.

What is drawn from is what is logged, so a propensity is exact whatever the policy. Nothing depends on how a list came
about but on who stands above, so it holds behind protected places, filters and whatever else comes before the policy.

Shapes: C candidates of the pool, K places of the slate, D features of a candidate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from foretaste.policies.exploration import UNBOUNDED, Exploration, Next, bounded_next
from foretaste.policies.slate import Price, Slate, checked_scores
from foretaste.policies.worth import Scale

Base = Callable[[NDArray[np.bool_]], NDArray[np.float64]]
"""Of the candidates that are left (bool[C], one at least) the policy's own distribution, which sums to 1 over them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a policy makes of one pool."""

    worth_C: NDArray[np.float64]  # reward that it expects, 0 or more
    base: Base


class Places:
    """One pool under one policy; distributions that were asked for are kept, so that many lists can be drawn of it."""

    def __init__(
        self,
        scores_C: NDArray[np.float64],
        plan: Plan,
        *,
        exploration: Exploration,
        protected: Sequence[int],
        cold: Sequence[int],
    ) -> None:
        """`protected` are places, `cold` candidates."""
        size = len(scores_C)
        self._plan, self._exploration = plan, exploration
        ranked = np.argsort(-scores_C, kind="stable")
        self._fixed = {place: int(ranked[place]) for place in sorted(protected) if place < size}
        self._free_C = np.ones(size, dtype=np.bool_)
        self._free_C[list(self._fixed.values())] = False
        self._first = np.lexsort((np.argsort(ranked, kind="stable"), -plan.worth_C))
        self._cold_C = np.zeros(size, dtype=np.bool_)
        self._cold_C[[one for one in cold if one < size]] = True
        self._known: dict[tuple[int, ...], Next] = {}

    def next(self, placed: tuple[int, ...]) -> Next:
        """The next place, given those placed above."""
        found = self._known.get(placed)
        if found is None:
            found = self._known[placed] = self._next(placed)
        return found

    def _next(self, placed: tuple[int, ...]) -> Next:
        size = len(self._free_C)
        if (fixed := self._fixed.get(len(placed))) is not None:
            probability_C = np.zeros(size)
            probability_C[fixed] = 1.0
            return Next(probability_C, fixed, float(self._plan.worth_C[fixed]), 0.0)
        left_C = self._free_C.copy()
        left_C[list(placed)] = False
        first = self._first[left_C[self._first]]
        if not len(first):
            return Next(np.zeros(size), -1, 0.0, 0.0)
        return bounded_next(
            self._plan.base(left_C),
            self._plan.worth_C,
            first=first,
            cold_C=self._cold_C,
            exploration=self._exploration,
        )

    def fill(self, k: int, rng: np.random.Generator) -> Slate:
        """Draw a list; one random number for every place, whatever it decides."""
        num = min(k, len(self._free_C))
        dice_K = rng.random(num)
        order: tuple[int, ...] = ()
        found = []
        for place in range(num):
            now = self.next(order)
            order += (drawn(now.probability_C, float(dice_K[place])),)
            found.append(now)
        return Slate(
            np.array(order, dtype=np.int64),
            np.array([now.probability_C[one] for one, now in zip(order, found, strict=True)], dtype=np.float64),
            np.array([one != now.best for one, now in zip(order, found, strict=True)], dtype=np.bool_),
            Price(np.array([now.worth for now in found]), np.array([now.given_up for now in found])),
        )


def drawn(probability_C: NDArray[np.float64], dice: float) -> int:
    """The candidate that a number of [0, 1) falls on; never one of probability 0."""
    until_C = np.cumsum(probability_C)
    found = int(np.searchsorted(until_C, dice * until_C[-1], side="right"))
    return found if found < len(until_C) else int(np.flatnonzero(probability_C)[-1])


@dataclass(frozen=True, kw_only=True)
class ByPlace(ABC):
    """A policy of `Places`; a subclass says what it makes of a pool."""

    name: ClassVar[str]
    version: ClassVar[str]

    exploration: Exploration = UNBOUNDED
    protected: tuple[int, ...] = ()  # places that the dice never fill
    cold: tuple[int, ...] = ()  # candidates of which little is known, by their number in the pool
    scale: Scale = Scale.LOG  # of the scores

    @property
    def params(self) -> dict[str, Any]:
        """All that `choose` reads beside scores, features, k and dice."""
        told: dict[str, Any] = {"scale": self.scale.value} | self.exploration.told
        listed = {"protected": list(self.protected), "cold": list(self.cold)}
        return told | {name: places for name, places in listed.items() if places}

    @abstractmethod
    def plan(self, scores_C: NDArray[np.float64], features_CD: NDArray[np.float64] | None) -> Plan:
        """Make of a pool what its places are filled by. Raises ValueError for features that will not do."""
        ...

    def places(self, scores: NDArray[np.float64], *, features_CD: NDArray[np.float64] | None = None) -> Places:
        """One pool under this policy. Raises ValueError as `choose`."""
        scores_C = checked_scores(scores, k=0)
        plan = self.plan(scores_C, features_CD)
        return Places(scores_C, plan, exploration=self.exploration, protected=self.protected, cold=self.cold)

    def choose(
        self,
        scores_C: NDArray[np.float64],
        *,
        k: int,
        rng: np.random.Generator,
        features_CD: NDArray[np.float64] | None = None,
    ) -> Slate:
        """Fill min(k, C) places, each candidate at most once; see `SlatePolicy`."""
        checked_scores(scores_C, k=k)
        return self.places(scores_C, features_CD=features_CD).fill(k, rng)

    def distribution(
        self, scores_C: NDArray[np.float64], placed: Sequence[int], *, features_CD: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Probability of each candidate for the next place, given those `placed` above; all 0 when none is left."""
        return self.places(scores_C, features_CD=features_CD).next(tuple(placed)).probability_C


def only(one: int, size: int) -> NDArray[np.float64]:
    """The distribution that is certain of one candidate."""
    probability_C = np.zeros(size)
    probability_C[one] = 1.0
    return probability_C
