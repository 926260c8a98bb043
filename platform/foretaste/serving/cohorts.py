"""Requests go through the models in cohorts: who comes meanwhile waits, and goes with all who came.

Left to themselves requests spread over the stages of an answer, and hardly two come to a model at the same time. A
cohort begins when the one before it has done with the models; what that one still has to do, and what this one has to
do before its first model, overlap. A request that is alone waits for nobody.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cohorts:
    """Lets requests in; every method may be called from any thread."""

    def __init__(self, *, largest: int, patience_ms: float) -> None:
        """Up to `largest` go together; who has waited for `patience_ms`, since somebody is held up, goes alone."""
        self._largest = largest
        self._patience = patience_ms / 1e3
        self._lock = threading.Lock()
        self._inside: set[threading.Event] = set()
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def joined(self) -> Iterator[Callable[[], None]]:
        """Be in a cohort until what is given is called, or to the end of the context."""
        mine = self._enter()
        try:
            yield lambda: self._leave(mine)
        finally:
            self._leave(mine)

    def _enter(self) -> threading.Event:
        mine = threading.Event()
        with self._lock:
            if not self._inside and not self._waiting:
                self._inside.add(mine)
                return mine
            self._waiting.append(mine)
        if not mine.wait(self._patience):
            with self._lock:
                if mine not in self._inside:
                    self._waiting.remove(mine)
                    self._inside.add(mine)
        return mine

    def _leave(self, mine: threading.Event) -> None:
        with self._lock:
            self._inside.discard(mine)
            if self._inside:
                return
            for _ in range(min(len(self._waiting), self._largest)):
                following = self._waiting.popleft()
                self._inside.add(following)
                following.set()
