"""A store that keeps failing is left alone for a while, so that answers do not wait for it one after the other.

Closed, open and half-open as in Nygard, Release It!, 2007.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from pydantic import Field

from foretaste.contracts.config import Frozen

T = TypeVar("T")


class BreakerConfig(Frozen):
    """When a store is left alone, and for how long."""

    failures: int = Field(5, ge=1, description="failures in a row after which a store is not asked for a while")
    rest_seconds: float = Field(2.0, gt=0, description="seconds until one request tries a store that was left alone")


class State(StrEnum):
    """What becomes of a request to the store."""

    CLOSED = "closed"  # asked
    OPEN = "open"  # not asked
    HALF_OPEN = "half_open"  # one asks, the others do without until that one knows


class RestingError(ConnectionError):
    """The store was not asked, since it failed too often just now."""


class Breaker:
    """Counts what one store does; every method may be called from any thread."""

    def __init__(self, name: str, config: BreakerConfig, *, timer: Callable[[], float]) -> None:
        """`timer` gives seconds and never goes back."""
        self.name = name
        self._config = config
        self._timer = timer
        self._lock = threading.Lock()
        self._failures = 0
        self._opened_at: float | None = None
        self._tried_at: float | None = None

    @property
    def state(self) -> State:
        """What it would do with the next request."""
        with self._lock:
            if self._opened_at is None:
                return State.CLOSED
            return State.HALF_OPEN if self._may_try() else State.OPEN

    def enter(self) -> None:
        """Let a request through, which has to tell how it went. Raises RestingError where the store is left alone."""
        with self._lock:
            if self._opened_at is None:
                return
            if not self._may_try():
                raise RestingError(f"{self.name} failed {self._failures} times and is not asked for a while")
            self._tried_at = self._timer()

    def succeeded(self) -> None:
        """Take note that the store answered."""
        with self._lock:
            self._failures = 0
            self._opened_at = self._tried_at = None

    def failed(self) -> None:
        """Take note that the store did not answer, or not in time."""
        with self._lock:
            self._failures += 1
            if self._failures >= self._config.failures or self._opened_at is not None:
                self._opened_at, self._tried_at = self._timer(), None

    def call(self, work: Callable[[], T], *, down: tuple[type[Exception], ...]) -> T:
        """Ask the store by `work`; it is down where that raises one of `down`.

        Raises RestingError where the store is left alone, ConnectionError where it is down, else what `work` raises.
        """
        self.enter()
        try:
            result = work()
        except down as error:
            self.failed()
            raise ConnectionError(f"{self.name}: {error}") from error
        except BaseException:
            self.succeeded()  # it answered, and what it said of this request is no failure of the store
            raise
        self.succeeded()
        return result

    @property
    def retry_after_seconds(self) -> float:
        """Seconds until it may be worth to ask again; 0 where it is closed."""
        with self._lock:
            if self._opened_at is None:
                return 0.0
            return max(0.0, self._opened_at + self._config.rest_seconds - self._timer())

    def _may_try(self) -> bool:
        """Whether the rest is over and nobody tries; a try that never told how it went is given up after as long."""
        assert self._opened_at is not None
        since = self._opened_at if self._tried_at is None else self._tried_at
        return self._timer() - since >= self._config.rest_seconds
