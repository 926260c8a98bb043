"""The second pass: of one bucket's events make sessions, interactions and impressions.

Shapes: E events sorted by (actor, at, event_id), T of them engagement, R interactions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.columns import EVENTS, IMPRESSIONS, INTERACTIONS
from foretaste.contracts.events import ACTION_CODES, ACTIONS, ENGAGEMENT, ENTRIES, Action
from foretaste.contracts.sessions import SessionRule, entries, session_starts, ways
from foretaste.contracts.splits import SPLITS, TRAIN, split_last


class CollapsedRuns(Protocol):
    """What `collapse` gives: R runs of neighbours of one session and one title."""

    @property
    def first_R(self) -> NDArray[np.int64]: ...
    @property
    def num_events_R(self) -> NDArray[np.int64]: ...
    @property
    def action_R(self) -> NDArray[np.int32]: ...
    @property
    def dwell_R(self) -> NDArray[np.float64]: ...
    @property
    def fraction_R(self) -> NDArray[np.float64]: ...


Collapse = Callable[
    [NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]], CollapsedRuns
]
"""`signals.interactions.runs`, as the request path calls it: (session_T, title_T, action_T, dwell_T, fraction_T)."""


@dataclass(frozen=True, slots=True)
class Sequenced:
    """One bucket, with the counts that must agree with what went in."""

    acts: pa.Table  # EVENTS: what actors did, each event once, as it came; what was shown to them is in impressions
    interactions: pa.Table  # INTERACTIONS; split_time is train throughout until the cuts are known
    impressions: pa.Table  # IMPRESSIONS
    counts: dict[str, int]


def sequence(events: pl.DataFrame, series_of: pl.DataFrame, *, rule: SessionRule, collapse: Collapse) -> Sequenced:
    """Drop repeated deliveries, sort, divide into sessions, roll episodes up, and collapse.

    `events` are STAGED rows of whole actors in any order; `series_of` has columns title_id, series_id. Of an
    actor's rows with one event_id the earliest is kept (event_id determines the row, so they differ in nothing).
    """
    num_given = events.height
    distinct = _distinct(events)
    sessions = _sessions(distinct, rule)
    rolled = (
        _entries(sessions)
        .join(series_of, on="title_id", how="left", maintain_order="left")
        .with_columns(title_id=pl.coalesce("series_id", "title_id"))
        .drop("series_id")
    )
    engaged = rolled.filter(pl.col("action").is_in(sorted(ENGAGEMENT)))
    shown = rolled.filter(pl.col("action") == Action.IMPRESSION.value)
    interactions = _interactions(engaged, collapse)
    counts = {
        "duplicates": num_given - sessions.height,
        "engagement_events": engaged.height,
        "impression_events": shown.height,
        "other_events": sessions.height - engaged.height - shown.height,
        "events_in_runs": int(interactions["num_events"].sum()),
        "actors": sessions["actor_id"].n_unique(),
        "sessions": sessions["session_number"].n_unique(),
        "interactions": interactions.height,
        "actors_with_interactions": interactions["actor_id"].n_unique(),
        "repeated_interactions": _num_repeats(interactions),
    }
    counts |= {f"action:{action}": n for action, n in engaged["action"].value_counts().iter_rows()}
    acts = distinct.filter(pl.col("action") != Action.IMPRESSION.value)
    return Sequenced(_table(acts, EVENTS), _table(interactions, INTERACTIONS), _table(shown, IMPRESSIONS), counts)


def _distinct(events: pl.DataFrame) -> pl.DataFrame:
    ordered = events.sort("actor_id", "at", "event_id", maintain_order=True)
    return ordered.unique(["actor_id", "event_id"], keep="first", maintain_order=True)


def _sessions(events: pl.DataFrame, rule: SessionRule) -> pl.DataFrame:
    """Add session_number (in the bucket), session_index (of the actor) and the session_id that is kept."""
    actor_E = events["actor_id"].rle_id().to_numpy().astype(np.int64)
    native = events["session_id"].to_arrow().dictionary_encode().indices.fill_null(-1)
    at_E = events["at"].to_physical().to_numpy()
    number_E = np.cumsum(session_starts(actor_E, at_E, native.to_numpy().astype(np.int64), rule=rule))
    numbered = events.with_columns(session_number=pl.Series(number_E, dtype=pl.Int64))
    index = pl.col("session_number") - pl.col("session_number").first().over("actor_id")
    own = pl.format("{}#{}", "actor_id", "session_index")
    named = pl.col("session_id").drop_nulls().first().over("session_number") if rule.native else pl.lit(None, pl.String)
    return numbered.with_columns(session_index=index.cast(pl.Int32)).with_columns(session_id=pl.coalesce(named, own))


def _entries(sessions: pl.DataFrame) -> pl.DataFrame:
    """Say of every event how the member came there, and by which query."""
    action_E = sessions["action"].replace_strict(ACTION_CODES, return_dtype=pl.Int32).to_numpy()
    way_E = ways(sessions["session_number"].to_numpy(), action_E)
    named = pl.Series(ENTRIES)[entries(action_E, way_E).astype(np.int64)]
    asked = sessions["query"].gather(np.where(way_E >= 0, way_E, 0)) if sessions.height else sessions["query"]
    by_search = pl.Series("by_search", named == "search")
    return sessions.with_columns(
        entry=named, query=pl.select(pl.when(by_search).then(asked).otherwise(None)).to_series()
    )


def _interactions(engaged: pl.DataFrame, collapse: Collapse) -> pl.DataFrame:
    action_T = engaged["action"].replace_strict(ACTION_CODES, return_dtype=pl.Int32)
    titles_T = engaged["title_id"].to_arrow().dictionary_encode().indices.to_numpy().astype(np.int32)
    runs = collapse(
        engaged["session_number"].to_numpy(),
        titles_T,
        action_T.to_numpy(),
        engaged["dwell_seconds"].fill_null(float("nan")).to_numpy(),
        engaged["played_fraction"].fill_null(float("nan")).to_numpy(),
    )
    first = engaged.select("actor_id", "session_id", "session_index", "at", "title_id", "entry", "query")[runs.first_R]
    actor_R = first["actor_id"].rle_id().to_numpy().astype(np.int64)
    return first.with_columns(
        position=pl.int_range(pl.len(), dtype=pl.Int32).over("actor_id"),
        action=pl.Series([ACTIONS[code] for code in runs.action_R.tolist()], dtype=pl.String),
        dwell_seconds=pl.Series(runs.dwell_R, dtype=pl.Float64),
        played_fraction=pl.Series(runs.fraction_R, dtype=pl.Float64).fill_nan(None),
        num_events=pl.Series(runs.num_events_R, dtype=pl.Int32),
        split_time=pl.lit(TRAIN),
        split_last=pl.Series(SPLITS[split_last(actor_R)], dtype=pl.String),
    )


def _num_repeats(interactions: pl.DataFrame) -> int:
    """Interactions with a title that the actor has interacted with before."""
    return interactions.height - interactions.select("actor_id", "title_id").n_unique()


def _table(rows: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    return rows.select(schema.names).to_arrow().cast(schema)
