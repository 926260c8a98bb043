"""What actors did a moment ago: the log that answers read.

The state of an actor is the set of their events; a read is the newest K of that set by (at, event_id). The K largest
of a union are the K largest of the two K largest, so redelivery, disorder and many writers come to one answer without
locks between them. `foretaste.testing.contract_session_log` is what every implementation has to keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from pydantic import Field

from foretaste.contracts.config import Frozen

Event = Mapping[str, Any]
"""A row of contracts.columns.EVENTS as a mapping: `at` in microseconds since 1970, null columns may be absent."""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(at: datetime) -> int:
    """Microseconds since 1970 of an aware time, exactly."""
    return (at - _EPOCH) // timedelta(microseconds=1)


class SessionLogConfig(Frozen):
    """How much of an actor's past is kept and read."""

    read_events: int = Field(200, ge=1, description="newest events of an actor that a read gives: K")
    stored_events: int = Field(2_000, ge=1, description="newest events of an actor that are kept; at least read_events")
    keep_days: float = Field(30.0, gt=0, description="days after their arrival when events expire")
    durable: bool = Field(
        True, description="survive a power failure (one fsync a batch); otherwise only the death of the process"
    )
    busy_seconds: float = Field(10.0, gt=0, description="seconds to wait for another writer before an append fails")


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of one event."""

    sequence: int  # 1, 2, ... per actor, in order of arrival; of a duplicate: the first one's
    duplicate: bool


class SessionLog(Protocol):
    """An append-only log per actor."""

    def append(self, events: Sequence[Event], *, received_at: datetime) -> list[Appended]:
        """Store events of any actors, all or none, durably before it returns; one result an event, in order.

        An event whose (actor, event_id) is there already changes nothing: event_id determines the row.
        Raises ValueError where an event has no event_id, at, member_id or session_id.
        """
        ...

    def read(
        self, actor_id: str, *, limit: int, before_us: int | None = None, mark: int | None = None
    ) -> tuple[list[dict[str, Any]], int]:
        """Give the newest `limit` events of an actor in order of (at, event_id), and the high-water mark.

        The mark is the largest sequence that the actor had at that instant: a later read with `mark` sees what this
        one saw, as long as it is still kept. `limit` cuts first, then `before_us` (exclusive, microseconds) filters.
        Every row has its `sequence` beside the columns of the event that were not null.
        """
        ...

    def expire(self, *, now: datetime) -> int:
        """Remove events that arrived more than `keep_days` before `now`; returns how many. Sequences go on."""
        ...

    def close(self) -> None:
        """Release every file and connection. A closed log raises on use."""
        ...
