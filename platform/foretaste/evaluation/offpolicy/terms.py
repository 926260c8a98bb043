"""What an estimator makes of rounds, and sums of it that add up over blocks of a log of any length.

Every estimate is mean(base) + sum(gain) / sum(mass): a mass of 1 a round is a mean, one of weights is self-normalised.

Shapes: R rounds (or slates), 4 columns (one, base, gain, mass).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from foretaste.evaluation.offpolicy.rounds import Floats

Block = TypeVar("Block", contravariant=True)


@dataclass(frozen=True, slots=True)
class Terms:
    """What an estimator makes of each round; what is None is 0 (base, gain) or 1 (mass)."""

    num_rounds: int
    base_R: Floats | None = None
    gain_R: Floats | None = None
    mass_R: Floats | None = None

    @property
    def columns_4R(self) -> Floats:
        """One, base, gain and mass of every round."""
        columns_4R = np.empty((4, self.num_rounds))
        columns_4R[0] = 1.0
        columns_4R[1] = 0.0 if self.base_R is None else self.base_R
        columns_4R[2] = 0.0 if self.gain_R is None else self.gain_R
        columns_4R[3] = 1.0 if self.mass_R is None else self.mass_R
        return columns_4R

    @property
    def added_R(self) -> Floats:
        """Base and gain of every round."""
        if self.base_R is None or self.gain_R is None:
            one = self.base_R if self.gain_R is None else self.gain_R
            return np.zeros(self.num_rounds) if one is None else one
        added_R: Floats = self.base_R + self.gain_R
        return added_R

    @property
    def per_round_R(self) -> Floats:
        """What each round adds: its mean is the estimate. Raises ValueError where no round has mass."""
        _, base_R, gain_R, mass_R = self.columns_4R
        per_round_R: Floats = base_R + gain_R / _some(float(mass_R.mean()) if self.num_rounds else 0.0, self.num_rounds)
        return per_round_R


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums of the terms of rounds: all that a value, its variance and its bounds need. They add up.

    Where every mass is 1, what is gained stands in the base.
    """

    moments_44: Floats  # of (one, base, gain, mass): sums of products
    low: float = np.inf  # smallest base + gain of a round
    high: float = -np.inf

    @classmethod
    def of(cls, terms: Terms) -> Sums:
        """Sum the terms of a block."""
        if not terms.num_rounds:
            return cls.zero()
        added_R = terms.added_R
        low, high = float(added_R.min()), float(added_R.max())
        if terms.mass_R is None:
            return cls(_moments_of_mean(added_R), low, high)
        columns_4R = terms.columns_4R
        moments_44: Floats = columns_4R @ columns_4R.T
        return cls(moments_44, low, high)

    @classmethod
    def zero(cls) -> Sums:
        """The sums of no round."""
        return cls(np.zeros((4, 4)))

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.moments_44 + other.moments_44, min(self.low, other.low), max(self.high, other.high))

    @property
    def num_rounds(self) -> int:
        """Rounds summed."""
        return round(float(self.moments_44[0, 0]))

    @property
    def value(self) -> float:
        """The estimate; raises ValueError where there is no round, or none with mass."""
        mass = _some(float(self.moments_44[0, 3]), self.num_rounds)
        return float(self.moments_44[0, 1] / self.num_rounds + self.moments_44[0, 2] / mass)

    @property
    def standard_error(self) -> float:
        """Of the value, rounds being independent; of a ratio by the delta method; nan for a single round.

        Exact for means. Owen, Monte Carlo theory, 2013, chapter 9.2.
        """
        num_rounds = self.num_rounds
        if num_rounds < 2:
            return float("nan")
        return float(np.sqrt(max(self._squares(), 0.0) / (num_rounds - 1) / num_rounds))

    @property
    def effective_rounds(self) -> float:
        """Rounds of equal mass that would be as much: sum(mass)^2 / sum(mass^2). Kish 1965."""
        return float(self.moments_44[0, 3] ** 2 / _some(float(self.moments_44[3, 3]), self.num_rounds))

    def _squares(self) -> float:
        """Sum over rounds of the squared influence on the value."""
        _, base, gain, mass = self.moments_44[0] / self.num_rounds
        mass = _some(mass, self.num_rounds)
        influence_4 = np.array([-base, 1.0, 1.0 / mass, -gain / mass**2])
        return float(influence_4 @ self.moments_44 @ influence_4)


class Estimates(Protocol[Block]):
    """What every estimator is: a name, and terms of a block of rounds or slates."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def __call__(self, block: Block, /) -> Terms:
        """Terms of each round; raises ValueError where the block lacks what the estimator needs."""


def _moments_of_mean(added_R: Floats) -> Floats:
    """The sums where every mass is 1: base and gain are as one, and most products are the same."""
    num_rounds, total, squares = float(len(added_R)), float(added_R.sum()), float(added_R @ added_R)
    moments_44 = np.zeros((4, 4))
    moments_44[0::3, 0::3] = num_rounds
    moments_44[0::3, 1] = moments_44[1, 0::3] = total
    moments_44[1, 1] = squares
    return moments_44


def _some(mass: float, num_rounds: int) -> float:
    if not mass > 0:
        raise ValueError(f"no estimate: of {num_rounds} rounds none is one that the target policy could have made")
    return mass
