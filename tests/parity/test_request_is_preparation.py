"""A request sees in the session log what preparation makes of the same events."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.columns import EVENTS
from foretaste.contracts.events import actor_id
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import ACTION_CLASSES, LabelConfig
from foretaste.contracts.sessions import SessionRule
from foretaste.sessions.buckets import STAGED
from foretaste.sessions.label import intent_labels
from foretaste.sessions.read import read_table
from foretaste.sessions.rules import Titles
from foretaste.sessions.sequence import sequence
from foretaste.sessions.validate import check_events
from foretaste.signals.acts import acts_of_one
from foretaste.signals.candidates import CANDIDATE_COLUMNS, candidate_features
from foretaste.signals.histories import pack
from foretaste.signals.interactions import runs
from foretaste.signals.views import MemberView, TitleView
from foretaste.testing.builders import START, interactions_table, random_events, random_interactions, titles_table

DAY_US = 86_400_000_000
START_US = int(START.timestamp()) * 1_000_000
TITLES = titles_table(
    [
        {"title_id": "a", "kind": "show", "released_at": -3.0},
        {"title_id": "b", "released_at": -40.0},
        {"title_id": "c", "released_at": 1.2},
        {"title_id": "d"},
        {"title_id": "a1", "kind": "episode", "series_id": "a", "released_at": 0.7},
        {"title_id": "a2", "kind": "episode", "series_id": "a"},
    ]
)
KNOWN = catalogue(TITLES)
LOGGED = titles_table([{"title_id": one} for one in ("a", "b", "c", "d", "a1", "a2", "?", "??")])
RULES = (SessionRule(), SessionRule(native=False), SessionRule(gap_minutes=4))


def log(seed: int) -> list[dict[str, Any]]:
    """The events of a few actors by dice, some in native sessions, some delivered twice."""
    dice = np.random.default_rng(seed)
    rows = random_events(LOGGED, members=3, guests=2, per_member=25, days=2, seed=seed).to_pylist()
    for number, row in enumerate(rows):
        row["at"] = (row["at"] - START).days * DAY_US + (row["at"] - START).seconds * 1_000_000 + START_US
        if row["member_id"] is not None and dice.uniform() < 0.5:
            row["session_id"] = f"n{number // 6}"
    again = [rows[n] for n in np.flatnonzero(dice.uniform(size=len(rows)) < 0.1)]
    return [dict(row) for n in [dice.permutation(len(rows) + len(again))] for row in np.array(rows + again)[n]]


def allowed(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events that preparation does not set aside."""
    now = START + timedelta(days=400)
    read = read_table(pa.Table.from_pylist(events, schema=EVENTS), EVENTS, file="log")
    bad_N = check_events(read, now=now, titles=Titles(TITLES)).bad_N
    return [row for row, bad in zip(events, bad_N.tolist(), strict=True) if not bad]


def prepared(events: list[dict[str, Any]], rule: SessionRule) -> dict[str, Histories]:
    """What preparation and packing make of all actors' events."""
    rows = [row | {"actor_id": actor_id(row["member_id"], row["session_id"])} for row in allowed(events)]
    columns = {name: [row.get(name) for row in rows] for name in STAGED.names}
    kinds = {name: pl.from_arrow(STAGED.empty_table())[name].dtype for name in STAGED.names}
    frame = pl.DataFrame({name: pl.Series(columns[name]).cast(kinds[name]) for name in STAGED.names})
    series = pl.DataFrame(list(KNOWN.series_of.items()), schema=["title_id", "series_id"], orient="row")
    packed, actors = pack(sequence(frame, series, rule=rule, collapse=runs).interactions, KNOWN)
    return {actor: packed.rows(np.array([number])) for number, actor in enumerate(actors)}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(RULES), st.floats(0, 2))
def test_the_history_of_a_request_is_that_of_preparation(seed: int, rule: SessionRule, days: float) -> None:
    events = log(seed)
    asof = START_US + int(days * DAY_US)
    before = [row for row in events if row["at"] < asof]
    wanted = prepared(before, rule) if before else {}
    for actor in {actor_id(row["member_id"], row["session_id"]) for row in events}:
        mine = [row for row in events if actor_id(row["member_id"], row["session_id"]) == actor]
        stored = [{name: value for name, value in row.items() if value is not None} for row in mine]
        found = acts_of_one(stored, asof=asof, catalogue=KNOWN, rule=rule).histories()
        if actor not in wanted:
            assert found.lengths_B.tolist() == [0]
            continue
        for name in Histories.__slots__:
            assert getattr(found, name).tobytes() == getattr(wanted[actor], name).tobytes(), name


def test_the_log_of_this_proof_has_what_preparation_sets_aside() -> None:
    events = log(0)
    kept = allowed(events)
    assert {row["title_id"] for row in events} > {row["title_id"] for row in kept} >= {"a", "a1", "c"}
    assert min(row["at"] for row in kept if row["title_id"] == "a1") >= START_US + round(0.7 * DAY_US)
    assert any(row["title_id"] == "a1" and row not in kept for row in events)


MOMENT = timedelta(microseconds=1)
EDGES = [
    START + timedelta(days=days) + off for days in (4, 11, 18, 27, 362) for off in (-MOMENT, MOMENT - MOMENT, MOMENT)
]
AT_EDGES = interactions_table(
    [("m", at, "a") for at in EDGES]
    + [("n", at, "b") for at in EDGES[::3]]
    + [("o", START + timedelta(days=7 * week), "c") for week in range(4)]
    + [("p", START + timedelta(days=7 * week) + week * MOMENT, "d") for week in range(4)]
)
LABELS = LabelConfig()
LOGS = [random_interactions(TITLES, actors=6, days=30, per_actor=20, seed=seed) for seed in range(4)]


@pytest.mark.parametrize("table", [*LOGS, AT_EDGES])
def test_candidates_match_the_class_that_choosing_them_is_labelled_with(table: pa.Table) -> None:
    packed, _ = pack(table, KNOWN)
    labels = intent_labels(packed, KNOWN, LABELS)
    asked = np.flatnonzero((labels["action"] >= 0) & (labels["action"] < ACTION_CLASSES.index("look")))
    begin_T = np.repeat(packed.offsets_B1[:-1], packed.lengths_B)
    size = len(asked)
    sure = {
        name: np.eye(len(of), dtype=np.float32)[labels[name][asked]]
        for name, of in (("action", ACTION_CLASSES), ("recency", LABELS.recency_classes))
    }
    found = candidate_features(
        packed.take(begin_T[asked], asked),
        packed.at_T[asked],
        packed.title_T[asked][:, None],
        np.zeros((size, len(KNOWN)), dtype=np.float32),
        sure,
        KNOWN,
        MemberView.absent(size, num_genres=len(KNOWN.genres), num_kinds=len(KNOWN.kinds)),
        TitleView.absent(KNOWN),
        labels=LABELS,
    )[:, 0]
    known = labels["recency"][asked] >= 0
    assert size > 10
    assert (found[:, CANDIDATE_COLUMNS.index("action_match")] == 1).all()
    assert (found[known, CANDIDATE_COLUMNS.index("recency_match")] == 1).all()
