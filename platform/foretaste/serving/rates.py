"""How often somebody may ask: a bucket that fills steadily and is emptied by requests."""

from __future__ import annotations

from collections.abc import Callable


class TokenBucket:
    """At most `burst` requests at once, and `per_second` of them in the long run; not for several threads."""

    def __init__(self, per_second: float, burst: float, *, timer: Callable[[], float]) -> None:
        """`timer` gives seconds and never goes back. Raises ValueError for rates that let nothing through."""
        if per_second <= 0 or burst < 1:
            raise ValueError(f"rate: wanted per_second above 0 and burst of 1 or more, got {per_second}, {burst}")
        self.limits = (per_second, burst)
        self._timer = timer
        self._tokens = burst
        self._at = timer()

    def take(self) -> float:
        """Take a token and give 0, or give the seconds after which there will be one."""
        per_second, burst = self.limits
        now = self._timer()
        self._tokens = min(burst, self._tokens + (now - self._at) * per_second)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / per_second
