"""A client for applications: lists are fetched when they are about to be shown, events are told beside, none is lost.

    with Client(url, key=key, spool=Path("spool.db")) as client:
        client.record({"member_id": "m1", "action": "play", "title_id": "t1"})
        listing = client.recommend(member_id="m1", session_id="s1", k=10)
        client.shown(listing, listing.title_ids[:6])

What is recorded is on the local disk when `record` returns, goes out in batches with an id of its own, and is sent
again after any failure until the service has it. A list is never kept: it is of the moment in which it was asked for.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from foretaste.client.calls import CallError, Calls
from foretaste.client.spool import Spool, Waiting

_BAD = frozenset({400, 413, 422})
EVENT, ACK = "event", "ack"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """How patient a client is."""

    batch_events: int = 100  # at most 1,000
    interval_seconds: float = 1.0  # an event waits so long for others to go with
    timeout_seconds: float = 2.0  # of one call
    flush_seconds: float = 0.5  # a list waits at most so long until what was recorded is told
    tries: int = 2  # of a list
    first_wait_seconds: float = 0.2  # at most, before the second try; then twice that, and so on
    longest_wait_seconds: float = 30.0
    most_waiting: int = 10_000  # events and acks in the spool; beyond that the oldest go


@dataclass(frozen=True, slots=True)
class Listing:
    """A list to be shown now."""

    decision_id: str | None
    title_ids: tuple[str, ...]
    answer: Mapping[str, Any]  # all that the service said


class Client:
    """One service; threads may share it. With `background` false nothing is sent but by `flush` and `send`."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        spool: Path | None = None,
        config: ClientConfig | None = None,
        background: bool = True,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        timer: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        dice: Callable[[], float] = random.random,
    ) -> None:
        """Without a `spool` file what waits is in memory, and ends with the program."""
        self.config = config or ClientConfig()
        self.num_refused = 0  # events and acks that the service will never take
        self._calls = Calls(url, key=key, timeout_seconds=self.config.timeout_seconds, transport=transport)
        self._spool = Spool(spool, most=self.config.most_waiting)
        self._clock, self._timer, self._sleep, self._dice = clock, timer, sleep, dice
        self._sending = threading.Lock()
        self._failures = 0
        self._batch = self.config.batch_events
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        if background:
            self._thread = threading.Thread(target=self._work, name="foretaste-client", daemon=True)
            self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def num_waiting(self) -> int:
        """Events and acks that the service does not have yet."""
        return len(self._spool)

    @property
    def num_dropped(self) -> int:
        """Events and acks that went untold, because too many waited."""
        return self._spool.num_dropped

    def record(self, event: Mapping[str, Any]) -> str:
        """Note an event, to be told soon; gives its id. Where it says no `event_id` and no `at` they are made now."""
        body = {"event_id": uuid.uuid4().hex, "at": self._now()} | dict(event)
        self._spool.add(EVENT, body)
        return str(body["event_id"])

    def recommend(self, **request: Any) -> Listing:
        """Ask for a list that is about to be shown, once what was recorded is told, if that can be done in time.

        Raises CallError, a ConnectionError, where there is none to be had: show something of your own, and no old list.
        """
        self.flush(self.config.flush_seconds)
        for left in reversed(range(self.config.tries)):
            try:
                answer = self._calls.recommend(**request)
            except CallError as error:
                if left == 0 or not error.passes:
                    raise
                self._sleep(min(self._wait(self.config.tries - left, error), self.config.timeout_seconds))
                continue
            return Listing(answer["decision_id"], tuple(item["title_id"] for item in answer["items"]), answer)
        raise AssertionError("unreachable")

    def shown(self, listing: Listing, title_ids: Sequence[str]) -> None:
        """Note which titles of a list were really shown, in its order, to be told soon; say more as they scroll."""
        if listing.decision_id is not None and title_ids:
            body = {"decision_id": listing.decision_id, "shown": list(title_ids), "at": self._now()}
            self._spool.add(ACK, body)

    def flush(self, seconds: float) -> bool:
        """Tell what waits, for at most `seconds`; says whether all is told."""
        end = self._timer() + seconds
        while self.num_waiting:
            left = end - self._timer()
            if left <= 0:
                return False
            wait = self.send(timeout_seconds=min(left, self.config.timeout_seconds))
            if wait and self._timer() + wait > end:
                return False
            if wait:
                self._sleep(wait)
        return True

    def send(self, *, timeout_seconds: float | None = None) -> float:
        """Tell the oldest batch; gives the seconds to wait before the next: 0 where it went well, or is refused."""
        seconds = self.config.timeout_seconds if timeout_seconds is None else timeout_seconds
        if not self._sending.acquire(timeout=seconds):
            return 0.01  # another thread is at it
        try:
            return self._send(seconds)
        finally:
            self._sending.release()

    def close(self) -> None:
        """Try once more to tell what waits, then close; the rest stays in the spool file."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self.flush(self.config.flush_seconds)
        self._spool.close()
        self._calls.close()

    def _send(self, seconds: float) -> float:
        waiting = self._spool.first(self._batch)
        if not waiting:
            return 0.0
        try:
            self._tell(waiting, seconds)
        except CallError as error:
            return self._failed(waiting, error)
        self._spool.remove(waiting if waiting[0].kind == EVENT else waiting[:1])
        self._failures, self._batch = 0, self.config.batch_events
        return 0.0

    def _tell(self, waiting: list[Waiting], seconds: float) -> None:
        if waiting[0].kind == ACK:
            body = waiting[0].body
            self._calls.ack(body["decision_id"], body["shown"], body["at"], timeout_seconds=seconds)
            return
        receipt = self._calls.events([one.body for one in waiting], timeout_seconds=seconds)
        rejected = receipt.get("rejected", ())
        self.num_refused += len(rejected)
        for one in rejected:
            _log.warning("an event was refused: %s", one["code"])

    def _failed(self, waiting: list[Waiting], error: CallError) -> float:
        """What cannot succeed is given up, so that it holds up nothing; all else is tried again after a while."""
        if error.status in _BAD and waiting[0].kind == EVENT and len(waiting) > 1:  # until the bad one stands alone
            self._batch = max(1, len(waiting) // 2)
            return 0.0
        if error.passes or error.status in (401, 403):  # a key that is being rotated
            self._failures += 1
            return self._wait(self._failures, error)
        self._spool.remove(waiting if waiting[0].kind == EVENT else waiting[:1])
        self.num_refused += len(waiting) if waiting[0].kind == EVENT else 1
        _log.warning("what was told was refused with status %d and is given up", error.status)
        return 0.0

    def _wait(self, failures: int, error: CallError) -> float:
        """Seconds until the next try: drawn up to a bound that doubles, so that many clients do not come at once."""
        bound = min(self.config.longest_wait_seconds, self.config.first_wait_seconds * 2.0 ** min(failures - 1, 30))
        return max(self._dice() * bound, error.retry_after or 0.0, 0.001)

    def _work(self) -> None:
        while not self._closing.wait(self.config.interval_seconds):
            while self.num_waiting and not self._closing.is_set():
                wait = self.send()
                if wait and self._closing.wait(wait):
                    return

    def _now(self) -> str:
        return self._clock().astimezone(UTC).isoformat().replace("+00:00", "Z")
