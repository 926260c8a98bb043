"""Neighbours of one session and one title are one interaction, counted by hand and against a readable twin."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.contracts.events import ACTION_CODES
from foretaste.signals.interactions import runs

EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2),  # added to the session
        st.integers(0, 3),  # title
        st.integers(6, 15),  # action
        st.one_of(st.just(math.nan), st.integers(0, 1000).map(float)),  # dwell
        st.one_of(st.just(math.nan), st.floats(0, 1)),  # fraction
    ),
    max_size=40,
)


def collapse(events: list[tuple[int, int, int, float, float]]) -> Any:
    steps = np.array([event[0] == 2 for event in events], dtype=np.int64)
    columns = list(zip(*events, strict=True)) if events else [()] * 5
    return np.cumsum(steps), runs(
        np.cumsum(steps),
        np.array(columns[1], dtype=np.int32),
        np.array(columns[2], dtype=np.int32),
        np.array(columns[3], dtype=np.float64),
        np.array(columns[4], dtype=np.float64),
    )


def test_a_look_a_play_and_a_stop_of_one_title_are_one_interaction() -> None:
    detail, play, stop = (ACTION_CODES[a] for a in ("detail", "play", "stop"))
    _, made = collapse(
        [
            (0, 1, detail, 10.0, math.nan),
            (0, 1, play, math.nan, math.nan),
            (0, 1, stop, 60.0, 0.25),
            (0, 2, detail, math.nan, math.nan),
            (0, 1, detail, 5.0, math.nan),
            (2, 1, detail, 7.0, math.nan),
        ]
    )
    assert made.first_R.tolist() == [0, 3, 4, 5]
    assert made.num_events_R.tolist() == [3, 1, 1, 1]
    assert made.action_R.tolist() == [play, detail, detail, detail]
    assert made.dwell_R.tolist() == [70.0, 0.0, 5.0, 7.0]
    assert made.fraction_R[0] == 0.25
    assert np.isnan(made.fraction_R[1:]).all()


@settings(deadline=None)
@given(EVENTS)
def test_runs_equal_the_twin_that_walks_the_events(events: list[tuple[int, int, int, float, float]]) -> None:
    sessions, made = collapse(events)
    rows = list(enumerate(zip(sessions.tolist(), events, strict=True)))
    groups = [list(group) for _, group in itertools.groupby(rows, key=lambda row: (row[1][0], row[1][1][1]))]
    assert made.first_R.tolist() == [group[0][0] for group in groups]
    assert made.num_events_R.tolist() == [len(group) for group in groups]
    for number, group in enumerate(groups):
        dwells = [event[3] for _, (_, event) in group if not math.isnan(event[3])]
        fractions = [event[4] for _, (_, event) in group if not math.isnan(event[4])]
        assert made.action_R[number] == max(event[2] for _, (_, event) in group)
        assert made.dwell_R[number] == sum(dwells)
        assert made.fraction_R[number] == max(fractions) if fractions else math.isnan(made.fraction_R[number])
