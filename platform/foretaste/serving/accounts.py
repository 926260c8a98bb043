"""What can be asked about answers: what was shown of them, whether they can be made again, what they would read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from foretaste.contracts.columns import LOGGED_EVENTS, conform
from foretaste.contracts.events import actor_id
from foretaste.contracts.tenants import DEFAULT, outside, tenant_of
from foretaste.contracts.wire_records import (
    AckAnswer,
    AckRequest,
    ReplayAnswer,
    ReplayRequest,
    SessionAnswer,
    SessionEvent,
)
from foretaste.feedback.acks import AckLog
from foretaste.feedback.decision_log import DecisionLog
from foretaste.feedback.event_log import EventLog
from foretaste.feedback.forgotten import before_deletion
from foretaste.feedback.past import Past
from foretaste.feedback.session_log import SessionLog, microseconds
from foretaste.feedback.tombstones import Tombstones
from foretaste.serving.again import again
from foretaste.serving.answer import freshness_of
from foretaste.serving.explain import told
from foretaste.serving.models import Models
from foretaste.serving.names import is_decision_name
from foretaste.serving.problems import RefusedError
from foretaste.serving.replay import Replay
from foretaste.serving.stages import Seen
from foretaste.serving.tenancy import row_outside
from foretaste.signals.acts import acts_of_one
from foretaste.signals.signals import signals_of_one

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Accounts:
    """Reads the logs of one workspace for people and clients; may block on the disk."""

    def __init__(
        self,
        sessions: SessionLog,
        decisions: DecisionLog,
        events: EventLog,
        tombstones: Tombstones,
        acks: AckLog,
        *,
        clock: Callable[[], datetime],
        future_minutes: float,
        replay: Replay | None = None,
        registry: Path = Path("registry"),
    ) -> None:
        """Without `replay` no decision can be made again."""
        self._sessions = sessions
        self._decisions = decisions
        self._events = events
        self._tombstones = tombstones
        self._acks = acks
        self._clock = clock
        self._ahead = timedelta(minutes=future_minutes)
        self._replay = replay
        self._registry = registry
        self._one_at_a_time = threading.Lock()

    def decision(self, decision_id: str, *, tenant: str = DEFAULT) -> dict[str, Any] | None:
        """A DECISIONS row, times in microseconds; None where the tenant has none, or not any more."""
        row = self._decisions.get(decision_id, shipped=True) if is_decision_name(decision_id) else None
        if row is None or tenant_of(row["session_id"]) != tenant:
            return None
        named = {**row, "actor_id": actor_id(row["member_id"], row["session_id"])}
        return None if before_deletion(named, self._tombstones.read()) else row

    def ack(self, decision_id: str, request: AckRequest, *, tenant: str = DEFAULT) -> AckAnswer | None:
        """Take note of what was shown of a list; None for an unknown decision.

        Raises RefusedError naming the title that is not on the list, or stands in another order.
        """
        row = self.decision(decision_id, tenant=tenant)
        if row is None:
            return None
        now = self._clock()
        if request.at > now + self._ahead:
            raise RefusedError("at", f"{request.at.isoformat()} is more than {self._ahead} after {now.isoformat()}")
        items = {item["title_id"]: item for item in row["items"]}
        _check_order(request.shown, {title: item["position"] for title, item in items.items()})
        common = {name: row[name] for name in ("decision_id", "member_id", "session_id", "surface")}
        common |= {"decided_at": row["at"], "shown_at": microseconds(request.at), "received_at": microseconds(now)}
        named = (
            {name: items[title][name] for name in ("title_id", "position", "propensity")} for title in request.shown
        )
        recorded = sum(self._acks.append([common | one for one in named]))
        shown = self._acks.of(decision_id)
        deepest = max(items[title]["position"] for title in shown)
        propensity = 1.0
        for item in row["items"]:
            propensity *= item["propensity"] if item["position"] <= deepest else 1.0
        return AckAnswer(decision_id=decision_id, recorded=recorded, shown=shown, propensity=propensity)

    def replay(self, decision_id: str, request: ReplayRequest, *, tenant: str = DEFAULT) -> ReplayAnswer | None:
        """Make a decision again; None for an unknown one.

        Raises LeftOutError where it cannot be made again, RefusedError naming the field of a model that will not do.
        """
        row = self.decision(decision_id, tenant=tenant)
        if row is None or self._replay is None:
            return None
        past = self._past(actor_id(row["member_id"], row["session_id"]), row["sequence_mark"])
        with self._one_at_a_time:
            return again(self._replay, self._registry, row, past, request)

    def session(self, session_id: str, member_id: str | None, models: Models) -> SessionAnswer:
        """Say what an answer of these models would read of a member, or of a session's guest."""
        at, actor = self._clock(), actor_id(member_id, session_id)
        asof = microseconds(at)
        rows, mark = self._sessions.read(actor, limit=self._sessions.config.read_events, before_us=asof)
        acts = acts_of_one(rows, asof=asof, catalogue=models.catalogue, rule=models.rule)
        signals = signals_of_one(acts, models.catalogue, models.rule)
        seen = Seen(actor, asof, acts.histories(), rows, mark, False, signals)
        return SessionAnswer(
            member_id=None if member_id is None else outside(member_id),
            session_id=outside(session_id),
            as_of=at,
            mark=seen.mark,
            events=[_event(row_outside(row), models) for row in seen.rows],
            signals=told(signals, models.catalogue),
            freshness=freshness_of(seen),
            merged_sessions=[] if member_id is None else [outside(one) for one in self._sessions.merged(member_id)],
        )

    def _past(self, actor: str, mark: int) -> Past:
        """All events of an actor that a decision can have seen; the session log first, for shipping moves them on."""
        rows, _ = self._sessions.read(actor, limit=self._sessions.config.stored_events, mark=mark)
        near = pl.DataFrame(pl.from_arrow(_logged(actor, rows)))
        far = pl.DataFrame(pl.from_arrow(self._events.read([actor])))
        both = pl.concat([near, far]).sort("sequence").unique(["actor_id", "event_id"], keep="first")
        return Past(conform(both.to_arrow(), LOGGED_EVENTS, what="events of a decision"))


def _check_order(shown: list[str], place_of: Mapping[str, int]) -> None:
    """Raise RefusedError unless titles are of the list, each once and in its order: else propensities mean nothing."""
    last = -1
    for number, title_id in enumerate(shown):
        place = place_of.get(title_id)
        if place is None:
            raise RefusedError(f"shown.{number}", f"{title_id!r} is not on the list of the decision")
        if place <= last:
            raise RefusedError(f"shown.{number}", f"{title_id!r} stands above the title before it on the list")
        last = place


def _logged(actor: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of a session log as LOGGED_EVENTS; the time of arrival is of no account here."""
    known = [{"actor_id": actor, "received_at": row["at"], **row} for row in rows]
    numbered = pa.schema([pa.field(f.name, pa.int64()) if pa.types.is_timestamp(f.type) else f for f in LOGGED_EVENTS])
    return conform(pa.Table.from_pylist(known, schema=numbered), LOGGED_EVENTS, what="session log")


def _event(row: Mapping[str, Any], models: Models) -> SessionEvent:
    return SessionEvent(
        event_id=row["event_id"],
        sequence=row["sequence"],
        at=_EPOCH + timedelta(microseconds=row["at"]),
        action=row["action"],
        title_id=row.get("title_id"),
        session_id=row.get("session_id"),
        query=row.get("query"),
        known=row.get("title_id") in models.catalogue.code_of,
    )
