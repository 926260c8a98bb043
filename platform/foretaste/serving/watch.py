"""How long each stage of an answer took."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

WAITED: ContextVar[float] = ContextVar("waited", default=0.0)
"""Seconds for which the request that a thread works for waited for its turn."""


@dataclass(frozen=True, slots=True)
class Lap:
    """One stage."""

    stage: str
    num_in: int
    num_out: int
    ms: float


class Watch:
    """Laps of one request, by a timer in seconds that never goes back; what it waited for its turn is part of it."""

    def __init__(self, timer: Callable[[], float]) -> None:
        self.laps: list[Lap] = []
        self._timer = timer
        self._last = timer()
        waited = WAITED.get()
        self._start = self._last - waited
        self.waited_ms = waited * 1e3
        """Milliseconds that the request had waited for its turn."""

    def lap(self, stage: str, *, num_in: int, num_out: int) -> None:
        """End a stage."""
        now = self._timer()
        self.laps.append(Lap(stage, num_in, num_out, (now - self._last) * 1e3))
        self._last = now

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since the request came."""
        return (self._timer() - self._start) * 1e3
