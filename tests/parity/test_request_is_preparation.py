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
from foretaste.contracts.events import actor_id
from foretaste.contracts.histories import Histories
from foretaste.contracts.sessions import SessionRule
from foretaste.sessions.buckets import STAGED
from foretaste.sessions.label import action_labels, recency_labels
from foretaste.sessions.sequence import sequence
from foretaste.signals.candidates import NEVER, action_classes, recency_classes
from foretaste.signals.histories import pack
from foretaste.signals.interactions import runs
from foretaste.signals.request import visible_history
from foretaste.testing.builders import START, interactions_table, random_events, random_interactions, titles_table

DAY_US = 86_400_000_000
START_US = int(START.timestamp()) * 1_000_000
TITLES = titles_table(
    [
        {"title_id": "a", "kind": "show", "released_at": -3.0},
        {"title_id": "b", "released_at": -40.0},
        {"title_id": "c", "released_at": 2.5},
        {"title_id": "d"},
        {"title_id": "a1", "kind": "episode", "series_id": "a"},
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


def prepared(events: list[dict[str, Any]], rule: SessionRule) -> dict[str, Histories]:
    """What preparation and packing make of all actors' events."""
    rows = [row | {"actor_id": actor_id(row["member_id"], row["session_id"])} for row in events]
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
        found = visible_history(stored, asof=asof, catalogue=KNOWN, rule=rule)
        if actor not in wanted:
            assert found.lengths_B.tolist() == [0]
            continue
        for name in Histories.__slots__:
            assert getattr(found, name).tobytes() == getattr(wanted[actor], name).tobytes(), name


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
LOGS = [random_interactions(TITLES, actors=6, days=30, per_actor=20, seed=seed) for seed in range(4)]


@pytest.mark.parametrize("table", [*LOGS, AT_EDGES])
def test_candidates_are_of_the_classes_that_choices_are_labelled_with(table: pa.Table) -> None:
    packed, _ = pack(table, KNOWN)
    actor_T = np.repeat(np.arange(len(packed)), packed.lengths_B)
    last: dict[tuple[int, int], int] = {}
    last_T = []
    for actor, title, at in zip(actor_T.tolist(), packed.title_T.tolist(), packed.at_T.tolist(), strict=True):
        last_T.append(last.get((actor, title), NEVER))
        last[actor, title] = at
    classes_T1 = action_classes(np.array(last_T)[:, None], packed.at_T)
    assert classes_T1[:, 0].tolist() == action_labels(packed).tolist()
    released_T = KNOWN.released_N1[packed.title_T]
    known_T = np.isin(packed.title_T, [1, 2, 3])
    age_T = np.where(known_T, packed.at_T - np.where(known_T, released_T, 0), 0)
    assert recency_classes(age_T, known_T).tolist() == recency_labels(packed, KNOWN).tolist()
