"""Interactions of many actors, packed back to back: the form in which models and signals read them.

Shapes: B histories, T interactions of all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ARRAYS = ("title_T", "action_T", "at_T", "session_T", "dwell_T", "fraction_T", "entry_T")
"""The arrays of `Histories` that have an element an interaction, in the order of its fields."""


@dataclass(frozen=True, slots=True)
class Histories:
    """B histories in order of time; history b is `offsets_B1[b]:offsets_B1[b + 1]` of every other array."""

    offsets_B1: NDArray[np.int64]
    title_T: NDArray[np.int32]  # catalogue code, 0 for a title that the catalogue does not have
    action_T: NDArray[np.int32]  # events.ACTION_CODES
    at_T: NDArray[np.int64]  # microseconds since 1970, UTC
    session_T: NDArray[np.int32]  # 0-based session index within the history
    dwell_T: NDArray[np.float32]  # seconds, 0 when unknown
    fraction_T: NDArray[np.float32]  # 0..1, NaN when unknown
    entry_T: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))  # events.ENTRIES, or browse

    def __post_init__(self) -> None:
        """Check that the arrays have one length and the offsets cover them."""
        if len(self.entry_T) == 0:
            object.__setattr__(self, "entry_T", np.zeros(len(self.title_T), dtype=np.int32))
        sizes = {len(getattr(self, name)) for name in ARRAYS}
        last = int(self.offsets_B1[-1]) if len(self.offsets_B1) else -1
        if len(sizes) != 1 or last not in sizes or int(self.offsets_B1[0]) != 0:
            raise ValueError(f"histories: arrays have lengths {sorted(sizes)}, offsets end at {last}")

    def __len__(self) -> int:
        return len(self.offsets_B1) - 1

    @property
    def lengths_B(self) -> NDArray[np.int64]:
        """Number of interactions of each history."""
        return np.diff(self.offsets_B1)

    def take(self, start_B: NDArray[np.int64], stop_B: NDArray[np.int64]) -> Histories:
        """Pack the half-open spans [start, stop) of T into new histories; spans may overlap and repeat."""
        lengths_B = stop_B - start_B
        offsets_B1 = np.concatenate([[0], np.cumsum(lengths_B)]).astype(np.int64)
        index_T = np.arange(offsets_B1[-1]) + np.repeat(start_B - offsets_B1[:-1], lengths_B)
        return Histories(
            offsets_B1,
            *(getattr(self, name)[index_T] for name in ARRAYS),
        )

    def rows(self, index_B: NDArray[np.int64]) -> Histories:
        """Pick whole histories by their number."""
        return self.take(self.offsets_B1[:-1][index_B], self.offsets_B1[1:][index_B])

    def last(self, length: int) -> Histories:
        """Keep the newest `length` interactions of each history."""
        stop_B = self.offsets_B1[1:]
        return self.take(np.maximum(self.offsets_B1[:-1], stop_B - length), stop_B)


def concatenate(parts: Sequence[Histories]) -> Histories:
    """Put histories after each other. Raises ValueError when there are none."""
    if not parts:
        raise ValueError("concatenate: no histories given")
    lengths_B = np.concatenate([part.lengths_B for part in parts])
    return Histories(
        np.concatenate([[0], np.cumsum(lengths_B)]).astype(np.int64),
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS),
    )
