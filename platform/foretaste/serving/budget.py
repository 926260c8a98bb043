"""No stage makes an answer late: each has to have ended by its share of the request's budget, or is done without.

A stage is left out before it is begun where it usually takes longer than it may, and abandoned where it runs over: in
an engine another thread takes over (see `engine`); elsewhere, and where a store is slow, it runs in a thread of the
stage's own few. What it gives after its deadline is dropped, and never gets into another answer. What a stage usually
takes is its exponentially weighted mean and twice its deviation (Jacobson, SIGCOMM 1988). A stage that was left out is
tried again now and then, by one request.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from pydantic import Field

from foretaste.contracts.config import Frozen
from foretaste.contracts.decisions import Fallback
from foretaste.serving.breaker import Breaker, BreakerConfig, RestingError
from foretaste.serving.engine import LATE, LeftError, TooLongError, Watching, inside, waited

SESSION_LOG, FEATURES, INTENT, RANKER, SESSION_KNN = "session_log", "features", "intent", "ranker", "session_knn"
DECISION_LOG, EARLIER, GOES_ON = "decision_log", "earlier", "goes_on"
STORES = (SESSION_LOG, FEATURES)
GUARDED_STORES = (*STORES, DECISION_LOG)

_WEIGHT = 0.125
_DEVIATIONS = 2.0
_KNOWN_AFTER = 5  # measurements
SLOW_MS = 5.0
"""From so long on a store is waited for while others compute: for less, the way to another thread takes longer."""
_FAIR = 0.5
"""Share of its deadline that a store must have been given to be blamed for being late."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class BudgetConfig(Frozen):
    """By which part of `budget_ms` each stage has to have ended; the rest is for the policy and the decision log."""

    earlier: float = Field(0.20, gt=0, le=1, description="share of budget_ms by which a list that is named was found")
    session_log: float = Field(0.40, gt=0, le=1, description="the same of the session log")
    features: float = Field(0.50, gt=0, le=1, description="the same of the member's slow view")
    intent: float = Field(0.80, gt=0, le=1, description="the same of the intent model")
    ranker: float = Field(0.95, gt=0, le=1, description="the same of the ranker")
    session_knn: float = Field(
        0.98, gt=0, le=1, description="the same of the nearest sessions, where no model answered"
    )
    decision_log_ms: float = Field(
        1_000.0,
        gt=0,
        description="milliseconds that an answer waits for its decision to be stored, and one that goes on after a "
        "list for that list to be read; then it is shed",
    )
    workers: int = Field(
        16,
        ge=0,
        description="threads in which a slow store is asked; 0: stages run in the request's and are never abandoned",
    )
    retry_seconds: float = Field(
        5.0, gt=0, description="seconds until one request tries a stage that is left out because it usually runs over"
    )

    def deadlines_ms(self, budget_ms: float) -> dict[str, float]:
        """Milliseconds by which each stage has to have ended after the request began; the last, after itself began."""
        stages = (EARLIER, *STORES, INTENT, RANKER, SESSION_KNN)
        return {name: budget_ms * getattr(self, name) for name in stages} | {
            DECISION_LOG: self.decision_log_ms,
            GOES_ON: self.decision_log_ms,
        }


class LateError(TimeoutError):
    """A stage was not begun, or not waited for any longer."""


class Usual:
    """What a stage usually takes, in milliseconds; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num = 0
        self._mean = self._deviation = 0.0

    @property
    def ms(self) -> float:
        """Mean and two deviations; 0 while too little is known."""
        with self._lock:
            return self._mean + _DEVIATIONS * self._deviation if self._num >= _KNOWN_AFTER else 0.0

    def took(self, ms: float) -> None:
        """Take note of one measurement; the very first, which pays for what is made once, does not count."""
        with self._lock:
            self._num += 1
            if self._num <= 2:
                self._mean, self._deviation = ms, 0.0
                return
            error = ms - self._mean
            self._mean += _WEIGHT * error
            self._deviation += _WEIGHT * (abs(error) - self._deviation)

    def forget(self, ms: float) -> None:
        """Begin anew with one measurement: of a stage that was not measured for some time."""
        with self._lock:
            self._num = max(self._num, _KNOWN_AFTER)
            self._mean, self._deviation = ms, 0.0


class Guard:
    """Runs one stage within its deadline; every method may be called from any thread."""

    def __init__(
        self,
        stage: str,
        *,
        deadline_ms: float,
        workers: int,
        retry_seconds: float,
        timer: Callable[[], float],
        breaker: Breaker | None = None,
    ) -> None:
        self.stage = stage
        self.deadline_ms = deadline_ms
        self.usual = Usual()
        self.breaker = breaker
        self._retry_seconds = retry_seconds
        self._timer = timer
        self._lock = threading.Lock()
        self._tried_at = float("-inf")
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=stage) if workers else None

    def run(self, elapsed_ms: float, work: Callable[[], T]) -> T:
        """Do `work` for a request that began `elapsed_ms` ago.

        Raises LateError where it is left out or abandoned, RestingError where its store is left alone, and whatever
        `work` raises in time.
        """
        left_ms, again = self.deadline_ms - elapsed_ms, False
        if self.stage in LATE.get():
            raise LateError(f"{self.stage}: not done in time, abandoned")
        if left_ms <= 0:
            raise LateError(f"{self.stage}: {-left_ms:.1f} ms past its deadline before it began")
        if self.usual.ms > left_ms:
            again = self._tries_again()
            if not again:
                raise LateError(f"{self.stage}: usually takes {self.usual.ms:.1f} ms, {left_ms:.1f} ms are left")
        if self.breaker is not None:
            self.breaker.enter()
        try:
            result = self._within(left_ms, work, again=again)
        except LeftError:  # `_hung` has told
            raise
        except BaseException as error:
            if self.breaker is not None and not (isinstance(error, LateError) and self._in_a_hurry(left_ms)):
                self.breaker.failed()
            raise
        if self.breaker is not None:
            self.breaker.succeeded()
        return result

    def close(self) -> None:
        """Begin nothing more; does not wait for what was abandoned."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _within(self, left_ms: float, work: Callable[[], T], *, again: bool) -> T:
        if self._pool is None:
            return self._measured(work, again=again)
        slow = self.breaker is not None and self.usual.ms > SLOW_MS
        try:
            if inside() and not slow:
                with Watching(self.stage, left_ms / 1e3, lambda: self._hung(left_ms)):
                    return self._measured(work, again=again)
            future = self._pool.submit(copy_context().run, self._measured, work, again=again)
            try:
                return waited(future, left_ms / 1e3)
            except TimeoutError:
                if future.done() and not future.cancelled():  # it is the work's own, or came just now
                    return future.result()
                future.cancel()
                raise TooLongError(self.stage) from None
        except TooLongError as error:
            self.usual.took(left_ms)
            raise LateError(f"{self.stage}: not done after {left_ms:.1f} ms, abandoned") from error

    def _hung(self, left_ms: float) -> None:
        """Take note that another thread took over."""
        self.usual.took(left_ms)
        if self.breaker is not None and not self._in_a_hurry(left_ms):
            self.breaker.failed()

    def _in_a_hurry(self, left_ms: float) -> bool:
        """What others took is not a store's fault."""
        return left_ms < _FAIR * self.deadline_ms

    def _measured(self, work: Callable[[], T], *, again: bool) -> T:
        begun = self._timer()
        result = work()
        ms = (self._timer() - begun) * 1e3
        if again:
            self.usual.forget(ms)
        else:
            self.usual.took(ms)
        return result

    def _tries_again(self) -> bool:
        """Whether this request is the one that finds out whether the stage still takes as long."""
        with self._lock:
            now = self._timer()
            if now - self._tried_at < self._retry_seconds:
                return False
            self._tried_at = now
            return True


Guards = Mapping[str, Guard]
"""By stage."""


def guards(
    config: BudgetConfig, breaker: BreakerConfig, *, budget_ms: float, timer: Callable[[], float]
) -> dict[str, Guard]:
    """Make the guards of all stages, with a breaker around each store."""
    return {
        stage: Guard(
            stage,
            deadline_ms=deadline_ms,
            workers=config.workers,
            retry_seconds=config.retry_seconds,
            timer=timer,
            breaker=Breaker(stage, breaker, timer=timer) if stage in GUARDED_STORES else None,
        )
        for stage, deadline_ms in config.deadlines_ms(budget_ms).items()
    }


def of_models(every: Guards) -> dict[str, Guard]:
    """Those of the stages that are models: an arm has its own, so that being slow is nothing to the others."""
    return {stage: every[stage] for stage in (INTENT, RANKER, SESSION_KNN)}


def why_not(error: Exception, what: str) -> Fallback:
    """Say why something was not read; what nobody expected goes into the log with its trace."""
    if isinstance(error, RestingError):
        return Fallback.FEATURES_RESTING
    if isinstance(error, LateError):
        _log.warning("%s: %s", what, error)
        return Fallback.FEATURES_LATE
    _log.exception("%s could not be read; the answer does without", what)
    return Fallback.FEATURES_FAILED
