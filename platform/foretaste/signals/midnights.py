"""What happened before midnights, for many members or titles (entities) at once.

An entity and a day are one integer, so that one sorted array and binary search answer for all entities.

Shapes: R rows sorted by (entity, day), S pairs of an entity and a midnight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DAY_US = 86_400_000_000
DAY, WEEK, MONTH, HALF_YEAR = 1, 7, 30, 180
EVER = 1 << 19
"""A number of days that reaches back before everything."""
_SPAN = 2 * EVER  # keys of one entity; its 1st of January 1970 stands in the middle


@dataclass(frozen=True, slots=True)
class Grid:
    """The midnights that snapshots are taken at, as days since 1970."""

    step: int
    last: int  # nothing is known of what comes after

    def after(self, day_R: NDArray[np.int64]) -> NDArray[np.int64]:
        """First midnight of the grid at or after the end of each day."""
        return -(-(day_R + 1) // self.step) * self.step


@dataclass(frozen=True, slots=True)
class Days:
    """R rows by their keys; what stands before a midnight has a smaller key than the midnight's own."""

    key_R: NDArray[np.int64]

    @staticmethod
    def of(entity_R: NDArray[np.int64], day_R: NDArray[np.int64]) -> Days:
        """Take rows sorted by entity (0, 1, ...) and day (since 1970). Raises ValueError where they are not."""
        key_R = entity_R * _SPAN + EVER + day_R
        if (np.diff(key_R) < 0).any():
            raise ValueError("days: rows must be sorted by entity and time")
        return Days(key_R)

    def changes(self, grid: Grid, leaves: Mapping[int, NDArray[np.bool_]]) -> NDArray[np.int64]:
        """Keys, sorted, of midnights on which a row enters or leaves a window.

        `leaves` says by the days of each window which rows count in it.
        """
        origin_R, day_R = self.key_R - self.midnight(self.key_R), self.midnight(self.key_R)
        keys = [origin_R + grid.after(day_R)]
        for days, counts_R in leaves.items():
            left_R = grid.after(day_R + days)
            keys.append((origin_R + left_R)[counts_R & (left_R <= grid.last)])
        return np.unique(np.concatenate(keys))

    def entity(self, key_S: NDArray[np.int64]) -> NDArray[np.int64]:
        """Entities of keys."""
        return key_S // _SPAN

    def midnight(self, key_S: NDArray[np.int64]) -> NDArray[np.int64]:
        """Midnights of keys, as days since 1970."""
        return key_S % _SPAN - EVER

    def first(self, key_S: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the first row of each key's entity."""
        return np.searchsorted(self.key_R, key_S // _SPAN * _SPAN)

    def before(self, key_S: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the row that follows the entity's last before the midnight."""
        return np.searchsorted(self.key_R, key_S)

    def window(self, key_S: NDArray[np.int64], count_R: NDArray[Any], days: int) -> NDArray[np.int64]:
        """Sum of `count_R` over the entity's rows in so many days before the midnight."""
        sums_R1 = np.concatenate([[0], np.cumsum(count_R, dtype=np.int64)])
        since_S = np.maximum(key_S - days, key_S // _SPAN * _SPAN)
        result: NDArray[np.int64] = sums_R1[self.before(key_S)] - sums_R1[np.searchsorted(self.key_R, since_S)]
        return result
