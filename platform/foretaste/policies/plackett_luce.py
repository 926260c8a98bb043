"""Softmax slates (Plackett-Luce): at each place a remaining candidate by its share of exp(score / temperature).

Shapes: C candidates of the pool.
Plackett, Applied Statistics 1975; Luce, Individual Choice Behavior, 1959.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from foretaste.policies.by_place import ByPlace, Plan
from foretaste.policies.worth import bounded, worth


@dataclass(frozen=True, kw_only=True)
class PlackettLuce(ByPlace):
    """Softmax at each place; scores of any sign, only their differences count.

    Of logarithms of values it chooses by value ** (1 / temperature): temperature 1 is in proportion to the values, near
    0 the best one, large ones are even dice. Features are not read.
    """

    name: ClassVar[str] = "plackett_luce"
    version: ClassVar[str] = "1"

    temperature: float = 1.0  # in units of the scores, above 0

    def __post_init__(self) -> None:
        """Refuse a temperature that is none."""
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(f"temperature: wanted a finite number above 0, got {self.temperature}")

    @property
    def params(self) -> dict[str, Any]:
        """The temperature, and those of every policy."""
        return {"temperature": self.temperature} | super().params

    def plan(self, scores_C: NDArray[np.float64], features_CD: NDArray[np.float64] | None) -> Plan:
        """Shares of what is left, so that no difference to who stands above is too large to be a number."""
        known_C = bounded(scores_C)

        def base(left_C: NDArray[np.bool_]) -> NDArray[np.float64]:
            left = known_C[left_C]
            with np.errstate(over="ignore", under="ignore"):
                weight = np.exp((left - left.max()) / self.temperature)
            share_C = np.zeros(len(known_C))
            share_C[left_C] = weight / weight.sum()
            return share_C

        return Plan(worth(scores_C, self.scale), base)
