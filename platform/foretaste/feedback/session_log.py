"""What actors did a moment ago: the log that answers read.

The state of an actor is the set of their events; a read is the newest K of that set by (at, event_id). The K largest
of a union are the K largest of the two K largest, so redelivery, disorder and many writers come to one answer without
locks between them. Impressions have a shelf of their own: stored, deduplicated and shipped, never read.
`foretaste.testing.contract_session_log` is what every implementation has to keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from foretaste.contracts.config import Frozen
from foretaste.contracts.events import GUEST, PASSIVE

Event = Mapping[str, Any]
"""A row of contracts.columns.EVENTS as a mapping: `at` in microseconds since 1970, null columns may be absent."""

SESSIONS_FILE = "sessions.db"
DAY_US = 86_400_000_000
MARGIN_US = DAY_US
"""How much longer than its window an event is kept, so that no read with a clock that is behind misses it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(at: datetime) -> int:
    """Microseconds since 1970 of an aware time, exactly."""
    return (at - _EPOCH) // timedelta(microseconds=1)


class LogKind(StrEnum):
    """Where the session log is kept."""

    SQLITE = "sqlite"
    REDIS = "redis"


class SessionLogConfig(Frozen):
    """Where an actor's past is kept, how much of it, and how much of that is read."""

    kind: LogKind = Field(LogKind.SQLITE, description="sqlite for one machine, redis for many")
    url: str = Field(
        "redis://127.0.0.1:6379/0", repr=False, description="of Redis; may hold a password and is never logged"
    )
    cluster: bool = Field(False, description="whether the URL is that of a Redis Cluster")
    prefix: str = Field("foretaste", min_length=1, pattern=r"^[^{}\s]+$", description="of every key in Redis")
    wait_replicas: int = Field(
        0, ge=0, description="replicas of Redis that must have a batch before it is acknowledged"
    )
    read_events: int = Field(200, ge=1, description="newest events of an actor that a read gives: K")
    stored_events: int = Field(2_000, ge=1, description="newest events of an actor that are kept; at least read_events")
    stored_impressions: int = Field(2_000, ge=0, description="newest impressions of an actor known as duplicates")
    window_days: float | None = Field(400.0, gt=0, description="days by event time that a member's events are visible")
    guest_days: float | None = Field(30.0, gt=0, description="the same of guests; null: however old")
    durable: bool = Field(
        True, description="SQLite: survive a power failure (one fsync a batch), not only the death of the process"
    )
    busy_seconds: float = Field(10.0, gt=0, description="seconds that an append waits for another writer or the server")
    read_seconds: float = Field(
        2.0, gt=0, description="seconds that a read waits for Redis before an answer does without"
    )

    def window_us(self, actor_id: str) -> int | None:
        """How far before its as-of time an answer sees events of an actor, in microseconds; None: however old."""
        days = self.guest_days if actor_id.startswith(GUEST) else self.window_days
        return None if days is None else round(days * DAY_US)

    def checked(self) -> SessionLogConfig:
        """The configuration itself. Raises ValueError where less is stored than read."""
        if self.stored_events < self.read_events:
            raise ValueError(f"session log: stored_events {self.stored_events} is below read_events {self.read_events}")
        return self


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of one event."""

    sequence: int  # grows with every event of an actor; of a duplicate: the first one's
    duplicate: bool


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event as it is shipped to the event log."""

    actor_id: str
    sequence: int
    received_at: int  # microseconds since 1970
    event: dict[str, Any]  # columns of EVENTS that were not null, `at` in microseconds


class SessionLog(Protocol):
    """An append-only log per actor."""

    @property
    def config(self) -> SessionLogConfig:
        """What it was opened with."""
        ...

    def append(self, events: Sequence[Event], *, received_at: datetime) -> list[Appended]:
        """Store events of any actors durably before it returns; one result an event, in order.

        An event whose (actor, event_id) is there already changes nothing: event_id determines the row. What no read
        can give any more (older than the window, or than `stored_events` newer ones) is shipped and not kept, so a
        repetition of it may count as new; the event log tells the two apart from nothing else and keeps the first.
        The sequence is max(last + 1, microseconds of `received_at`), where last is at least the actor's last, also
        of events that expired or were deleted.
        Raises ValueError naming the column of a bad row, before anything of the batch is stored. A batch that failed
        later may be stored in part, the events of one actor whole or not at all; the same batch again completes it.
        """
        ...

    def read(
        self, actor_id: str, *, limit: int, before_us: int | None = None, mark: int | None = None
    ) -> tuple[list[dict[str, Any]], int]:
        """Give the newest `limit` events of an actor in order of (at, event_id), and the high-water mark.

        The mark is at least every sequence that the actor had at that instant and below every later one: a read with
        `mark` sees what was visible then, as long as it is still kept. Of the events up to the mark `limit` (at most
        `stored_events`) cuts first; then `before_us`, the as-of time in microseconds, leaves at < before_us and
        at >= before_us - window. Without it neither bound holds. Rows have `sequence` beside the event's columns.
        """
        ...

    def delete(self, actor_id: str, *, until_us: int, merged: Sequence[str] = ()) -> int:
        """Remove all of an actor up to a time, inclusive, also what waits to be shipped; returns how many events.

        What is later stays: it came while the actor was being deleted. `merged` are the guests' sessions that are no
        longer to be known as the member's.
        """
        ...

    def delete_until(self, actor_id: str, until_us: int) -> int:
        """Remove an actor's acts up to a time, inclusive, as if they had come before a deletion; returns how many.

        For what was stored while the actor was being deleted. What waits to be shipped stays: shipping leaves it out.
        """
        ...

    def merge(self, session_id: str, member_id: str, *, received_at: datetime, after_us: int = -1) -> int:
        """Append the events of the guest of a session as the member's, with new sequences; returns how many were new.

        Only events after `after_us` count, the time in microseconds up to which the member was deleted. The guest's own
        log stays, since earlier answers were of it, until it expires or is deleted. Impressions stay the guest's. A
        second call adds what came in between, so a call that was cut off is completed by the next.
        """
        ...

    def merged(self, member_id: str) -> list[str]:
        """Session ids of the guests that were merged into a member, as long as those may still have events."""
        ...

    def expire(self, *, now: datetime) -> int:
        """Remove shipped events that no answer from `now` on can see; returns how many. Sequences go on.

        Reads do not wait for it: the window holds for them in any case.
        """
        ...

    def pending(self, limit: int) -> list[LoggedEvent]:
        """Give some `limit` stored events that were not reported shipped, oldest first; empty when there are none."""
        ...

    def shipped(self, events: Sequence[LoggedEvent]) -> None:
        """Take note that all events of one `pending` are in the event log."""
        ...

    def close(self) -> None:
        """Release every file and connection. A closed log raises ValueError on use."""
        ...


def open_session_log(config: SessionLogConfig, folder: Path) -> SessionLog:
    """Open the log that `config` names; SQLite keeps it in `folder`.

    Raises ValueError where less is stored than read or an old file stands in the way, ConnectionError without Redis.
    """
    if config.kind is LogKind.SQLITE:
        from foretaste.feedback.sqlite_session_log import SqliteSessionLog

        return SqliteSessionLog(folder / SESSIONS_FILE, config)
    from foretaste.feedback.redis_session_log import RedisSessionLog

    return RedisSessionLog(config)


def visible(
    rows: Iterable[Mapping[str, Any]], *, limit: int, mark: int, before_us: int, window_us: int | None
) -> list[Mapping[str, Any]]:
    """The slow, readable twin of a read: what of one actor's stored events an answer sees, oldest first.

    `rows` have event_id, at (microseconds), action and sequence, each event once.
    """
    known = [row for row in rows if row["sequence"] <= mark and row["action"] not in PASSIVE]
    newest = sorted(known, key=lambda row: (row["at"], row["event_id"].encode()))[-limit:]
    since = -1 if window_us is None else before_us - window_us
    return [row for row in newest if since <= row["at"] < before_us]
