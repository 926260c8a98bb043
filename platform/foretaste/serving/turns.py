"""Requests take turns at the interpreter, of which there is one: so whoever answers others at once gets it at once.

A thread that wants the interpreter waits the longer the more others want it. Where as many wanted it as there are
requests, the event loop, which tells who comes that there is no room, heard of them after many seconds. A request's
thread has its turn while it computes, and gives it up while it waits for a store or a model.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Turns:
    """As many threads as may compute at a time."""

    def __init__(self, number: int) -> None:
        self._places = threading.Semaphore(number)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Compute, once it is this thread's turn; `computing` and `waiting` below know of it, in stages, too."""
        token = _turns.set(self)
        try:
            with self._held():
                yield
        finally:
            _turns.reset(token)

    @contextmanager
    def _held(self) -> Iterator[None]:
        self._places.acquire()
        _thread.holds = True
        try:
            yield
        finally:
            _thread.holds = False
            self._places.release()

    @contextmanager
    def _given_up(self) -> Iterator[None]:
        _thread.holds = False
        self._places.release()
        try:
            yield
        finally:
            self._places.acquire()
            _thread.holds = True


_turns: ContextVar[Turns | None] = ContextVar("turns", default=None)
_thread = threading.local()


@contextmanager
def computing() -> Iterator[None]:
    """Take a turn in the thread of a stage, which works for a request that gave its own up."""
    turns = _turns.get()
    if turns is None or getattr(_thread, "holds", False):
        yield
        return
    with turns._held():
        yield


@contextmanager
def waiting() -> Iterator[None]:
    """Give the thread's turn up for as long as it waits for another."""
    turns = _turns.get()
    if turns is None or not getattr(_thread, "holds", False):
        yield
        return
    with turns._given_up():
        yield
