"""From events to interactions: consecutive engagement with one title in one session is one interaction.

Shapes: T engagement events sorted by (actor, at, event_id), R runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Runs:
    """R runs of consecutive events, in order."""

    first_R: NDArray[np.int64]  # index into T of the first event of the run
    num_events_R: NDArray[np.int64]
    action_R: NDArray[np.int32]  # the strongest: the highest of events.ACTION_CODES
    dwell_R: NDArray[np.float64]  # seconds, summed; 0 when unknown
    fraction_R: NDArray[np.float64]  # largest; NaN when unknown


def runs(
    session_T: NDArray[np.int64],
    title_T: NDArray[np.int32],
    action_T: NDArray[np.int32],
    dwell_T: NDArray[np.float64],
    fraction_T: NDArray[np.float64],
) -> Runs:
    """Collapse neighbours of one session and one title into runs.

    `session_T` differs between any two sessions, also of different actors; `title_T` is rolled up to the
    series; `dwell_T` (seconds) and `fraction_T` (0..1) may be NaN where unknown.
    """
    if len(title_T) == 0:
        none = np.zeros(0, dtype=np.int64)
        return Runs(none, none, none.astype(np.int32), none.astype(np.float64), none.astype(np.float64))
    opens_T = np.ones(len(title_T), dtype=np.bool_)
    opens_T[1:] = (np.diff(session_T) != 0) | (np.diff(title_T) != 0)
    first_R = np.flatnonzero(opens_T)
    return Runs(
        first_R=first_R,
        num_events_R=np.diff(np.append(first_R, len(title_T))),
        action_R=np.maximum.reduceat(action_T, first_R),
        dwell_R=np.add.reduceat(np.nan_to_num(dwell_T, nan=0.0), first_R),
        fraction_R=np.fmax.reduceat(fraction_T, first_R),
    )
