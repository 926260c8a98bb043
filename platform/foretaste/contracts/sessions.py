"""What a session is and how titles are come to in it, for the batch path and the request path alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foretaste.contracts.config import Frozen
from foretaste.contracts.events import ACTION_CODES, ENTRIES, WAYS

_TURNS = np.array([action in WAYS for action in ACTION_CODES])
_ENTRY = np.array([ENTRIES.index(WAYS.get(action, ENTRIES[0])) for action in ACTION_CODES], dtype=np.int32)


class SessionRule(Frozen):
    """When a session ends."""

    gap_minutes: float = Field(30.0, gt=0, description="minutes without an event that end a session")
    native: bool = Field(True, description="where events carry a session_id, it alone says where one ends")


def session_starts(
    actor_T: NDArray[np.int64], at_T: NDArray[np.int64], native_T: NDArray[np.int64], *, rule: SessionRule
) -> NDArray[np.bool_]:
    """Say of each event whether it opens a session.

    Events are sorted by (actor, at). `at_T` is in microseconds; `native_T` is a code of the native session id,
    -1 where there is none. Two neighbours that both have a native id are divided by it alone (when
    `rule.native`); any other pair by the gap: more than `gap_minutes` apart.
    """
    starts_T = np.ones(len(at_T), dtype=np.bool_)
    if len(at_T) < 2:
        return starts_T
    gap_T = np.diff(at_T) > round(rule.gap_minutes * 60e6)
    if rule.native:
        both_T = (native_T[1:] >= 0) & (native_T[:-1] >= 0)
        gap_T = np.where(both_T, np.diff(native_T) != 0, gap_T)
    starts_T[1:] = (np.diff(actor_T) != 0) | gap_T
    return starts_T


def still_open(newest_B: NDArray[np.int64], asof_B: NDArray[np.int64], *, rule: SessionRule) -> NDArray[np.bool_]:
    """Say whether an event at `asof_B` would belong to the session whose newest moment was `newest_B` (microseconds).

    So a session closes without a new event. The native id of an event that is yet to come is not known.
    """
    return np.asarray(asof_B - newest_B <= round(rule.gap_minutes * 60e6))


def ways(session_E: NDArray[np.int64], action_E: NDArray[np.int32]) -> NDArray[np.int64]:
    """Number of the event that set the way by which titles are come to at each event, -1 where none did; int64[E].

    That is the newest search, message_open or browse up to the event and in its session. Events are in order,
    `session_E` differs between any two sessions, `action_E` are events.ACTION_CODES.
    """
    place_E = np.arange(len(action_E))
    newest_E = np.maximum.accumulate(np.where(_TURNS[action_E], place_E, -1)) if len(place_E) else place_E
    same_E = (newest_E >= 0) & (session_E[newest_E] == session_E)
    return np.where(same_E, newest_E, -1)


def entries(action_E: NDArray[np.int32], way_E: NDArray[np.int64]) -> NDArray[np.int32]:
    """Code in events.ENTRIES of the way of each event (`ways`); without one, browse."""
    return np.where(way_E >= 0, _ENTRY[action_E[way_E]], np.int32(0)).astype(np.int32)
