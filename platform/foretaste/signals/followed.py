"""What followed a choice, by candidate: what the ranker's heads are taught, and what they are measured by.

Shapes: B choices, C candidates each, T interactions of all actors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.events import ACTION_CODES, Action
from foretaste.contracts.histories import Histories

_THUMB_UP, _ADD = ACTION_CODES[Action.THUMB_UP], ACTION_CODES[Action.ADD_TO_LIST]


@dataclass(frozen=True, slots=True)
class Followed:
    """NaN where it is not known, or where the candidate is padding or was not chosen."""

    chosen_BC: NDArray[np.float32]  # 1 for what was chosen, 0 for all else
    fraction_BC: NDArray[np.float32]  # played fraction of what was chosen
    thumb_BC: NDArray[np.float32]  # 1 where what was chosen got a thumb up, 0 where not
    listed_BC: NDArray[np.float32]  # 1 where it is put on the list from here to the end of the session


def followed(line: Histories, stop_B: NDArray[np.int64], code_BC: NDArray[np.int32]) -> Followed:
    """Say what followed: `line` holds all interactions, the choices are those at `stop_B`."""
    chosen_BC = code_BC == line.title_T[stop_B][:, None]
    fraction_BC = np.where(chosen_BC, line.fraction_T[stop_B][:, None], np.nan)
    thumb_BC = np.where(chosen_BC, (line.action_T[stop_B] == _THUMB_UP)[:, None], np.nan)
    listed_BC = np.where(code_BC > 0, _listed_after(line, stop_B, code_BC), np.nan)
    return Followed(*(a.astype(np.float32) for a in (chosen_BC, fraction_BC, thumb_BC, listed_BC)))


def _listed_after(line: Histories, stop_B: NDArray[np.int64], code_BC: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether each candidate is put on the list from a choice on, to the end of its session."""
    row_T = np.repeat(np.arange(len(line)), line.lengths_B)
    session_T = row_T * (int(line.session_T.max(initial=0)) + 1) + line.session_T
    added_T = np.flatnonzero(line.action_T == _ADD)
    listed_BC = np.zeros(code_BC.shape, dtype=np.bool_)
    first_B = np.searchsorted(added_T, stop_B)
    last_B = np.searchsorted(session_T, session_T[stop_B], side="right")
    for b in np.flatnonzero((first_B < len(added_T)) & (stop_B < last_B)):
        mine = added_T[first_B[b] : np.searchsorted(added_T, last_B[b])]
        listed_BC[b] = np.isin(code_BC[b], line.title_T[mine]) & (code_BC[b] > 0)
    return listed_BC
