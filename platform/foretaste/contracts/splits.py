"""Which part of an experiment an interaction is in: train, validation or test, by time or by the last of each actor.

Shapes: T interactions of whole actors sorted by (actor, position).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = np.array([TRAIN, VALIDATION, TEST])
FEWEST = 3
"""Actors with fewer interactions stay in train as a whole."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """Microseconds at which the next part begins: train < validation_from <= validation < test_from <= test."""

    validation_from: int
    test_from: int


def split_time(at_T: NDArray[np.int64], cut: Cuts) -> NDArray[np.int64]:
    """Code in `SPLITS` of the part of each time (microseconds) under the global split; int64[T].

    An interaction goes where it begins. One that begins before a cut may end after it: its dwell and strongest
    action are then known a little early, but no interaction of that actor stands between.
    """
    return (at_T >= cut.validation_from).astype(np.int64) + (at_T >= cut.test_from)


def split_last(actor_T: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave one out: the last row of each actor is test, the one before it validation, of three or more; int64[T].

    `actor_T` differs between neighbouring actors.
    """
    num = len(actor_T)
    part_T = np.zeros(num, dtype=np.int64)
    if num:
        stops = np.append(np.flatnonzero(np.diff(actor_T)) + 1, num)
        stops = stops[np.diff(stops, prepend=0) >= FEWEST]
        part_T[stops - 1], part_T[stops - 2] = 2, 1
    return part_T
