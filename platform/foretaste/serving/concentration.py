"""How concentrated the newest answers are: a guard against everyone being shown the same few titles.

Shapes: N titles, column j is catalogue code j + 1.
"""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
from numpy.typing import NDArray

WINDOW = 1_000
"""Answers that are looked back on."""


def gini(counts_N: NDArray[np.int64]) -> float:
    """Gini coefficient of how often titles were shown: 0 where all were alike, near 1 where one has everything.

    0 where nothing was shown.
    """
    total, size = int(counts_N.sum()), len(counts_N)
    if not total:
        return 0.0
    weight_N = 2 * np.arange(1, size + 1, dtype=np.int64) - size - 1
    return float(weight_N @ np.sort(counts_N)) / (size * total)


class Concentration:
    """Counts the titles of the newest answers; one of a replica, safe between threads."""

    def __init__(self, num_titles: int, *, window: int = WINDOW) -> None:
        """`window` is the number of answers that are looked back on."""
        self._counts_N = np.zeros(num_titles, dtype=np.int64)
        self._answers: deque[NDArray[np.int32]] = deque()
        self._window = window
        self._lock = threading.Lock()

    def add(self, codes_K: NDArray[np.int32]) -> None:
        """Count the titles of an answer (catalogue codes, each once)."""
        with self._lock:
            self._answers.append(codes_K)
            self._counts_N[codes_K - 1] += 1
            if len(self._answers) > self._window:
                self._counts_N[self._answers.popleft() - 1] -= 1

    def plain(self) -> dict[str, float]:
        """`answers` looked back on, `coverage` (share of titles on any of them), `gini` over all titles."""
        with self._lock:
            counts_N, num = self._counts_N.copy(), len(self._answers)
        coverage = float((counts_N > 0).mean()) if len(counts_N) else 0.0
        return {"answers": float(num), "coverage": coverage, "gini": gini(counts_N)}
