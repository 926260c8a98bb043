"""Events on their way into the session log: each is checked on its own and stored before the answer.

The rule of clocks: an event later than its arrival + `future_minutes` is refused (a clock that is ahead would keep its
events the newest for as long); every other one is stored at the time that it says, however late it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime, timedelta
from typing import Any

import orjson
from pydantic import ValidationError

from foretaste.contracts.events import actor_id
from foretaste.contracts.tenants import DEFAULT
from foretaste.contracts.wire import Event, EventsAnswer, Rejected
from foretaste.feedback.session_log import SessionLog, microseconds
from foretaste.serving.tenancy import row_inside

FUTURE = "future_time"
DELETED = "deleted_member"
REFUSED = "no_consent"
INVALID = "invalid"
MAX_MESSAGE = 500
OWN_CODES = frozenset({"missing_actor", "missing_title"})


class Intake:
    """Takes batches of raw events."""

    def __init__(
        self,
        log: SessionLog,
        *,
        future_minutes: float,
        clock: Callable[[], datetime],
        deleted: Callable[[], Mapping[str, int]] = dict,
        refused: Callable[[], Set[str]] = frozenset,
    ) -> None:
        """`deleted` says up to when (microseconds) which members are deleted: what they did before is refused.

        `refused` says who does not consent: nothing of them is stored.
        """
        self._refused = refused
        self._log = log
        self._deleted = deleted
        self._ahead = timedelta(minutes=future_minutes)
        self._clock = clock

    def accept(self, events: Sequence[Any], *, tenant: str = DEFAULT) -> EventsAnswer:
        """Store what is well formed, keeps the rule of clocks and is of nobody deleted; durable when this returns."""
        received_at, deleted = self._clock(), self._deleted()
        try:
            refused = self._refused()
        except (ValueError, OSError) as error:  # to be sent again once it is known who refuses
            raise ConnectionError("the consents cannot be read") from error
        good: list[dict[str, Any]] = []
        rejected_: list[Rejected] = []
        for index, raw in enumerate(events):
            try:
                event = Event.model_validate(raw)
            except ValidationError as error:
                rejected_.append(rejected(index, error))
                continue
            stored = row_inside(row(event), tenant)
            if event.at > received_at + self._ahead:
                message = f"at: {event.at.isoformat()} is more than {self._ahead} after {received_at.isoformat()}"
                rejected_.append(Rejected(index=index, code=FUTURE, message=message))
            elif stored["at"] <= deleted.get(_actor(stored), -1):
                message = "at: is not after the deletion of member_id, or of the member whose guest this was"
                rejected_.append(Rejected(index=index, code=DELETED, message=message))
            elif not event.consent or stored.get("member_id") in refused:
                rejected_.append(Rejected(index=index, code=REFUSED, message="consent: without it nothing is stored"))
            else:
                good.append(stored)
        appended = self._log.append(good, received_at=received_at) if good else []
        self._forget_again({_actor(stored) for stored in good}, deleted)
        duplicate = sum(one.duplicate for one in appended)
        return EventsAnswer(accepted=len(good) - duplicate, duplicate=duplicate, rejected=rejected_)

    def _forget_again(self, actors: Set[str], before: Mapping[str, int]) -> None:
        """Remove what was stored of actors who were deleted between the check and the storing, by whatever process."""
        now = self._deleted()
        for actor in actors & now.keys():
            if now[actor] != before.get(actor):
                self._log.delete_until(actor, now[actor])


def row(event: Event) -> dict[str, Any]:
    """The event as the session log keeps it: columns of EVENTS, `at` in microseconds, without nulls."""
    values = event.model_dump(mode="python", exclude_none=True, exclude={"consent"})
    values["at"] = microseconds(event.at)
    values["action"] = event.action.value
    if event.properties is not None:
        values["properties"] = orjson.dumps(event.properties).decode()
    return values


def _actor(stored: Mapping[str, Any]) -> str:
    return actor_id(stored.get("member_id"), stored.get("session_id"))


def rejected(index: int, error: ValidationError) -> Rejected:
    """Say what is wrong with one of several things that were sent."""
    errors = error.errors(include_url=False, include_input=False)
    own = next((e["type"] for e in errors if e["type"] in OWN_CODES), None)
    message = "; ".join(": ".join(filter(None, (".".join(map(str, e["loc"])), e["msg"]))) for e in errors[:5])
    legible = message[:MAX_MESSAGE].encode(errors="backslashreplace").decode()
    return Rejected(index=index, code=own or INVALID, message=legible[:MAX_MESSAGE])
