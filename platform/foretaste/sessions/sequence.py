"""Of one bucket's events make sessions, interactions and impressions.

Sessions are made of what actors do; what is shown to them (contracts.events.PASSIVE) neither opens, extends nor ends
one. An impression is of its native session, else of the session of the next act within the gap, else of the one
before within the gap, else it has a name of its own.

Shapes: E events sorted by (actor, at, event_id), A acts among them, T of those engagement, R interactions, N actors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.columns import AT, EVENTS, IMPRESSIONS, INTERACTIONS
from foretaste.contracts.events import ACTION_CODES, ACTIONS, ENGAGEMENT, ENTRIES, PASSIVE
from foretaste.contracts.sessions import SessionRule, entries, session_starts, ways

ACTOR = "actor_id"
PROPENSITY = r'"propensity"\s*:\s*([0-9][0-9.eE+-]*)'
"""In the properties of an impression; stored as a number, and written so when it is prepared again."""
LONG_AGO = np.iinfo(np.int64).min // 4


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

STORED_ACTS = pa.schema([pa.field(ACTOR, pa.string(), nullable=False), *EVENTS])
STORED_INTERACTIONS = pa.schema([field for field in INTERACTIONS if not field.name.startswith("split_")])
STORED_IMPRESSIONS = pa.schema(
    [
        *IMPRESSIONS,
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("member_id", pa.string()),
        pa.field("native_session_id", pa.string()),
        pa.field("shown_title_id", pa.string()),  # before it was rolled up to its series
    ]
)
TAILS = pa.schema(
    [
        pa.field(ACTOR, pa.string(), nullable=False),
        pa.field("sessions", pa.int32(), nullable=False),
        pa.field("interactions", pa.int32(), nullable=False),
        pa.field("newest_at", AT),  # of the newest act, with the two that follow; null without an act
        pa.field("newest_event_id", pa.string()),
        pa.field("newest_native", pa.string()),
        pa.field("session_id", pa.string()),  # of the last session
        pa.field("shown_at", AT),  # of the newest impression without a native session
    ]
)
"""What is remembered of an actor, so that events after the last session can be added without reading those before."""


@dataclass(frozen=True, slots=True)
class Sequenced:
    """Some whole actors, or what comes after what is stored of them."""

    acts: pa.Table  # STORED_ACTS: what actors did, each event once, as it came
    interactions: pa.Table  # STORED_INTERACTIONS
    impressions: pa.Table  # STORED_IMPRESSIONS
    tails: pl.DataFrame  # TAILS of the actors given
    counts: dict[str, int]


def distinct(events: pl.DataFrame) -> pl.DataFrame:
    """Sort by (actor, at, event_id); of an actor's rows with one event_id keep the earliest, as they came."""
    return events[_distinct_order(events)]


def _distinct_order(events: pl.DataFrame) -> NDArray[np.int64]:
    if not events.height:
        return np.zeros(0, dtype=np.int64)
    order = _order(events)
    return order[_firsts(events, order)]


def _order(events: pl.DataFrame) -> NDArray[np.int64]:
    """Places of the rows in order of (actor, at, event_id, as they came)."""
    coded = events[ACTOR].to_arrow().dictionary_encode()
    rank = pl.Series(pl.from_arrow(coded.dictionary)).rank("ordinal").to_numpy()
    actor_E, at_E = rank[coded.indices.to_numpy()], events["at"].to_physical().to_numpy()
    order = np.lexsort((at_E, actor_E))
    same = (np.diff(actor_E[order]) == 0) & (np.diff(at_E[order]) == 0)
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    if len(tied):  # few rows need their ids compared
        group = np.cumsum(np.append(True, ~same))[tied]
        rows = pl.DataFrame({"group": group, "event_id": events["event_id"].gather(order[tied]), "place": order[tied]})
        order[tied] = rows.sort("group", "event_id", maintain_order=True)["place"].to_numpy()
    return order


def _firsts(events: pl.DataFrame, order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows, in order, are the first of their actor with their event_id."""
    first = np.ones(len(order), dtype=np.bool_)
    again = events["event_id"].is_duplicated().to_numpy()[order]
    if again.any():
        rows = events.select(ACTOR, "event_id")[order[again]]
        first[again] = rows.select(pl.struct(ACTOR, "event_id").is_first_distinct()).to_series().to_numpy()
    return first


def sequence(
    events: pl.DataFrame,
    series_of: pl.DataFrame,
    *,
    rule: SessionRule,
    collapse: Collapse,
    before: pl.DataFrame | None = None,
) -> Sequenced:
    """Divide into sessions, roll episodes up, and collapse.

    `events` are STAGED rows in any order; `series_of` has columns title_id, series_id. `before` are the
    TAILS of actors whose events go on after what is stored: their numbers count on from there.
    """
    num_given = events.height
    given, order = events, _distinct_order(events)
    events = given.select(ACTOR, "at", "action", "session_id")[order]
    actor_E = events[ACTOR].rle_id().to_numpy().astype(np.int64)
    first_N = np.flatnonzero(np.diff(actor_E, prepend=-1)) if len(actor_E) else actor_E
    base = _base(events[ACTOR].gather(first_N), before)
    passive_E = events["action"].is_in(sorted(PASSIVE)).to_numpy()
    acts = given[order[~passive_E]]
    shown = given.select(_SHOWN)[order[passive_E]]
    del given, order
    actor_A = actor_E[~passive_E]
    made = _sessions(acts, actor_A, base, rule)
    rolled = _rolled(acts["title_id"], series_of)
    interactions = _interactions(acts, rolled, actor_A, made, base, collapse)
    impressions = _impressions(events, shown, actor_E, passive_E, made, base, series_of, rule)
    by_action = acts["action"].value_counts().iter_rows()
    actions = {f"action:{action}": n for action, n in by_action if action in ENGAGEMENT}
    counts = {
        "duplicates": num_given - events.height,
        "engagement_events": sum(actions.values()),
        "impression_events": impressions.height,
        "other_events": acts.height - sum(actions.values()),
        "events_in_runs": int(interactions["num_events"].sum()),
    }
    return Sequenced(
        acts.select(STORED_ACTS.names).to_arrow().cast(STORED_ACTS),
        interactions.select(STORED_INTERACTIONS.names).to_arrow().cast(STORED_INTERACTIONS),
        impressions.select(STORED_IMPRESSIONS.names).to_arrow().cast(STORED_IMPRESSIONS),
        _tails(events, actor_E, passive_E, acts, actor_A, made, interactions, base, rule),
        counts | actions,
    )


@dataclass(frozen=True, slots=True)
class _Base:
    """Where the numbers of N actors begin, and their newest stored act."""

    actors: pl.Series
    frame: pl.DataFrame  # N rows of TAILS, null where nothing is stored
    sessions_N: NDArray[np.int64]
    interactions_N: NDArray[np.int64]
    newest_N: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Made:
    """The S sessions of A acts."""

    number_A: NDArray[np.int64]  # 0..S
    index_A: NDArray[np.int64]  # of the actor
    names_S: pl.Series
    at_A: NDArray[np.int64]


def _base(actors: pl.Series, before: pl.DataFrame | None) -> _Base:
    known = pl.DataFrame(pl.from_arrow(TAILS.empty_table())) if before is None else before
    frame = pl.DataFrame({ACTOR: actors}).join(known, on=ACTOR, how="left", maintain_order="left")
    return _Base(
        actors,
        frame,
        frame["sessions"].fill_null(0).to_numpy().astype(np.int64),
        frame["interactions"].fill_null(0).to_numpy().astype(np.int64),
        frame["newest_at"].to_physical().fill_null(LONG_AGO).to_numpy(),
    )


def _codes(texts: pl.Series) -> NDArray[np.int64]:
    """A code for each text, -1 for null."""
    codes = texts.to_arrow().dictionary_encode().indices.fill_null(-1)
    return np.asarray(codes.to_numpy(), dtype=np.int64)


def _sessions(acts: pl.DataFrame, actor_A: NDArray[np.int64], base: _Base, rule: SessionRule) -> _Made:
    at_A = acts["at"].to_physical().to_numpy()
    native_A = _codes(acts["session_id"])
    starts_A = session_starts(actor_A, at_A, native_A, rule=rule)
    number_A = np.cumsum(starts_A) - 1
    first_S = np.flatnonzero(starts_A)
    actor_S = actor_A[first_S]
    nth_S = np.arange(len(first_S)) - _first_of(actor_S)
    index_S = nth_S + base.sessions_N[actor_S]
    named = pl.DataFrame({ACTOR: base.actors.gather(actor_S), "index": index_S}).select(
        pl.format("{}#{}", ACTOR, "index")
    )
    names_S = named.to_series()
    if rule.native and len(first_S) and (native_A >= 0).any():
        none = len(at_A)
        where_S = np.minimum.reduceat(np.where(native_A >= 0, np.arange(none), none), first_S)
        native_S = acts["session_id"].gather(np.minimum(where_S, none - 1))
        names_S = pl.select(pl.when(pl.Series(where_S < none)).then(native_S).otherwise(names_S)).to_series()
    return _Made(number_A, index_S[number_A] if len(first_S) else number_A, names_S, at_A)


def _first_of(actor_X: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row the place of the first row of its actor; rows of an actor stand together."""
    starts = np.flatnonzero(np.diff(actor_X, prepend=-1)) if len(actor_X) else actor_X
    return np.repeat(starts, np.diff(np.append(starts, len(actor_X))))


def _rolled(titles: pl.Series, series_of: pl.DataFrame) -> pl.Series:
    """Titles, episodes as their series."""
    if not series_of.height:
        return titles
    frame = pl.DataFrame({"title_id": titles}).join(series_of, on="title_id", how="left", maintain_order="left")
    return frame.select(pl.coalesce("series_id", "title_id")).to_series()


_SHOWN = [ACTOR, "event_id", "member_id", "session_id", "at", "title_id", "surface", "position", "decision_id",
          "properties"]  # fmt: skip
_ENGAGED = np.array([action in ENGAGEMENT for action in ACTIONS])


def _interactions(
    acts: pl.DataFrame,
    rolled: pl.Series,
    actor_A: NDArray[np.int64],
    made: _Made,
    base: _Base,
    collapse: Collapse,
) -> pl.DataFrame:
    action_A = acts["action"].replace_strict(ACTION_CODES, return_dtype=pl.Int32).to_numpy()
    way_A = ways(made.number_A, action_A)
    place_T = np.flatnonzero(_ENGAGED[action_A])
    runs = collapse(
        made.number_A[place_T],
        _codes(rolled)[place_T].astype(np.int32),
        action_A[place_T],
        acts["dwell_seconds"].fill_null(float("nan")).to_numpy()[place_T],
        acts["played_fraction"].fill_null(float("nan")).to_numpy()[place_T],
    )
    place_R = place_T[runs.first_R]
    actor_R = actor_A[place_R]
    entry_R = entries(action_A, way_A)[place_R].astype(np.int64)
    asked_R = (
        acts["query"].gather(np.where(way_A[place_R] >= 0, way_A[place_R], 0)) if len(place_R) else acts["query"][:0]
    )
    searched = pl.Series(entry_R == ENTRIES.index("search"))
    position_R = np.arange(len(place_R)) - _first_of(actor_R) + base.interactions_N[actor_R]
    return pl.DataFrame(
        {
            ACTOR: base.actors.gather(actor_R),
            "session_id": made.names_S.gather(made.number_A[place_R]),
            "session_index": made.index_A[place_R].astype(np.int32),
            "position": position_R.astype(np.int32),
            "at": acts["at"].gather(place_R),
            "title_id": rolled.gather(place_R),
            "action": pl.Series(ACTIONS).gather(runs.action_R.astype(np.int64)),
            "dwell_seconds": runs.dwell_R,
            "played_fraction": pl.Series(runs.fraction_R, dtype=pl.Float64).fill_nan(None),
            "num_events": runs.num_events_R.astype(np.int32),
            "entry": pl.Series(ENTRIES).gather(entry_R),
            "query": pl.select(pl.when(searched).then(asked_R).otherwise(None)).to_series().cast(pl.String),
        }
    )


def _impressions(
    events: pl.DataFrame,
    shown: pl.DataFrame,
    actor_E: NDArray[np.int64],
    passive_E: NDArray[np.bool_],
    made: _Made,
    base: _Base,
    series_of: pl.DataFrame,
    rule: SessionRule,
) -> pl.DataFrame:
    place_P = np.flatnonzero(passive_E)
    at_E = events["at"].to_physical().to_numpy()
    near_P, stored_P = _nearest(actor_E, at_E, passive_E, place_P, base, rule)
    number_P = np.full(len(place_P), -1, dtype=np.int64)
    by_act = near_P >= 0
    act_E = np.cumsum(~passive_E) - 1
    number_P[by_act] = made.number_A[act_E[near_P[by_act]]]
    own = pl.DataFrame({ACTOR: shown[ACTOR], "at": shown["at"].to_physical()}).select(pl.format("{}@{}", ACTOR, "at"))
    of_act = made.names_S.gather(np.maximum(number_P, 0)) if made.names_S.len() else own.to_series()
    of_stored = base.frame["session_id"].gather(actor_E[place_P])
    native = shown["session_id"]
    name = (
        pl.when(pl.lit(rule.native) & native.is_not_null())
        .then(native)
        .when(pl.Series(by_act))
        .then(of_act)
        .when(pl.Series(stored_P))
        .then(of_stored)
        .otherwise(own.to_series())
    )
    return shown.with_columns(
        pl.Series("session_id", pl.select(name).to_series()),
        propensity(shown["properties"]),
        native.alias("native_session_id"),
        shown["title_id"].alias("shown_title_id"),
        _rolled(shown["title_id"], series_of).alias("title_id"),
    )


def propensity(properties: pl.Series) -> pl.Series:
    """Probability with which titles were shown, of events' JSON; null where it is not said or is none."""
    said = properties.str.extract(PROPENSITY).cast(pl.Float64, strict=False)
    return pl.select(pl.when((said > 0) & (said <= 1)).then(said).alias("propensity")).to_series()


def _nearest(
    actor_E: NDArray[np.int64],
    at_E: NDArray[np.int64],
    passive_E: NDArray[np.bool_],
    place_P: NDArray[np.int64],
    base: _Base,
    rule: SessionRule,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The act whose session each impression is of (place in E, -1 for none), and whether it is of the stored one."""
    if not len(place_P):
        return place_P, np.zeros(0, dtype=np.bool_)
    gap = round(rule.gap_minutes * 60e6)
    place_E, last = np.arange(len(at_E)), len(at_E) - 1
    next_P = np.minimum.accumulate(np.where(passive_E, len(at_E), place_E)[::-1])[::-1][place_P]
    prev_P = np.maximum.accumulate(np.where(passive_E, -1, place_E))[place_P]
    actor_P, at_P = actor_E[place_P], at_E[place_P]

    def reaches(act_P: NDArray[np.int64]) -> NDArray[np.bool_]:
        inside_P = np.clip(act_P, 0, last)
        same = (act_P >= 0) & (act_P <= last) & (actor_E[inside_P] == actor_P)
        return np.asarray(same & (np.abs(at_E[inside_P] - at_P) <= gap))

    own_before_P = (prev_P >= 0) & (actor_E[np.clip(prev_P, 0, last)] == actor_P)
    near_P = np.where(reaches(next_P), next_P, np.where(reaches(prev_P), prev_P, -1))
    stored_P = (near_P < 0) & ~own_before_P & (at_P - base.newest_N[actor_P] <= gap)
    return near_P, stored_P


def _tails(
    events: pl.DataFrame,
    actor_E: NDArray[np.int64],
    passive_E: NDArray[np.bool_],
    acts: pl.DataFrame,
    actor_A: NDArray[np.int64],
    made: _Made,
    interactions: pl.DataFrame,
    base: _Base,
    rule: SessionRule,
) -> pl.DataFrame:
    num = len(base.actors)
    last_A = np.flatnonzero(np.diff(actor_A, append=-1)) if len(actor_A) else actor_A
    new = acts.select(ACTOR, newest_at="at", newest_event_id="event_id", newest_native="session_id")[
        last_A
    ].with_columns(
        session_id=made.names_S.gather(made.number_A[last_A]), sessions=(made.index_A[last_A] + 1).astype(np.int32)
    )
    added = interactions.group_by(ACTOR).len("added")
    loose_E = passive_E & (events["session_id"].is_null().to_numpy() | (not rule.native))
    shown = np.full(num, LONG_AGO, dtype=np.int64)
    at_E = events["at"].to_physical().to_numpy()
    np.maximum.at(shown, actor_E[loose_E], at_E[loose_E])
    shown = np.maximum(shown, base.frame["shown_at"].to_physical().fill_null(LONG_AGO).to_numpy())
    shown_at = pl.Series(shown).cast(pl.Datetime("us", "UTC"))
    frame = base.frame.join(new, on=ACTOR, how="left", suffix="_new", maintain_order="left")
    frame = frame.join(added, on=ACTOR, how="left", maintain_order="left")
    return frame.select(
        ACTOR,
        sessions=pl.coalesce("sessions_new", "sessions", pl.lit(0)).cast(pl.Int32),
        interactions=(pl.col("interactions").fill_null(0) + pl.col("added").fill_null(0)).cast(pl.Int32),
        newest_at=pl.coalesce("newest_at_new", "newest_at"),
        newest_event_id=pl.coalesce("newest_event_id_new", "newest_event_id"),
        newest_native=pl.when(pl.col("newest_at_new").is_null()).then("newest_native").otherwise("newest_native_new"),
        session_id=pl.coalesce("session_id_new", "session_id"),
        shown_at=pl.when(pl.Series(shown > LONG_AGO)).then(shown_at).otherwise(None),
    )
