"""Where time is divided into train, validation and test.

Shapes: T interactions of one bucket, S instants of a sketch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.splits import Cuts

SKETCH = 1_000_000


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
