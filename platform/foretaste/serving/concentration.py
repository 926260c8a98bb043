"""How concentrated the newest answers are: a guard against everyone being shown the same few titles.

Shapes: N titles, column j is catalogue code j + 1.
"""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.concentration import gini

WINDOW = 1_000
"""Answers that are looked back on."""


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
