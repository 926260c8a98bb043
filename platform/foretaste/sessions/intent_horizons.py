"""Intents of what is still to come: the next interaction, and the rest of the session.

Shapes: T interactions of all histories together, C classes of one intent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.histories import Histories


def next_labels(label_T: NDArray[Any], histories: Histories) -> NDArray[Any]:
    """Label of the interaction after each, -1 after the last of a history or where that has none; int32[T].

    Of a multi-label intent, float32[T, C]: its row, 0 throughout after the last.
    """
    after = np.zeros_like(label_T) if label_T.ndim > 1 else np.full_like(label_T, -1)
    after[:-1] = label_T[1:]
    after[histories.offsets_B1[1:][histories.lengths_B > 0] - 1] = 0 if label_T.ndim > 1 else -1
    return after


def rest_of_session(label_T: NDArray[Any], histories: Histories, num_classes: int) -> NDArray[np.int32]:
    """Count each class over the interactions of the session after each; int32[T, C], 0 where the session is over."""
    hot_TC = one_hot(label_T, num_classes)
    if not len(hot_TC):
        return hot_TC
    total_TC = np.cumsum(hot_TC, axis=0, dtype=np.int32)
    return total_TC[session_ends(histories)] - total_TC


def one_hot(label_T: NDArray[Any], num_classes: int) -> NDArray[np.int32]:
    """1 in the column of each label, 0 throughout for -1; a multi-label one has its columns already; int32[T, C]."""
    if label_T.ndim > 1:
        return (label_T > 0).astype(np.int32)
    return np.asarray(label_T[:, None] == np.arange(num_classes), dtype=np.int32)


def session_ends(histories: Histories) -> NDArray[np.int64]:
    """Number of the last interaction of each interaction's session; int64[T]."""
    size = len(histories.session_T)
    closes_T = np.ones(size, dtype=np.bool_)
    closes_T[:-1] = np.diff(histories.session_T) != 0
    closes_T[histories.offsets_B1[1:][histories.lengths_B > 0] - 1] = True
    ends = np.flatnonzero(closes_T)
    return ends[np.searchsorted(ends, np.arange(size))] if size else ends
