"""One thread computes the answers of a process, and goes from one request to another wherever one waits.

Threads that want the interpreter take it from each other; with one for each request and stage that cost as much as the
models. So requests are greenlets of one thread: each goes on until it asks a model or waits for something slow. Where
all of them wait, those who ask the same model share a pass through it.

A stage that hangs would hang them all. A watchdog sees it, and another thread takes over: the requests begin anew
there, the one that hangs without that stage. What the thread that was left comes back with is dropped.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import Context, ContextVar, copy_context
from types import TracebackType
from typing import Any, Protocol, TypeVar

from greenlet import getcurrent, greenlet

from foretaste.serving.watch import WAITED

T = TypeVar("T")

LATE: ContextVar[frozenset[str]] = ContextVar("late", default=frozenset())
"""Stages that a request has to do without, because they hung when it was there."""

GRACE_SECONDS = 0.01
"""So long after its deadline a stage counts as hanging: a pass that many share may end just after that of one."""
LEAST_SECONDS = 0.05
"""No stage and no pass counts as hanging before: who had little time left may be late by that, and where a busy machine
stops the thread for a moment nobody begins anew, which would cost it more.
"""
LOOK_SECONDS = 0.005
IDLE_SECONDS = 1.0
THREADS = 16
"""Threads that may hang at a time; while there are as many nobody takes over."""

Outcome = tuple[Any, BaseException | None]

_log = logging.getLogger(__name__)


class Shared(Protocol):
    """A model that answers several questions in one pass."""

    @property
    def largest(self) -> int:
        """How many questions it is given at most."""
        ...

    def answer(self, questions: Sequence[Any]) -> list[Outcome]:
        """An answer, or why there is none, for each."""
        ...


class LeftError(BaseException):
    """Another thread took over; no `except Exception` of a chain is to keep this one alive."""


class TooLongError(TimeoutError):
    """What a request waited for did not come by the deadline of its stage."""


class _Run:
    """A request on its way."""

    def __init__(
        self, number: int, work: Callable[[], Any], context: Context, future: Future[Any], arrived: float
    ) -> None:
        self.number = number
        self.work = work
        self.context = context
        self.future = future
        self.arrived = arrived
        self.over = False
        self.watching: Watching | None = None
        self.until: float | None = None
        self.ticket = 0
        self.greenlet: greenlet | None = None

    def again(self) -> _Run:
        """The same request, from its beginning."""
        return _Run(self.number, self.work, self.context.copy(), self.future, self.arrived)


class Watching:
    """A stage of the request that is computed, as a context; without an engine it watches nothing.

    A request that comes out of it after another thread took over ends with LeftError.
    """

    __slots__ = ("_outer", "_run", "_seconds", "begun", "late", "stage", "until")

    def __init__(self, stage: str, seconds: float, late: Callable[[], None]) -> None:
        """`late` is called, in another thread, where the stage has not ended after `seconds`."""
        self.stage = stage
        self.begun = self.until = 0.0
        self.late = late
        self._seconds = seconds
        self._run: _Run | None = None

    def __enter__(self) -> None:
        hub = _hub()
        self._run = None if hub is None else hub.current
        if hub is not None and self._run is not None:
            if self._run.over:
                raise LeftError
            self.begun = hub.timer()
            self.until = self.begun + self._seconds
            self._outer, self._run.watching = self._run.watching, self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None:
            self._run.watching = self._outer
            if self._run.over:
                raise LeftError


class Engine:
    """Computes what it is given; every method may be called from any thread."""

    def __init__(self, *, timer: Callable[[], float] = time.perf_counter) -> None:
        """Its threads begin with the first request. `timer` gives seconds and never goes back."""
        self.timer = timer
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._hub: _Hub | None = None
        self._closed = False
        self._busy = threading.Event()
        self._left: set[_Hub] = set()

    def submit(self, work: Callable[[], T], *, context: Context | None = None) -> Future[T]:
        """Compute `work` in a context, by default a copy of the caller's. It may be begun anew, see above.

        Raises RuntimeError where the engine is closed.
        """
        future: Future[T] = Future()
        context = context or copy_context()
        run = _Run(next(self._numbers), work, context, future, self.timer() - context.run(WAITED.get))
        with self._lock:
            if self._closed:
                raise RuntimeError("the engine is closed")
            if self._hub is None:
                self._hub = self._begun()
                threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
            self._hub.inbox.put((run, 0))
        self._busy.set()
        return future

    def close(self) -> None:
        """Begin nothing more; what was begun ends, also where something hangs."""
        with self._lock:
            self._closed = True
            if self._hub is not None:
                self._hub.inbox.put(None)
        self._busy.set()

    def _begun(self) -> _Hub:
        hub = _Hub(self)
        hub.thread.start()
        return hub

    def _watch(self) -> None:
        while True:
            hub = self._hub
            assert hub is not None
            if self._closed and not hub.thread.is_alive():
                return
            if hub.idle and not self._closed:
                self._busy.clear()
                if hub.idle and hub.inbox.empty():
                    self._busy.wait(IDLE_SECONDS)
                continue
            time.sleep(LOOK_SECONDS)
            if hub.hangs(self.timer()):
                self._take_over(hub)

    def _take_over(self, hub: _Hub) -> None:
        told: list[Watching] = []
        with self._lock:
            now = self.timer()
            if len(self._left) >= THREADS or not hub.hangs(now):
                return
            hub.left = True
            self._left.add(hub)
            self._hub = self._begun()
            for run in list(hub.runs.values()):
                if run.over:
                    continue
                run.over = True
                again, watching = run.again(), run.watching
                if watching is not None and run in hub.held and now > watching.until:
                    again.context.run(LATE.set, again.context.run(LATE.get) | {watching.stage})
                    told.append(watching)
                self._hub.inbox.put((again, 0))
            while (left := hub.rest()) is not None:
                self._hub.inbox.put(left)
            if self._closed:
                self._hub.inbox.put(None)
        for watching in told:
            _log.warning("%s hangs: another thread takes over", watching.stage)
            watching.late()

    def ended(self, run: _Run, outcome: Outcome) -> None:
        """Give an answer, unless another thread gives it."""
        with self._lock:
            if run.over:
                return
            run.over = True
        value, error = outcome
        if error is None:
            run.future.set_result(value)
        else:
            run.future.set_exception(error)

    def returned(self, hub: _Hub) -> None:
        """Take note that a thread came back from where it hung."""
        with self._lock:
            self._left.discard(hub)


class _Hub:
    """The thread that computes; what is below is its own, unless it hangs."""

    def __init__(self, engine: Engine) -> None:
        self.inbox: queue.SimpleQueue[tuple[_Run, int] | None] = queue.SimpleQueue()
        self.runs: dict[int, _Run] = {}
        self.current: _Run | None = None
        self.held: Sequence[_Run] = ()  # those for which it computes just now
        self.passing_since: float | None = None
        self.left = False
        self.idle = True
        self.thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self.timer = engine.timer
        self._engine = engine
        self._closing = False
        self._main: greenlet | None = None
        self._ready: deque[tuple[_Run, Outcome]] = deque()
        self._asked: dict[Shared, deque[tuple[_Run, Any]]] = {}
        self._waiting: dict[int, _Run] = {}

    def hangs(self, now: float) -> bool:
        """Whether what it computes just now is long over its deadline."""
        watched = [run.watching for run in self.held if run.watching is not None]
        if not watched:
            return False
        begun = watched[0].begun if self.passing_since is None else self.passing_since
        return now > max(begun + LEAST_SECONDS, min(one.until for one in watched) + GRACE_SECONDS)

    def rest(self) -> tuple[_Run, int] | None:
        """One of the requests that were not begun."""
        while not self.inbox.empty():
            found = self.inbox.get()
            if found is not None and found[1] == 0:
                return found
        return None

    def ask(self, model: Shared, question: Any) -> Any:
        """Have a request wait for its answer. Raises what the model says, TooLongError."""
        run = self.current
        assert run is not None
        self._asked.setdefault(model, deque()).append((run, question))
        return self._parked(run, run.watching.until if run.watching is not None else None)

    def wait(self, future: Future[T], seconds: float | None) -> T:
        """Have a request wait for what another thread does. Raises what that raises, TooLongError."""
        run = self.current
        assert run is not None
        dues = [] if seconds is None else [self.timer() + seconds]
        if run.watching is not None:
            dues.append(run.watching.until)
        ticket = run.ticket + 1
        future.add_done_callback(lambda _: self.inbox.put((run, ticket)))
        self._parked(run, min(dues, default=None))
        return future.result(0)

    def _parked(self, run: _Run, until: float | None) -> Any:
        run.ticket += 1
        run.until = until
        self._waiting[run.number] = run
        assert self._main is not None
        value, error = self._main.switch()
        if error is not None:
            raise error
        return value

    def _work(self) -> None:
        _local.hub = self
        self._main = getcurrent()
        while not self.left and not (self._closing and not self.runs):
            self._receive()
            if self._ready:
                self._resume(*self._ready.popleft())
            elif self._asked:
                self._pass()
        for run in self.runs.values():
            if run.greenlet:  # begun, and not ended
                run.greenlet.throw(LeftError)
        self._engine.returned(self)

    def _receive(self) -> None:
        """Take what came, and wait for it where there is nothing else to do."""
        timeout = 0.0 if self._ready or self._asked else None
        if self._waiting:
            timeout = self._expired(timeout)
        try:
            if timeout is None:
                self.idle = not self.runs
                found = self.inbox.get()
            elif timeout > 0.0:
                found = self.inbox.get(timeout=timeout)
            else:
                found = self.inbox.get_nowait()
            self.idle = False
            while True:
                self._take(found)
                found = self.inbox.get_nowait()
        except queue.Empty:
            return

    def _take(self, found: tuple[_Run, int] | None) -> None:
        if found is None:
            self._closing = True
            return
        run, ticket = found
        if ticket == 0:
            self.runs[run.number] = run
            run.context.run(WAITED.set, self.timer() - run.arrived)
            run.greenlet = greenlet(lambda _: self._compute(run), self._main)
            run.greenlet.gr_context = run.context
            self._ready.append((run, (None, None)))
        elif run.ticket == ticket and run.number in self._waiting:
            del self._waiting[run.number]
            self._ready.append((run, (None, None)))

    def _expired(self, timeout: float | None) -> float | None:
        """Wake those whose time is over; how long it is to the next, at most `timeout`."""
        now, nearest = self.timer(), timeout
        for run in [run for run in self._waiting.values() if run.until is not None and run.until <= now]:
            del self._waiting[run.number]
            for asked in self._asked.values():
                for one in [one for one in asked if one[0] is run]:
                    asked.remove(one)
            self._ready.append((run, (None, TooLongError("what was waited for did not come in time"))))
            nearest = 0.0
        self._asked = {model: asked for model, asked in self._asked.items() if asked}
        for run in self._waiting.values():
            if run.until is not None:
                nearest = run.until - now if nearest is None else min(nearest, run.until - now)
        return None if nearest is None else max(0.0, nearest)

    def _resume(self, run: _Run, outcome: Outcome) -> None:
        assert run.greenlet is not None
        self.current = run
        self.held = (run,)
        run.greenlet.switch(outcome)
        self.current = None
        self.held = ()

    def _compute(self, run: _Run) -> None:
        """What the greenlet of a request does."""
        outcome: Outcome
        try:
            outcome = (run.work(), None) if _begins(run.future) else (None, None)
        except LeftError:
            return
        except BaseException as error:  # whatever it is, it is the request's and not the thread's
            outcome = (None, error)
        self.runs.pop(run.number, None)
        if not run.future.cancelled():
            self._engine.ended(run, outcome)

    def _pass(self) -> None:
        """Let those who have waited the longest share a pass."""
        model = min(self._asked, key=lambda one: self._asked[one][0][0].number)
        waiting = self._asked[model]
        batch = [waiting.popleft() for _ in range(min(len(waiting), model.largest))]
        if not waiting:
            del self._asked[model]
        self.passing_since = self.timer()
        self.held = [run for run, _ in batch]
        outcomes = model.answer([question for _, question in batch])
        self.held, self.passing_since = (), None
        for (run, _), outcome in zip(batch, outcomes, strict=True):
            if self._waiting.pop(run.number, None) is not None:
                self._ready.append((run, outcome))


class _Local(threading.local):
    hub: _Hub | None = None


_local = _Local()


def _hub() -> _Hub | None:
    """The hub of this thread, while it computes a request."""
    hub = _local.hub
    return hub if hub is not None and hub.current is not None else None


def _begins(future: Future[Any]) -> bool:
    """Whether somebody still wants the answer."""
    return future.running() or future.set_running_or_notify_cancel()


def inside() -> bool:
    """Whether this is a request of an engine."""
    return _hub() is not None


def waited(future: Future[T], seconds: float | None) -> T:
    """Wait for what another thread does, while others compute; without an engine just wait. Raises TimeoutError."""
    hub = _hub()
    return future.result(seconds) if hub is None else hub.wait(future, seconds)


def asked(model: Shared, question: Any) -> Any:
    """Wait for an answer of a model, in a pass with those who ask as well; without an engine alone."""
    hub = _hub()
    if hub is not None:
        return hub.ask(model, question)
    ((value, error),) = model.answer([question])
    if error is not None:
        raise error
    return value
