"""Load on a service over HTTP/1.1: closed loop (clients wait for their answer) or open loop (arrivals do not wait).

Latencies of the open loop are counted from the instant at which a request was due, so that a service that stalls is
charged for all who waited (no coordinated omission). Pure asyncio: the generator shares the machine with what it loads.

Shapes: R requests that were answered or failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Protocol, Self

import httptools
import numpy as np
from numpy.typing import NDArray

FAILED = 0
"""Status of a request without an answer: refused, cut off, or not answered in time."""
COMES_AGAIN_SECONDS = 1.0
_REUSED_SECONDS = 2.0
"""Connections that are idle for longer may be closed by the other side just when they are used again."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, whole."""

    kind: str
    head: bytes
    body: bytes

    @property
    def wire(self) -> bytes:
        """What goes over the connection."""
        return self.head + self.body


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; FAILED where nothing did."""

    status: int
    retry_after: bool  # whether it said when to come again
    body: bytes
    sent: bool = True  # whether the request went out; where nothing listens it does not
    before: tuple[str, ...] = ()  # how tries before this one ended


NOTHING = Answer(FAILED, False, b"")
Look = Callable[[Call, Answer, float, float], None]
"""What is told of every request as it ends: what was asked, what came, when it was due, when it ended (seconds)."""


class Way(Protocol):
    """Where requests go; what it has open is closed with the block that it is entered in."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def ask(self, one: Call) -> Answer:
        """Send a request; NOTHING where nothing comes of it."""
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of R requests, in the order in which they ended."""

    kinds: tuple[str, ...]
    kind_R: NDArray[np.int64]  # index into `kinds`
    due_R: NDArray[np.float64]  # seconds since the load began
    took_R: NDArray[np.float64]  # seconds from when it was due to its last byte
    status_R: NDArray[np.int64]  # FAILED without an answer
    hinted_R: NDArray[np.bool_]  # whether the answer had Retry-After
    seconds: float  # that were measured
    late_ms: float = 0.0  # 99th percentile of how late the generator itself began requests of an open loop

    def of(self, kind: str | None = None, *, after: float = 0.0) -> Sent:
        """Those of one kind, due `after` so many seconds."""
        kept_R = self.due_R >= after
        if kind is not None:
            kept_R &= self.kind_R == self.kinds.index(kind)
        return Sent(
            self.kinds, self.kind_R[kept_R], self.due_R[kept_R], self.took_R[kept_R], self.status_R[kept_R],
            self.hinted_R[kept_R], self.seconds - after, self.late_ms,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.took_R)

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which were answered with a 2xx."""
        return (self.status_R >= 200) & (self.status_R < 300)

    def figures(self) -> dict[str, float | dict[str, int]]:
        """Answers a second, latencies of the good ones in milliseconds, and how many of each status."""
        good_R = self.good
        took_R = self.took_R[good_R] * 1e3
        names = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p99.9_ms": 99.9}
        found: dict[str, float | dict[str, int]] = {"per_second": float(good_R.sum()) / max(self.seconds, 1e-9)}
        found |= {name: float(np.percentile(took_R, at)) if len(took_R) else float("nan") for name, at in names.items()}
        status, count = np.unique(self.status_R, return_counts=True)
        return found | {"statuses": {str(s): int(c) for s, c in zip(status, count, strict=True)}}


def call(kind: str, method: str, path: str, body: bytes, *, host: str, headers: Sequence[tuple[str, str]] = ()) -> Call:
    """Render a request once, to be sent as often as wanted."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers] + [f"Content-Length: {len(body)}", "", ""]
    return Call(kind, "\r\n".join(lines).encode(), body)


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._hinted = False
        self._body: list[bytes] = []
        self.open = False
        self.free_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.open = transport, True

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        self._end(NOTHING)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._hinted = self._hinted or name.lower() == b"retry-after"

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        found = Answer(self._parser.get_status_code(), self._hinted, b"".join(self._body))
        if not self._parser.should_keep_alive():
            self.close()
        self._parser, self._hinted, self._body = httptools.HttpResponseParser(self), False, []
        self._end(found)

    def _end(self, answer: Answer) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.close()

    async def ask(self, wire: bytes) -> Answer:
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(wire)
        return await self._waiting


class _Meter:
    """Writes down what became of requests."""

    def __init__(self, calls: Sequence[Call], look: Look | None) -> None:
        self.kinds = tuple(sorted({one.kind for one in calls}))
        self.began = time.perf_counter()
        self._look = look
        self._rows: list[tuple[int, float, float, int, bool]] = []
        self._late: list[float] = []

    def began_at(self, due: float) -> None:
        """Take note of how late a request is begun, which is the generator's own fault."""
        self._late.append(time.perf_counter() - self.began - due)

    def note(self, one: Call, due: float, answer: Answer) -> None:
        now = time.perf_counter() - self.began
        self._rows.append((self.kinds.index(one.kind), due, now - due, answer.status, answer.retry_after))
        if self._look is not None:
            self._look(one, answer, due, now)

    def sent(self, seconds: float) -> Sent:
        kind, due, took, status, hinted = (
            (list(column) for column in zip(*self._rows, strict=True)) if self._rows else ([],) * 5
        )
        return Sent(
            self.kinds, np.array(kind, dtype=np.int64), np.array(due, dtype=np.float64),
            np.array(took, dtype=np.float64), np.array(status, dtype=np.int64), np.array(hinted, dtype=np.bool_),
            seconds, float(np.percentile(self._late, 99.0)) * 1e3 if self._late else 0.0,
        )  # fmt: skip


class Pool:
    """Connections to one address that are free."""

    def __init__(self, host: str, port: int, *, timeout: float = 30.0) -> None:
        """`timeout` is in seconds, of one request."""
        self._host, self._port, self._timeout = host, port, timeout
        self._free: deque[_Connection] = deque()
        self._all: list[_Connection] = []

    async def ask(self, one: Call) -> Answer:
        """Send a request over a free connection, or a new one; NOTHING where nothing comes of it in time."""
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(self._timeout):
                connection = await self._take()
                answer = await connection.ask(one.wire)
        except (OSError, TimeoutError):
            if connection is not None:
                connection.close()  # its answer would be taken for that of the next request
            return replace(NOTHING, sent=connection is not None)
        if connection.open:
            connection.free_at = time.perf_counter()
            self._free.append(connection)
        return answer

    async def _take(self) -> _Connection:
        while self._free:
            connection = self._free.pop()
            if connection.open and time.perf_counter() - connection.free_at < _REUSED_SECONDS:
                return connection
            connection.close()
        _, made = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        self._all = [one for one in self._all if one.open] + [made]
        return made

    def close(self) -> None:
        """Close all connections."""
        for connection in self._all:
            connection.close()


async def closed_loop(
    calls: Sequence[Call],
    *,
    host: str,
    port: int,
    clients: int,
    seconds: float,
    timeout: float = 30.0,
    look: Look | None = None,
) -> Sent:
    """Let `clients` ask one request after the other for so many seconds; they take turns through `calls`.

    Who is told to come again later does so after `COMES_AGAIN_SECONDS`.
    """
    pool, meter, turn = Pool(host, port, timeout=timeout), _Meter(calls, look), itertools.cycle(calls)

    async def client() -> None:
        while (due := time.perf_counter() - meter.began) < seconds:
            one = next(turn)
            answer = await pool.ask(one)
            meter.note(one, due, answer)
            if answer.retry_after:
                await asyncio.sleep(COMES_AGAIN_SECONDS)

    with contextlib.closing(pool):
        await asyncio.gather(*(client() for _ in range(clients)))
    return meter.sent(seconds)


async def open_loop(
    calls: Sequence[Call],
    *,
    host: str,
    port: int,
    per_second: float,
    seconds: float,
    seed: int,
    timeout: float = 30.0,
    look: Look | None = None,
    ask: Callable[[Call], Awaitable[Answer]] | None = None,
    going_on: Callable[[], bool] = lambda: False,
) -> Sent:
    """Send requests at random instants, `per_second` on average (Poisson), whether others were answered or not.

    With `ask` they go that way, and not to the address; after `seconds` the load ends as soon as nothing is going on.
    """
    pool, meter, turn = Pool(host, port, timeout=timeout), _Meter(calls, look), itertools.cycle(calls)
    asked, lasted = ask or pool.ask, seconds
    tasks: set[asyncio.Task[None]] = set()

    async def one_call(due: float) -> None:
        meter.began_at(due)
        one = next(turn)
        meter.note(one, due, await asked(one))

    with contextlib.closing(pool):
        for due in _arrivals(per_second, seed):
            if due >= seconds and not going_on():
                break
            lasted = max(lasted, due)
            await asyncio.sleep(max(0.0, due - (time.perf_counter() - meter.began)))  # behind: let others run
            task = asyncio.create_task(one_call(due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.wait(tasks)
    return meter.sent(lasted)


def _arrivals(per_second: float, seed: int) -> Iterator[float]:
    rng, due = np.random.default_rng(seed), 0.0
    while True:
        due += float(rng.exponential(1.0 / per_second))
        yield due
