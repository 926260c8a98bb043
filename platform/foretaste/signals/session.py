"""What the session that is going on says, one function a signal.

The interactions of a history that belong to the session at the instant of the question: the newest session's, as long
as it has not ended by then. A session ends without an event, so this depends on the instant.

Shapes: B histories, T interactions of all of them, S of them in a session that is going on, C candidates, N1 catalogue
codes, G columns (genres, or kinds) that a title's weight of 1 is divided between.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.events import ACTION_CODES, Action
from foretaste.contracts.histories import Histories
from foretaste.contracts.sessions import SessionRule, still_open

STEPS_TO_HALF = 3.0
"""Interactions after which one counts half in what the session is about."""
DISLIKE = ACTION_CODES[Action.THUMB_DOWN]


def current_session(histories: Histories, asof_B: NDArray[np.int64], *, rule: SessionRule) -> NDArray[np.int64]:
    """Number of the first interaction of the session that is going on; the history's end where none is: int64[B].

    A session is going on while no more than the rule's gap has passed since its newest interaction ended, that is
    since its first event and the dwell known by then.
    """
    start_B, stop_B = histories.offsets_B1[:-1], histories.offsets_B1[1:]
    first_B = stop_B.copy()
    some_B = np.flatnonzero(stop_B > start_B)
    last_B = stop_B[some_B] - 1
    ended_B = histories.at_T[last_B] + (histories.dwell_T[last_B].astype(np.float64) * 1e6).astype(np.int64)
    open_B = still_open(ended_B, asof_B[some_B], rule=rule)
    if len(last_B):
        begins_T = np.ones(len(histories.session_T), dtype=np.bool_)
        begins_T[1:] = np.diff(histories.session_T) != 0
        begins_T[start_B[some_B]] = True
        begun_T = np.maximum.accumulate(np.where(begins_T, np.arange(len(begins_T)), 0))
        first_B[some_B[open_B]] = begun_T[last_B[open_B]]
    return first_B


def session_affinity(
    histories: Histories,
    first_B: NDArray[np.int64],
    parts: Callable[[NDArray[np.int32]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Share of each genre (or kind) in the session, newer interactions counting more: float64[B, G].

    `first_B` is of `current_session`; `parts` divides the weight of 1 of titles (codes, int32[S]) between genres:
    float64[S, G]. A thumb down counts nothing. 0 throughout without a session.
    """
    stop_B = histories.offsets_B1[1:]
    length_B = stop_B - first_B
    row_S = np.repeat(np.arange(len(length_B)), length_B)
    begin_B = np.cumsum(length_B) - length_B
    place_S = first_B[row_S] + np.arange(len(row_S)) - begin_B[row_S]
    weight_S = np.exp2(-(stop_B[row_S] - 1 - place_S) / STEPS_TO_HALF)
    weight_S[histories.action_T[place_S] == DISLIKE] = 0.0
    parts_SG = weight_S[:, None] * parts(histories.title_T[place_S])
    sums_BG = np.zeros((len(length_B), parts_SG.shape[1]))
    some_B = length_B > 0
    if some_B.any():
        sums_BG[some_B] = np.add.reduceat(parts_SG, begin_B[some_B], axis=0)
    total_B1 = sums_BG.sum(axis=1, keepdims=True)
    shares_BG: NDArray[np.float64] = sums_BG / np.where(total_B1 > 0, total_B1, 1.0)
    return shares_BG
