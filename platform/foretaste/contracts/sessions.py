"""What a session is, for the batch path and the request path alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foretaste.contracts.config import Frozen


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
