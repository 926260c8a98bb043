"""A request of session signals as bytes: what a view that is computed on demand takes in, alike wherever it runs.

A feature server that computes on demand gets one value: bytes that say which version of the signals they ask for, what
was visible, the instant, the session rule and which catalogue. The catalogue itself is too large to travel with
every request; whoever computes must know it (`know`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import Field, StrictInt

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.config import Frozen
from foretaste.contracts.sessions import SessionRule
from foretaste.signals.declared import SESSION_SIGNALS, SIGNALS_VERSION
from foretaste.signals.signals import session_signals

MAGIC = b"foretaste.session/1\n"
"""What every blob begins with: name and version of the format."""
PROBE = b"hello world"
"""What Feast calls the function with while a view is registered, to see what it gives."""

_known: dict[str, Catalogue] = {}


class _Row(Frozen):
    """What signals read of an event."""

    event_id: str
    at: StrictInt
    action: str
    title_id: str | None = None
    session_id: str | None = None
    dwell_seconds: float | None = Field(None, ge=0, allow_inf_nan=False)
    played_fraction: float | None = Field(None, ge=0, le=1)
    query: str | None = None


class _Body(Frozen):
    signals: str
    asof: StrictInt
    catalogue: str
    rule: SessionRule
    events: list[_Row]


@dataclass(frozen=True, slots=True)
class Question:
    """What signals are asked of."""

    events: Sequence[Mapping[str, Any]]  # rows of one actor, as a session log gives them
    asof: int  # microseconds since 1970
    catalogue: str  # fingerprint
    rule: SessionRule


def know(catalogue: Catalogue) -> None:
    """Let this process answer blobs that are of a catalogue."""
    _known[catalogue.fingerprint] = catalogue


def encode(events: Sequence[Mapping[str, Any]], *, asof: int, catalogue: Catalogue, rule: SessionRule) -> bytes:
    """Write a request: of the events what signals read, nothing else of the member."""
    rows = [{name: event[name] for name in _Row.model_fields if event.get(name) is not None} for event in events]
    body = {
        "signals": SIGNALS_VERSION,
        "asof": asof,
        "catalogue": catalogue.fingerprint,
        "rule": rule.model_dump(mode="json"),
        "events": rows,
    }
    return MAGIC + orjson.dumps(body)


def decode(blob: bytes) -> Question:
    """Read a request. Raises ValueError saying what is wrong with it, also where it is of other signals."""
    if not blob.startswith(MAGIC):
        raise ValueError(f"session blob: begins with {blob[: len(MAGIC)]!r}, wanted {MAGIC!r}")
    try:
        said = orjson.loads(blob[len(MAGIC) :])
        version = said["signals"]
        if version != SIGNALS_VERSION:
            raise ValueError(f"it is of signals {version}, here are {SIGNALS_VERSION}")
        body = _Body.model_validate(said)
    except (KeyError, TypeError, ValueError) as error:  # of JSON and of pydantic too
        raise ValueError(f"session blob: cannot be read: {error}") from error
    return Question([row.model_dump() for row in body.events], body.asof, body.catalogue, body.rule)


def answer(blob: bytes) -> dict[str, NDArray[Any]]:
    """Compute the signals that a blob asks for. Raises ValueError as `decode`, or for a catalogue that is not known."""
    asked = decode(blob)
    catalogue = _known.get(asked.catalogue)
    if catalogue is None:
        raise ValueError(f"session blob: is of catalogue {asked.catalogue}, known are {sorted(_known)}")
    return session_signals(asked.events, asof=asked.asof, catalogue=catalogue, rule=asked.rule)


def columns(blobs: Sequence[bytes]) -> dict[str, list[Any]]:
    """Answer blobs as columns by signal: a number each where a signal has one value, else a list of them."""
    answers = [_example() if blob == PROBE else answer(blob) for blob in blobs]
    return {
        signal.name: [
            values[0] if signal.width == 1 else list(values) for values in (one[signal.name] for one in answers)
        ]
        for signal in SESSION_SIGNALS
    }


def _example() -> dict[str, NDArray[Any]]:
    """One value a signal: enough to see types."""
    return {signal.name: np.full(1, signal.fallback, dtype=signal.dtype) for signal in SESSION_SIGNALS}
