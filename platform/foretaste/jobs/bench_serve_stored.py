"""Whether what a service acknowledged and answered is on disk, once it has ended."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

from foretaste.feedback.decision_log import decision_tables
from foretaste.feedback.event_log import EVENTS_FOLDER, EventLog
from foretaste.feedback.session_log import open_session_log
from foretaste.jobs.settings import Settings

AT_MOST = 10_000_000
EXAMPLES = 10


@dataclass(slots=True)
class Stored:
    """Ids that a client was told of: what was acknowledged, what was answered."""

    events: set[str] = field(default_factory=set)
    decisions: set[str] = field(default_factory=set)


def missing(settings: Settings, told: Stored) -> dict[str, Any]:
    """Look for them in the event log, in what the session log has not shipped, and in the decision log."""
    events, decisions = on_disk(settings)
    lost_events, lost_decisions = sorted(told.events - events), sorted(told.decisions - decisions)
    return {
        "stored_events": len(told.events),
        "stored_decisions": len(told.decisions),
        "missing_events": len(lost_events),
        "missing_decisions": len(lost_decisions),
        "missing_examples": (lost_events + lost_decisions)[:EXAMPLES],
    }


def on_disk(settings: Settings) -> tuple[set[str], set[str]]:
    """Ids of all events and of all decisions that are there."""
    serving = settings.tables.serving
    with contextlib.closing(open_session_log(settings.serving.session_log, serving)) as log:
        waiting = {event.event["event_id"] for event in log.pending(AT_MOST)}
    shipped = EventLog(serving / EVENTS_FOLDER).read()["event_id"].to_pylist()
    decisions: set[str] = set()
    for table in decision_tables(serving / "decisions"):
        decisions.update(table["decision_id"].to_pylist())
    return waiting | set(shipped), decisions
