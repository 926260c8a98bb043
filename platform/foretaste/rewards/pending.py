"""From outcomes, as of the instants at which they were joined, to what a model of delayed feedback learns from.

Outcomes that were joined before, as of earlier instants, are kept beside the newest: they say what was known of a
decision when it was younger, and so are its landmarks; nothing has to be reconstructed.

Shapes: N rows, L landmarks, S signals, F columns of a context.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.models.delayed_rows import Pending

FINAL: Mapping[str, str] = {
    "click": "clicked_at", "add_to_list": "listed_at", "play": "played_at", "discovery": "discovered_at",
    "complete": "completed_at", "thumb_up": "thumbed_up_at", "thumb_down": "thumbed_down_at",
}  # fmt: skip
"""Feedback that comes at an instant within the window of its decision, and the column that has it."""

SIGNALS = (
    "clicked", "listed", "played", "thumb_up", "thumb_down", "fraction", "log_plays", "log_days_since_click",
    "log_days_since_play",
)  # fmt: skip
CONTEXT = ("place", "guest", "weekend", "hour_sine", "hour_cosine")
KEYS = ["decision_id", "title_id"]
_SINCE_CLICK, _SINCE_PLAY = "clicked_at", "played_at"


def pending_of(
    outcomes: Sequence[pa.Table],
    what: str,
    *,
    codes: Mapping[str, int],
    context_NX: NDArray[np.float32] | None = None,
) -> Pending:
    """Rows of the newest OUTCOMES, in their order, as they wait for a feedback.

    `outcomes` are of the same decisions as of rising instants, `codes` numbers titles from 1. `context_NX` are further
    columns of the context, of the newest rows. Rows that were not shown should be left out before. The horizon of the
    feedback is the window of the outcomes. Raises ValueError for feedback that has no instant, without a table, or
    where instants do not rise.
    """
    if what not in FINAL:
        raise ValueError(f"delayed feedback {what!r}: wanted one of {', '.join(FINAL)}")
    if not outcomes:
        raise ValueError("delayed feedback: wanted outcomes as of one instant at least, found none")
    frames = [pl.DataFrame(pl.from_arrow(table)) for table in outcomes]
    newest = frames[-1]
    instants = [frame["as_of"].max() for frame in frames if len(frame)]
    if any(later <= earlier for earlier, later in pairwise(instants)):  # type: ignore[operator]
        raise ValueError(f"delayed feedback: wanted outcomes as of rising instants, found {instants}")
    age_N, delay_N = _days(newest, "as_of"), _days(newest, FINAL[what])
    horizon_N = _days(newest, "closes_at")
    seen_N = delay_N <= np.minimum(age_N, horizon_N)
    marks = [_landmark(newest, frame, horizon_N) for frame in frames[:-1]]
    zero_NS = np.zeros((len(newest), len(SIGNALS)), np.float32)
    mark_NL = np.stack([np.zeros(len(newest)), *(mark_N for mark_N, _ in marks)], axis=1)
    titles = newest["title_id"].to_list()
    own_NF = _context(newest)
    return Pending(
        own_NF if context_NX is None else np.concatenate([own_NF, context_NX.astype(np.float32)], axis=1),
        np.array([codes.get(title, 0) for title in titles], dtype=np.int64),
        age_N.astype(np.float32),
        np.where(seen_N, np.minimum(delay_N, age_N), np.inf).astype(np.float32),
        _signals(newest),
        mark_NL.astype(np.float32),
        np.stack([zero_NS, *(signals_NS for _, signals_NS in marks)], axis=1),
        np.where(age_N >= horizon_N, seen_N, np.nan).astype(np.float32),
    )


def _landmark(
    newest: pl.DataFrame, earlier: pl.DataFrame, horizon_N: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Ages and signals as of an earlier instant; where there is none the horizon, which no decision reaches waiting."""
    found = newest.select(KEYS).join(earlier.unique(KEYS, keep="first"), on=KEYS, how="left", maintain_order="left")
    there_N = found["as_of"].is_not_null().to_numpy()
    return np.where(there_N, _days(found, "as_of"), horizon_N), _signals(found)


def _days(frame: pl.DataFrame, column: str) -> NDArray[np.float64]:
    """Days from the decision to an instant, inf where there is none."""
    micros = (frame[column] - frame["at"]).dt.total_microseconds().cast(pl.Float64)
    return np.asarray(np.maximum(micros.fill_null(math.inf).to_numpy() / 86_400e6, 0.0))


def _signals(frame: pl.DataFrame) -> NDArray[np.float32]:
    """What is seen so far, in the order of SIGNALS; 0 of rows that are not there: float32[N, S]."""
    age_N = np.where(frame["as_of"].is_null().to_numpy(), 0.0, _days(frame, "as_of"))

    def since(column: str) -> NDArray[np.float64]:
        at_N = _days(frame, column)
        return np.asarray(np.log1p(np.maximum(age_N - np.where(np.isfinite(at_N), at_N, age_N), 0.0)))

    def happened(column: str) -> NDArray[np.float64]:
        return np.isfinite(_days(frame, column)).astype(np.float64)

    columns = (
        *(happened(name) for name in ("clicked_at", "listed_at", "played_at", "thumbed_up_at", "thumbed_down_at")),
        frame["played_fraction"].fill_null(0.0).to_numpy(),
        np.log1p(frame["num_plays"].fill_null(0).to_numpy()),
        since(_SINCE_CLICK),
        since(_SINCE_PLAY),
    )
    return np.stack(columns, axis=1).astype(np.float32)


def _context(frame: pl.DataFrame) -> NDArray[np.float32]:
    """What is known when it is decided, in the order of CONTEXT: float32[N, F]."""
    at = frame["at"]
    turn_N = 2.0 * np.pi * (at.dt.hour().to_numpy() + at.dt.minute().to_numpy() / 60.0) / 24.0
    columns = (
        np.log1p(frame["position"].fill_null(0).to_numpy()),
        frame["member_id"].is_null().to_numpy(),
        at.dt.weekday().to_numpy() >= 6,
        np.sin(turn_N),
        np.cos(turn_N),
    )
    return np.stack([np.asarray(column, dtype=np.float32) for column in columns], axis=1)
