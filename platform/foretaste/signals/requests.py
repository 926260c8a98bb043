"""What the ranker knows of a request, whatever the candidate: numbers of it, and its newest interactions.

Shapes: B requests, R columns, L recent interactions, A numbers of each, W values of a signal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.histories import Histories
from foretaste.signals.crosses import HOUR_US, LONGEST_HOURS, log_hours
from foretaste.signals.declared import SESSION_SIGNALS
from foretaste.signals.views import ABSENT, MemberView

_COUNTS = (
    "session_titles",
    "session_completed",
    "session_searches",
    "session_thumbs_down",
    "session_removes",
    "session_abandons",
    "num_sessions",
    "past_depth",
)
_TIMES = {"session_age": 3600.0, "since_search": 3600.0, "session_dwell": 3600.0, "away": 1.0}
"""Signals of time, with what of their unit makes an hour."""
_HOURS_K1 = np.array(list(_TIMES.values()))[:, None]
_PLAIN = ("session_fraction_mean", "session_fraction_max", "past_fraction_mean", "returned")
_FALLBACK = {one.name: one.fallback for one in SESSION_SIGNALS}

REQUEST_COLUMNS: tuple[str, ...] = (
    "no_session",  # 1 where no session is going on
    "no_history",  # 1 where nothing is known of what was done
    "no_member",  # 1 where there is no slow view: a guest, or someone new
    "session_depth",  # log(1 + interactions of the session)
    "history_length",  # log(1 + interactions)
    "idle",  # log(1 + hours since the newest interaction), LONGEST_HOURS without any
    "member_plays_7d",  # log(1 + plays)
    "member_plays_30d",
    "member_plays_180d",
    "member_visits_30d",
    "member_tenure",  # log(1 + days)
    *(f"signal_{name}" for name in _COUNTS),  # log(1 + number)
    *(f"signal_{name}" for name in _TIMES),  # log(1 + hours), LONGEST_HOURS for never
    *(f"signal_{name}" for name in _PLAIN),  # as they are
)
NUM_ABOUT = 5


@dataclass(frozen=True, slots=True)
class Recent:
    """The newest L interactions of B histories, oldest first; 0 fills up behind."""

    title_BL: NDArray[np.int32]
    action_BL: NDArray[np.int32]  # 1 + events.ACTION_CODES
    about_BLA: NDArray[np.float32]  # log hours ago, log dwell, played fraction (0 unknown), whether known, place
    now_BL: NDArray[np.bool_]  # of the session that is going on


def request_features(
    histories: Histories,
    asof_B: NDArray[np.int64],
    first_B: NDArray[np.int64],
    members: MemberView,
    signals: Mapping[str, NDArray[Any]],
) -> NDArray[np.float32]:
    """Describe requests by REQUEST_COLUMNS: float32[B, R]; a signal that is missing has its fallback.

    `first_B` is of `session.current_session`.
    """
    stop_B, size = histories.offsets_B1[1:], len(asof_B)
    some_B = stop_B > histories.offsets_B1[:-1]
    newest_B = np.zeros(size, dtype=np.int64)
    newest_B[some_B] = histories.at_T[stop_B[some_B] - 1]
    numbers = [
        stop_B - first_B,
        stop_B - histories.offsets_B1[:-1],
        members.count_7d_B,
        members.count_30d_B,
        members.count_180d_B,
        members.visits_30d_B,
        members.tenure_days_B,
        *(_signal(signals, name, size) for name in _COUNTS),
    ]
    times_KB = np.stack([_signal(signals, name, size) for name in _TIMES], dtype=np.float64) / _HOURS_K1
    hours_KB = np.where(times_KB < 0, LONGEST_HOURS, np.minimum(times_KB, LONGEST_HOURS))
    log_KB = np.log1p(np.concatenate([np.stack(numbers, dtype=np.float64, casting="unsafe"), hours_KB]))
    flags = [first_B == stop_B, ~some_B, members.asof_ms_B == ABSENT]
    columns = [*flags, *log_KB[:2], log_hours(newest_B, asof_B, some_B), *log_KB[2:]]
    return np.stack(
        [*columns, *(_signal(signals, name, size) for name in _PLAIN)], axis=1, dtype=np.float32, casting="unsafe"
    )


def recent(histories: Histories, asof_B: NDArray[np.int64], first_B: NDArray[np.int64], *, length: int) -> Recent:
    """Lay the newest `length` interactions of each history side by side; `first_B` is of `session.current_session`."""
    size_B = np.minimum(histories.lengths_B, length)
    row_T = np.repeat(np.arange(len(asof_B)), size_B)
    place_T = np.arange(len(row_T)) - np.repeat(np.cumsum(size_B) - size_B, size_B)
    from_T = np.repeat(histories.offsets_B1[1:] - size_B, size_B) + place_T
    shape = (len(asof_B), int(size_B.max(initial=0)))
    title_BL, action_BL = (np.zeros(shape, dtype=np.int32) for _ in range(2))
    about_BLA, now_BL = np.zeros((*shape, NUM_ABOUT), dtype=np.float32), np.zeros(shape, dtype=np.bool_)
    title_BL[row_T, place_T] = histories.title_T[from_T]
    action_BL[row_T, place_T] = histories.action_T[from_T] + 1
    now_BL[row_T, place_T] = from_T >= first_B[row_T]
    fraction_T = histories.fraction_T[from_T]
    known_T = ~np.isnan(fraction_T)
    ago_T = np.clip((asof_B[row_T] - histories.at_T[from_T]) / HOUR_US, 0.0, LONGEST_HOURS)
    about_BLA[row_T, place_T, 0] = np.log1p(ago_T) / 8.0
    about_BLA[row_T, place_T, 1] = np.log1p(histories.dwell_T[from_T].astype(np.float64)) / 8.0
    about_BLA[row_T, place_T, 2] = np.where(known_T, fraction_T, 0.0)
    about_BLA[row_T, place_T, 3] = known_T
    about_BLA[row_T, place_T, 4] = np.exp2(-(size_B[row_T] - 1 - place_T) / 4.0)
    return Recent(title_BL, action_BL, about_BLA, now_BL)


def _signal(signals: Mapping[str, NDArray[Any]], name: str, size: int) -> NDArray[Any]:
    return signals[name][:, 0] if name in signals else np.full(size, _FALLBACK[name])
