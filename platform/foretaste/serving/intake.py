"""Events on their way into the session log: each is checked on its own and stored before the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from pydantic import ValidationError

from foretaste.contracts.wire import Event, EventsAnswer, Rejected
from foretaste.feedback.session_log import SessionLog, microseconds

FUTURE = "future_time"
INVALID = "invalid"
MAX_MESSAGE = 500
OWN_CODES = frozenset({"missing_actor", "missing_title"})


class Intake:
    """Takes batches of raw events."""

    def __init__(self, log: SessionLog, *, future_minutes: float, clock: Callable[[], datetime]) -> None:
        self._log = log
        self._ahead = timedelta(minutes=future_minutes)
        self._clock = clock

    def accept(self, events: Sequence[Any]) -> EventsAnswer:
        """Store what is well formed and not later than now + `future_minutes`; durable when this returns."""
        received_at = self._clock()
        good: list[Event] = []
        rejected: list[Rejected] = []
        for index, raw in enumerate(events):
            try:
                event = Event.model_validate(raw)
            except ValidationError as error:
                rejected.append(_rejected(index, error))
                continue
            if event.at > received_at + self._ahead:
                message = f"at: {event.at.isoformat()} is more than {self._ahead} after {received_at.isoformat()}"
                rejected.append(Rejected(index=index, code=FUTURE, message=message))
            else:
                good.append(event)
        appended = self._log.append([row(event) for event in good], received_at=received_at) if good else []
        duplicate = sum(one.duplicate for one in appended)
        return EventsAnswer(accepted=len(good) - duplicate, duplicate=duplicate, rejected=rejected)


def row(event: Event) -> dict[str, Any]:
    """The event as the session log keeps it: columns of EVENTS, `at` in microseconds, without nulls."""
    values = event.model_dump(mode="python", exclude_none=True)
    values["at"] = microseconds(event.at)
    values["action"] = event.action.value
    if event.properties is not None:
        values["properties"] = orjson.dumps(event.properties).decode()
    return values


def _rejected(index: int, error: ValidationError) -> Rejected:
    errors = error.errors(include_url=False, include_input=False)
    own = next((e["type"] for e in errors if e["type"] in OWN_CODES), None)
    message = "; ".join(": ".join(filter(None, (".".join(map(str, e["loc"])), e["msg"]))) for e in errors[:5])
    return Rejected(index=index, code=own or INVALID, message=message[:MAX_MESSAGE])
