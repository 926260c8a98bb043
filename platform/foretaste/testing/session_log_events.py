"""Events for session logs, and what is read of them: the tools of the contract (`contract_session_log`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from foretaste.contracts.events import PASSIVE, actor_id
from foretaste.feedback.session_log import (
    Appended,
    LoggedEvent,
    SessionLog,
    SessionLogConfig,
    microseconds,
)

Opener = Callable[[SessionLogConfig], SessionLog]

K = 5
CONFIG = SessionLogConfig(
    read_events=K,
    stored_events=1_000,
    window_days=None,
    guest_days=None,
    durable=False,
    busy_seconds=60.0,
    read_seconds=60.0,
)
NOW = datetime(2026, 1, 2, tzinfo=UTC)
NOW_US = microseconds(NOW)
LATER = 2**52


def event(event_id: str, at: int, *, member_id: str | None = "m1", **more: Any) -> dict[str, Any]:
    """Make an event of a member `at` microseconds."""
    return {"event_id": event_id, "member_id": member_id, "session_id": "s1", "at": at, "action": "play"} | more


def expected(events: Iterable[dict[str, Any]], actor: str, *, limit: int) -> list[str]:
    """The slow twin of a read: ids of the newest of the set of events, ties by the bytes of event_id."""
    own = {e["event_id"]: e["at"] for e in events if _actor(e) == actor and e["action"] not in PASSIVE}
    ordered = sorted(own, key=lambda event_id: (own[event_id], event_id.encode()))
    return ordered[len(ordered) - limit :] if limit < len(ordered) else ordered


def drain(log: SessionLog, *, limit: int = 1_000) -> list[LoggedEvent]:
    """Take everything that waits to be shipped, and report it shipped."""
    taken: list[LoggedEvent] = []
    while found := log.pending(limit):
        taken += found
        log.shipped(found)
    return taken


def _actor(one: dict[str, Any]) -> str:
    return actor_id(one["member_id"], one["session_id"])


def ids_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Ids of what was read."""
    return [row["event_id"] for row in rows]


def duplicates(results: Sequence[Appended]) -> list[bool]:
    """Which of what was appended was there already."""
    return [result.duplicate for result in results]
