"""The slow view of members, day by day: what was known of each member at each midnight.

A row is written for a midnight on which a value may have changed, which makes the newest row before any instant
exact: an interaction enters on the midnight after it and leaves a window of w days on the w-th midnight after that;
affinities are shares, in which a decay relative to any instant cancels, so they stand still between interactions.

Shapes: T interactions sorted by (member, time), S snapshot rows, G genres, K kinds (or either).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.columns import MEMBER_SNAPSHOTS
from foretaste.contracts.events import GUEST, Action
from foretaste.signals.decay import growth, ticks
from foretaste.signals.midnights import DAY_US, HALF_YEAR, MONTH, WEEK, Days, Grid
from foretaste.signals.snapshot_config import SnapshotConfig

COLUMNS = ["actor_id", "session_index", "at", "title_id", "action"]
"""Columns of INTERACTIONS that are read."""
WINDOWS = (WEEK, MONTH, HALF_YEAR)
"""Days before a midnight over which something is counted."""
_ROWS_AT_ONCE = 250_000


def member_snapshots(
    interactions: pa.Table, titles: Catalogue, targets: Sequence[str], grid: Grid, config: SnapshotConfig
) -> pa.Table:
    """Snapshot the members of an INTERACTIONS table, sorted by (actor_id, at); guests have none. MEMBER_SNAPSHOTS.

    An affinity is the share of a genre (kind) in what the member touched: a choice counts 1, another interaction
    `browse_weight`, a thumb down nothing, a title of several genres is divided between them, all halved every
    `half_life_days`. A visit counts on the day of its first interaction. Sums are in double precision, one
    interaction after another. Raises ValueError where an actor's rows do not stand together.
    """
    members = interactions.filter(pc.invert(pc.starts_with(interactions["actor_id"], GUEST)))
    parts = [_snapshots_of(part, titles, targets, grid, config) for part in _whole_actors(members)]
    return pa.concat_tables([MEMBER_SNAPSHOTS.empty_table(), *parts])


def _whole_actors(rows: pa.Table) -> Iterator[pa.Table]:
    """Divide a table between actors, so that what is wide is held for some rows at a time only."""
    coded = rows["actor_id"].combine_chunks().dictionary_encode()
    code_T = np.asarray(coded.indices, dtype=np.int64)
    if (np.diff(code_T) < 0).any():
        raise ValueError("interactions: the rows of an actor do not stand together; sort by (actor_id, position)")
    starts = np.searchsorted(code_T, np.arange(len(coded.dictionary)))
    first = 0
    while first < rows.num_rows:
        later = starts[starts > first + _ROWS_AT_ONCE]
        end = int(later[0]) if len(later) else rows.num_rows
        yield rows.slice(first, end - first)
        first = end


def _snapshots_of(
    rows: pa.Table, titles: Catalogue, targets: Sequence[str], grid: Grid, config: SnapshotConfig
) -> pa.Table:
    coded = rows["actor_id"].combine_chunks().dictionary_encode()
    member_T = np.asarray(coded.indices, dtype=np.int64)
    at_T = np.asarray(rows["at"].cast(pa.int64()))
    play_T = np.asarray(pc.is_in(rows["action"], value_set=pa.array(targets, pa.string())), dtype=np.bool_)
    session_T = np.asarray(rows["session_index"], dtype=np.int64)
    new_T = np.diff(member_T, prepend=-1) != 0
    visit_T = new_T | (np.diff(session_T, prepend=-1) != 0)
    days = Days.of(member_T, at_T // DAY_US)
    key_S = days.changes(grid, {WEEK: play_T, MONTH: play_T | visit_T, HALF_YEAR: play_T})
    start_S, stop_S, midnight_S = days.first(key_S), days.before(key_S), days.midnight(key_S)
    starts = np.flatnonzero(new_T)  # of each member
    mass_T = _mass(rows["action"], play_T, at_T, starts, config)
    named = rows["title_id"].combine_chunks().dictionary_encode()
    title_T = titles.codes(named.dictionary)[np.asarray(named.indices)]
    return pa.Table.from_arrays(
        [
            coded.dictionary.take(pa.array(days.entity(key_S))),
            pa.array(midnight_S * DAY_US).cast(MEMBER_SNAPSHOTS.field("at").type),
            pa.array(midnight_S * (DAY_US // 1000)),
            _shares(mass_T, genre_parts(titles)[title_T], starts, stop_S),
            _shares(mass_T, kind_parts(titles)[title_T], starts, stop_S),
            pa.array(days.window(key_S, play_T, WEEK)),
            pa.array(days.window(key_S, play_T, MONTH)),
            pa.array(days.window(key_S, play_T, HALF_YEAR)),
            pa.array(days.window(key_S, visit_T, MONTH)),
            pa.array(((at_T[stop_S - 1] - at_T[start_S]) / DAY_US).astype(np.float32)),
        ],
        schema=MEMBER_SNAPSHOTS,
    )


def genre_parts(titles: Catalogue) -> NDArray[np.float64]:
    """Each title's weight of 1 divided between its genres: float64[N1, G]."""
    marks_N1G = titles.genres_N1G.astype(np.float64)
    parts_N1G: NDArray[np.float64] = marks_N1G / np.maximum(marks_N1G.sum(axis=1, keepdims=True), 1.0)
    return parts_N1G


def kind_parts(titles: Catalogue) -> NDArray[np.float64]:
    """Each title's weight of 1 given to its kind: float64[N1, K]."""
    return np.asarray(titles.kind_N1[:, None] == np.arange(len(titles.kinds)), dtype=np.float64)


def _mass(
    actions: pa.ChunkedArray,
    play_T: NDArray[np.bool_],
    at_T: NDArray[np.int64],
    starts: NDArray[np.int64],
    config: SnapshotConfig,
) -> NDArray[np.float64]:
    weight_T = np.where(play_T, 1.0, config.browse_weight)
    weight_T[np.asarray(pc.equal(actions, Action.THUMB_DOWN.value), dtype=np.bool_)] = 0.0
    tick_T = ticks(at_T, half_life_days=config.half_life_days)
    first_T = np.repeat(tick_T[starts], np.diff(np.append(starts, len(at_T))))
    mass_T: NDArray[np.float64] = weight_T * growth(tick_T, first_T)
    return mass_T


def _shares(
    mass_T: NDArray[np.float64], parts_TG: NDArray[Any], starts: NDArray[np.int64], stop_S: NDArray[np.int64]
) -> pa.Array:
    """Share of each column in the mass of a member's interactions before `stop_S`; 0 throughout without mass."""
    sums_TG = mass_T[:, None] * parts_TG
    for start, end in zip(starts, np.append(starts[1:], len(mass_T)), strict=True):
        np.cumsum(sums_TG[start:end], axis=0, out=sums_TG[start:end])
    sums_SG = sums_TG[stop_S - 1]
    total_S = np.zeros(len(sums_SG))
    for column in range(sums_SG.shape[1]):  # one after another: a sum over an axis may be taken in pairs
        total_S += sums_SG[:, column]
    shares_SG = (sums_SG / np.where(total_S > 0, total_S, 1.0)[:, None]).astype(np.float32)
    offsets = np.arange(len(shares_SG) + 1, dtype=np.int32) * shares_SG.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(shares_SG.reshape(-1)))
