"""Histories as padded token tensors: a start token, then the newest interactions.

Shapes: B histories, L tokens, F = 3 numbers an interaction, T interactions of all histories together.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.contracts.histories import Histories

NUM_NUMBERS = 3
NUM_GAPS = 34
"""Classes of a time gap: 0 there is none; 1 zero seconds; 2 + floor(log2(seconds)) up to 136 years."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """B token sequences padded on the right; token 0 is the start token, token t + 1 is interaction t."""

    title_BL: Tensor  # int64, catalogue code; 0 at the start, for unknown titles and for padding
    action_BL: Tensor  # int64, 1 + events.ACTION_CODES; 0 at the start and for padding
    gap_BL: Tensor  # int64, class of the time gap
    numbers_BLF: Tensor  # float32: log dwell, played fraction (0 when unknown), whether that is known
    length_B: Tensor  # int64, tokens without padding: 1 + interactions

    def to(self, device: torch.device) -> Sequences:
        """Move all tensors to a device."""
        return Sequences(*(getattr(self, f.name).to(device) for f in fields(self)))


def gap_classes(gap_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Class of each gap in microseconds; a negative one counts as zero seconds."""
    seconds = np.maximum(gap_us, 0) / 1e6
    return np.where(seconds < 1, 1, 2 + np.log2(np.maximum(seconds, 1)).astype(np.int64)).clip(max=NUM_GAPS - 1)


def sequences(histories: Histories, asof_B: NDArray[np.int64], *, max_length: int, time_aware: bool) -> Sequences:
    """Turn the newest `max_length` interactions of each history into tokens.

    The gap of a token is the time until what follows it: the next interaction, or `asof_B` (microseconds) for the
    last one, which a request knows. Without `time_aware` it is the time since the interaction before it.
    """
    recent = histories.last(max_length)
    length_B = recent.lengths_B
    row_T = np.repeat(np.arange(len(recent)), length_B)
    token_T = np.arange(len(row_T)) - np.repeat(recent.offsets_B1[:-1], length_B) + 1
    shape = (len(recent), 1 + int(length_B.max(initial=0)))
    title_BL, action_BL, gap_BL = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    numbers_BLF = np.zeros((*shape, NUM_NUMBERS), dtype=np.float32)
    title_BL[row_T, token_T] = recent.title_T
    action_BL[row_T, token_T] = recent.action_T + 1
    gap_BL[row_T, token_T] = _gaps(recent, asof_B) if time_aware else _gaps_before(recent)
    numbers_BLF[row_T, token_T, 0] = np.log1p(recent.dwell_T) / 8.0
    numbers_BLF[row_T, token_T, 1] = np.nan_to_num(recent.fraction_T, nan=0.0)
    numbers_BLF[row_T, token_T, 2] = ~np.isnan(recent.fraction_T)
    return Sequences(*(torch.from_numpy(a) for a in (title_BL, action_BL, gap_BL, numbers_BLF, length_B + 1)))


def _gaps(recent: Histories, asof_B: NDArray[np.int64]) -> NDArray[np.int64]:
    after_T = np.empty_like(recent.at_T)
    after_T[:-1] = recent.at_T[1:]
    some_B = recent.lengths_B > 0
    after_T[recent.offsets_B1[1:][some_B] - 1] = asof_B[some_B]
    return gap_classes(after_T - recent.at_T)


def _gaps_before(recent: Histories) -> NDArray[np.int64]:
    gap_T = gap_classes(np.diff(recent.at_T, prepend=recent.at_T[:1]))
    gap_T[recent.offsets_B1[:-1][recent.lengths_B > 0]] = 0
    return gap_T
