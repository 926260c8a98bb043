"""What a process has no room for is refused at once, so that what it takes is answered in time.

Requests for an answer wait in one queue in front of the few that are computed. While the queue was empty a moment ago
a burst may wait for `burst_ms`; once it has not been empty for so long it is a standing queue, which makes every answer
late and none more, and only `target_ms` of it are kept: controlled delay (Nichols and Jacobson, ACM Queue 2012) as
services use it (Maurer, Fail at Scale, ACM Queue 2015). Who would wait longer than that is told on arrival, before
their body is read; who did is told when their turn comes. Everything else (events, health, deletions) does not wait
here.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from enum import StrEnum
from typing import TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import Field
from starlette.types import ASGIApp, Receive, Scope, Send

from foretaste.contracts.config import Frozen
from foretaste.serving.engine import Engine
from foretaste.serving.problems import problem
from foretaste.serving.watch import WAITED

SHED_PATHS = frozenset({"/v1/recommend", "/v1/recommend/next", "/v1/rank", "/v1/intent"})
"""What is computed, and so waits for its turn."""

_WEIGHT = 0.1

T = TypeVar("T")


class SheddingConfig(Frozen):
    """How many requests for an answer are computed and wait, and for how long."""

    in_flight: int = Field(8, ge=1, description="requests that a process computes at a time")
    waiting: int = Field(256, ge=0, description="requests that wait for that at most; more are shed with 429")
    target_ms: float = Field(50.0, gt=0, description="milliseconds that requests may wait in a queue that stands")
    burst_ms: float = Field(
        100.0, gt=0, description="the same in a queue that was empty as short a time ago; later it stands"
    )
    retry_after_seconds: float = Field(1.0, gt=0, description="seconds after which who was shed may ask again")


class Shed(StrEnum):
    """Why a request was refused that is right in itself."""

    QUEUE_FULL = "queue_full"
    QUEUE_DELAY = "queue_delay"
    DECISION_LOG = "decision_log"  # an answer that cannot be logged is not given
    GOES_ON = "goes_on"  # the list that the request goes on after cannot be read


_DETAILS = {
    Shed.QUEUE_FULL: (429, "too many requests wait already"),
    Shed.QUEUE_DELAY: (429, "the request would wait too long"),
    Shed.DECISION_LOG: (503, "the decision log takes no decision, and no answer goes out without; nothing was stored"),
    Shed.GOES_ON: (503, "the decision to go on after could not be read in time; nothing was stored"),
}


class ShedError(Exception):
    """A request is refused, and may be made again."""

    def __init__(self, reason: Shed, *, retry_after_seconds: float = 1.0) -> None:
        self.status, self.detail = _DETAILS[reason]
        super().__init__(self.detail)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class Admission:
    """Admits requests of one event loop, in order of their arrival; not for other threads."""

    def __init__(self, config: SheddingConfig, *, timer: Callable[[], float]) -> None:
        """`timer` gives seconds and never goes back. What is admitted is computed by an engine."""
        self.config = config
        self.on_shed: Callable[[Shed], None] = lambda _: None
        self.num_in_flight = 0
        self._timer = timer
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()
        self._empty_at = timer()
        self._usual_seconds = 0.0
        self._engine = Engine(timer=timer)

    @property
    def num_waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    async def run(self, work: Callable[[], T]) -> T:
        """Compute `work` once there is room. Raises ShedError, or what `work` raises."""
        arrived = self._timer()
        await self.enter()
        begun = self._timer()
        context = copy_context()
        context.run(WAITED.set, begun - arrived)
        try:
            return await asyncio.wrap_future(self._engine.submit(work, context=context))
        finally:
            self.leave(self._timer() - begun)

    def check(self) -> None:
        """Raise ShedError where a request that came now would not be admitted."""
        if self.num_in_flight < self.config.in_flight:
            return
        if len(self._waiting) >= self.config.waiting:
            raise self._shed(Shed.QUEUE_FULL)
        expected = self._usual_seconds * (len(self._waiting) + 1) / self.config.in_flight
        if expected > self._allowed_seconds():
            raise self._shed(Shed.QUEUE_DELAY)

    async def enter(self) -> None:
        """Return when it is the request's turn; it has to `leave`. Raises ShedError."""
        self.check()
        now = self._timer()
        if self.num_in_flight < self.config.in_flight:
            self.num_in_flight += 1
            self._empty_at = now
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, now))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()  # it had its turn just when it was given up
            raise

    def leave(self, seconds: float | None = None) -> None:
        """End a request that was admitted, which took so long."""
        if seconds is not None:
            known = self._usual_seconds or seconds
            self._usual_seconds = known + _WEIGHT * (seconds - known)
        self.num_in_flight -= 1
        now = self._timer()
        while self._waiting and self.num_in_flight < self.config.in_flight:
            turn, arrived_at = self._waiting.popleft()
            if turn.done():  # given up
                continue
            if now - arrived_at > self._allowed_seconds():
                turn.set_exception(self._shed(Shed.QUEUE_DELAY))
                continue
            self.num_in_flight += 1
            turn.set_result(None)
        if not self._waiting:
            self._empty_at = now

    def close(self) -> None:
        """Begin nothing more."""
        self._engine.close()

    def _allowed_seconds(self) -> float:
        """How long a request may wait; both bounds are taken from when the queue last was empty."""
        burst = self.config.burst_ms / 1e3
        return burst if self._timer() - self._empty_at <= burst else self.config.target_ms / 1e3

    def _shed(self, reason: Shed) -> ShedError:
        self.on_shed(reason)
        return ShedError(reason, retry_after_seconds=self.config.retry_after_seconds)


class Shedding:
    """Refuses requests for an answer before their body is read, where they would not be admitted."""

    def __init__(self, app: ASGIApp, *, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on or refuse it."""
        if scope["type"] == "http" and scope["path"] in SHED_PATHS:
            try:
                self._admission.check()
            except ShedError as error:
                await shed_problem(Request(scope), error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def shed_problem(request: Request, error: Exception) -> Response:
    """The answer to a request that was shed: with Retry-After, in whole seconds."""
    assert isinstance(error, ShedError)
    headers = {"Retry-After": str(max(1, math.ceil(error.retry_after_seconds)))}
    return problem(request, error.status, error.detail, headers=headers)


def install_shedding(app: FastAPI, admission: Admission) -> None:
    """Have requests refused that there is no room for."""
    app.add_exception_handler(ShedError, shed_problem)
    app.add_middleware(Shedding, admission=admission)
