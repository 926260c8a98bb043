"""Where a session begins, by gap and by native id."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from foretaste.contracts.events import ACTION_CODES, ENTRIES
from foretaste.contracts.sessions import SessionRule, entries, session_starts, ways

MINUTE = 60_000_000


def _starts(rows: list[tuple[int, int, int]], rule: SessionRule) -> list[bool]:
    actor, at, native = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))
    return [bool(s) for s in session_starts(actor, at, native, rule=rule)]


def _twin(rows: list[tuple[int, int, int]], rule: SessionRule) -> list[bool]:
    out = []
    for i, (actor, at, native) in enumerate(rows):
        if i == 0 or rows[i - 1][0] != actor:
            out.append(True)
        elif rule.native and native >= 0 and rows[i - 1][2] >= 0:
            out.append(native != rows[i - 1][2])
        else:
            out.append(at - rows[i - 1][1] > rule.gap_minutes * MINUTE)
    return out


def test_exactly_the_gap_continues_a_session_and_a_microsecond_more_ends_it() -> None:
    rows = [(0, 0, -1), (0, 30 * MINUTE, -1), (0, 60 * MINUTE + 1, -1)]
    assert _starts(rows, SessionRule()) == [True, False, True]


def test_a_native_id_alone_decides_where_both_neighbours_have_one() -> None:
    rows = [(0, 0, 5), (0, 600 * MINUTE, 5), (0, 601 * MINUTE, 6), (0, 602 * MINUTE, -1)]
    assert _starts(rows, SessionRule()) == [True, False, True, False]
    assert _starts(rows, SessionRule(native=False)) == [True, True, False, False]


def test_no_events_have_no_sessions() -> None:
    assert _starts([], SessionRule()) == []


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5000), st.integers(-1, 2)), max_size=30),
    st.floats(0.5, 60),
    st.booleans(),
)
def test_the_vectorised_rule_equals_its_readable_twin(
    rows: list[tuple[int, int, int]], gap: float, native: bool
) -> None:
    ordered = sorted((actor, second * 1_000_000, code) for actor, second, code in rows)
    rule = SessionRule(gap_minutes=round(gap), native=native) if gap >= 1 else SessionRule(native=native)
    assert _starts(ordered, rule) == _twin(ordered, rule)


def test_the_newest_search_message_or_browse_of_the_session_is_the_way_to_what_follows() -> None:
    actions = ["detail", "search", "detail", "play", "browse", "play", "search", "play", "message_open", "play"]
    session_E = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1], dtype=np.int64)
    action_E = np.array([ACTION_CODES[action] for action in actions], dtype=np.int32)
    way_E = ways(session_E, action_E)
    assert way_E.tolist() == [-1, 1, 1, 1, 4, 4, 6, -1, 8, 8]
    named = [ENTRIES[code] for code in entries(action_E, way_E)]
    assert named == ["browse", *["search"] * 3, "browse", "browse", "search", "browse", "message", "message"]
    nothing = np.zeros(0, dtype=np.int64)
    assert ways(nothing, nothing.astype(np.int32)).tolist() == []
