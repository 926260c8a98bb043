"""Which interactions count as choices when a baseline is fitted.

Shapes: T interactions, N titles.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.events import ACTION_CODES
from foretaste.contracts.histories import Histories


def chosen(histories: Histories, actions: Collection[str] | None) -> NDArray[np.bool_]:
    """Say of each interaction whether it is with a known title and by one of `actions` (None: any action).

    Raises KeyError on an action that does not exist.
    """
    known_T: NDArray[np.bool_] = histories.title_T > 0
    if actions is None:
        return known_T
    codes = np.array([ACTION_CODES[action] for action in sorted(actions)], dtype=np.int32)
    return known_T & np.isin(histories.action_T, codes)


def shares(title_T: NDArray[np.int32], num_titles: int) -> NDArray[np.float64]:
    """Share of each title among known titles `title_T` (codes 1..N): float64[N], uniform where there are none."""
    counts_N = np.bincount(title_T - 1, minlength=num_titles).astype(np.float64)
    total = counts_N.sum()
    return counts_N / total if total else np.full(num_titles, 1.0 / max(num_titles, 1))
