"""Divide interactions into train, validation and test: by time for all, or by the last of each actor.

Shapes: T interactions of one bucket sorted by (actor, position), S instants of a sketch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = np.array([TRAIN, VALIDATION, TEST])
FEWEST = 3
"""Actors with fewer interactions stay in train as a whole."""

SKETCH = 1_000_000


@dataclass(frozen=True, slots=True)
class Cuts:
    """Microseconds at which the next part begins: train < validation_from <= validation < test_from <= test."""

    validation_from: int
    test_from: int


@dataclass(frozen=True, slots=True)
class Sketch:
    """The times of one bucket in order; of more than `SKETCH` of them evenly many, each standing for as many others."""

    at_S: NDArray[np.int64]
    num: int

    @classmethod
    def of(cls, at_T: NDArray[np.int64], *, size: int = SKETCH) -> Sketch:
        """Keep at most `size` of the times; exact up to there, else off by at most 1/size of the rows."""
        ordered = np.sort(at_T)
        if len(ordered) > size:
            ordered = ordered[np.linspace(0, len(at_T) - 1, size).round().astype(np.int64)]
        return cls(ordered, len(at_T))


def cuts(sketches: Sequence[Sketch], *, validation_share: float, test_share: float) -> Cuts:
    """Find the instants that leave `test_share` of all interactions after the second, `validation_share` before it.

    An instant never straddles a cut: those equal to the last one before it stay before it, so that train has
    at least one row and the later parts may have fewer than their share. Raises ValueError without a row.
    """
    if not sum(s.num for s in sketches):
        raise ValueError("split: there is no interaction to divide")
    at_S = np.concatenate([s.at_S for s in sketches])
    weight_S = np.concatenate([np.full(len(s.at_S), s.num / max(len(s.at_S), 1)) for s in sketches])
    order = np.argsort(at_S, kind="stable")
    at_S, before_S = at_S[order], np.cumsum(weight_S[order])

    def last_instant(share: float) -> int:
        place = int(np.searchsorted(before_S, share * before_S[-1] * (1 + 1e-12), side="right")) - 1
        return int(at_S[max(place, 0)])

    return Cuts(last_instant(1.0 - validation_share - test_share) + 1, last_instant(1.0 - test_share) + 1)


def split_time(at_T: NDArray[np.int64], cut: Cuts) -> NDArray[np.str_]:
    """Part of each time under the global split.

    An interaction goes where it begins. One that begins before a cut may end after it: its dwell and strongest
    action are then known a little early, but no interaction of that actor stands between.
    """
    return SPLITS[(at_T >= cut.validation_from).astype(np.int64) + (at_T >= cut.test_from)]


def split_last(actor_T: NDArray[np.int64]) -> NDArray[np.str_]:
    """Leave one out: the last row of each actor is test, the one before it validation, of three or more."""
    num = len(actor_T)
    part_T = np.zeros(num, dtype=np.int64)
    if num:
        stops = np.append(np.flatnonzero(np.diff(actor_T)) + 1, num)
        stops = stops[np.diff(stops, prepend=0) >= FEWEST]
        part_T[stops - 1], part_T[stops - 2] = 2, 1
    return SPLITS[part_T]
