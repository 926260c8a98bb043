"""How much the newest lists had of those before them in their sessions: what members see jump."""

from __future__ import annotations

import threading
from collections import deque

WINDOW = 1_000
"""Lists that are looked back on."""


class Steadied:
    """Counts what stayed from list to list; one of a replica, safe between threads."""

    def __init__(self, *, window: int = WINDOW) -> None:
        """`window` is the number of lists that are looked back on."""
        self._lists: deque[tuple[float, int]] = deque(maxlen=window)
        self._lock = threading.Lock()

    def add(self, *, kept: int, of: int, largest_move: int) -> None:
        """Count a list that has `kept` of the `of` titles before, the farthest moved by so many places."""
        with self._lock:
            self._lists.append((kept / of if of else 1.0, largest_move))

    def plain(self) -> dict[str, float]:
        """`lists` looked back on, mean `kept_share`, mean `largest_move` and `farthest`, the largest of these."""
        with self._lock:
            found = list(self._lists)
        num = max(1, len(found))
        return {
            "lists": float(len(found)),
            "kept_share": sum(share for share, _ in found) / num,
            "largest_move": sum(move for _, move in found) / num,
            "farthest": float(max((move for _, move in found), default=0)),
        }
