"""A row on its way into the session log, checked: what is stored can always be read and shipped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from foretaste.contracts.columns import EVENTS
from foretaste.contracts.events import PASSIVE, actor_id

MAX_ID_BYTES = 840  # 200 characters of any script, and a tenant's name
LAST_US = 2**53
"""Times and sequences are below it, so that a double holds them exactly."""

_TEXT = frozenset(field.name for field in EVENTS if field.type == pa.string())
_IDS = ("event_id", "member_id", "session_id")


class StoredRow(NamedTuple):
    """An event as it is kept."""

    actor: str
    event_id: str
    at: int
    passive: bool
    body: bytes  # JSON of the columns that are not null


def stored_row(event: Mapping[str, Any]) -> StoredRow:
    """Check an event and make it what is kept. Raises ValueError naming the event and the column."""
    body = {name: value for name, value in event.items() if value is not None and name != "sequence"}
    event_id = body.get("event_id")
    try:
        for name in ("event_id", "at", "action"):
            if name not in body:
                raise ValueError(f"{name} is missing")
        for name, value in body.items():
            _check(name, value)
        for name in _IDS:
            if name in body and not 0 < len(body[name].encode()) <= MAX_ID_BYTES:
                raise ValueError(f"{name} has {len(body[name].encode())} bytes, wanted 1 to {MAX_ID_BYTES}")
        actor = actor_id(body.get("member_id"), body.get("session_id"))
        return StoredRow(actor, body["event_id"], body["at"], body["action"] in PASSIVE, orjson.dumps(body))
    except (ValueError, TypeError) as error:
        raise ValueError(f"session log: event {event_id!r:.100}: {error}") from error


def _check(name: str, value: Any) -> None:
    if name in _TEXT:
        if not isinstance(value, str):
            raise ValueError(f"{name} is {value!r:.100}, wanted text")
        if not value.isascii():
            _encode(name, value)
    elif name == "at":
        _whole(name, value, LAST_US, "microseconds since 1970")
    elif name == "position":
        _whole(name, value, 2**31, "a place")
    elif name == "dwell_seconds":
        _number(name, value, math.inf)
    elif name == "played_fraction":
        _number(name, value, 1.0)
    else:
        raise ValueError(f"{name!r:.100} is no column of events")


def _encode(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} is {value!r:.100}, which is not text: {error.reason}") from error


def _whole(name: str, value: Any, end: int, what: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < end:
        raise ValueError(f"{name} is {value!r:.100}, wanted {what}: a whole number of 0 or more, below {end}")


def _number(name: str, value: Any, most: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not (0 <= value <= most and value < math.inf):
        raise ValueError(
            f"{name} is {value!r:.100}, wanted a number of 0 or more" + ("" if most > 1 else ", at most 1")
        )
