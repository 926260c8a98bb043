"""The signals of a request: three implementations, one truth, to the bit; and by hand what they say."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.columns import EVENTS
from foretaste.contracts.events import ACTIONS
from foretaste.contracts.histories import Histories
from foretaste.contracts.sessions import SessionRule
from foretaste.contracts.words import hashed
from foretaste.signals.acts import Acts, acts_of_one
from foretaste.signals.declared import NEVER, SESSION_SIGNALS, SIGNALS_VERSION
from foretaste.signals.offline import acts_of_many
from foretaste.signals.scene import WEIGHTS
from foretaste.signals.signals import FUNCTIONS, session_signals, session_signals_batch
from foretaste.signals.twin import _weight, twin_signals
from foretaste.testing.acts import BEGIN, MINUTE, actor_events
from foretaste.testing.builders import titles_table

KNOWN = catalogue(
    titles_table(
        [
            {"title_id": "a", "kind": "show", "genres": ["drama", "crime"], "released_at": -3.0},
            {"title_id": "b", "genres": ["comedy"], "released_at": 1.5},
            {"title_id": "c", "genres": ["drama", "comedy", "horror"]},
            {"title_id": "d", "kind": "game"},
            {"title_id": "a1", "kind": "episode", "series_id": "a", "released_at": 0.5},
            {"title_id": "a2", "kind": "episode", "series_id": "a"},
        ]
    )
)
RULES = (SessionRule(), SessionRule(native=False), SessionRule(gap_minutes=4))


def alike(found: dict[str, NDArray[Any]], wanted: dict[str, NDArray[Any]]) -> None:
    assert list(found) == list(wanted) == [signal.name for signal in SESSION_SIGNALS]
    for name, values in wanted.items():
        mine = found[name]
        assert (mine.dtype, mine.shape, mine.tobytes()) == (values.dtype, values.shape, values.tobytes()), (
            name,
            mine,
            values,
        )


def instants(events: list[dict[str, Any]]) -> st.SearchStrategy[int]:
    times = sorted({event["at"] for event in events}) or [BEGIN]
    edges = [at + off for at in times for off in (-1, 0, 1, 4 * MINUTE, 30 * MINUTE, 30 * MINUTE + 1)]
    return st.sampled_from(edges) | st.integers(BEGIN - 1, times[-1] + 20 * 1440 * MINUTE)


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(0, 2**31), st.integers(0, 60), st.sampled_from(RULES))
def test_the_signals_of_a_request_are_those_of_the_twin(data: Any, seed: int, num: int, rule: SessionRule) -> None:
    events = actor_events(KNOWN, num=num, seed=seed)
    asof = data.draw(instants(events))
    wanted = twin_signals(events, asof=asof, catalogue=KNOWN, rule=rule)
    alike(session_signals(events, asof=asof, catalogue=KNOWN, rule=rule), wanted)
    again = [dict(event) for event in events if data.draw(st.booleans())]
    shuffled = data.draw(st.permutations(events + again))
    alike(session_signals(shuffled, asof=asof, catalogue=KNOWN, rule=rule), wanted)
    seen = [event for event in events if event["at"] < asof]
    alike(session_signals(seen, asof=asof, catalogue=KNOWN, rule=rule), wanted)


def packed(seen: list[list[dict[str, Any]]], asofs: list[int], rule: SessionRule) -> Acts:
    """What the batch path makes of visible rows."""
    rows = [{name: row.get(name) for name in EVENTS.names} for one in seen for row in one]
    table = pa.Table.from_pylist(rows, schema=EVENTS)
    offsets_B1 = np.cumsum([0, *map(len, seen)]).astype(np.int64)
    return acts_of_many(table, offsets_B1, np.array(asofs, dtype=np.int64), catalogue=KNOWN, rule=rule)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 40)), max_size=6), st.sampled_from(RULES))
def test_the_signals_of_many_answers_are_those_of_each(
    data: Any, actors: list[tuple[int, int]], rule: SessionRule
) -> None:
    logs = [actor_events(KNOWN, num=num, seed=seed) for seed, num in actors for _ in range(2)]
    asofs = [data.draw(instants(events)) for events in logs]
    seen = [
        sorted((event for event in events if event["at"] < asof), key=lambda event: (event["at"], event["event_id"]))
        for events, asof in zip(logs, asofs, strict=True)
    ]
    acts = packed(seen, asofs, rule)
    signals = session_signals_batch(acts, KNOWN, rule)
    histories = acts.histories()
    for b, (events, asof) in enumerate(zip(logs, asofs, strict=True)):
        wanted = twin_signals(events, asof=asof, catalogue=KNOWN, rule=rule)
        alike({name: values_BW[b] for name, values_BW in signals.items()}, wanted)
        mine, one = (
            histories.rows(np.array([b])),
            acts_of_one(events, asof=asof, catalogue=KNOWN, rule=rule).histories(),
        )
        for name in Histories.__slots__:
            assert getattr(mine, name).tobytes() == getattr(one, name).tobytes(), name


def event(number: int, minute: float, action: str, title: str | None = None, **other: Any) -> dict[str, Any]:
    at = BEGIN + round(minute * MINUTE)
    return {"event_id": f"e{number:03d}", "member_id": "m", "at": at, "action": action, "title_id": title, **other}


EVENING = [
    event(1, 0, "play", "c", dwell_seconds=600.0, played_fraction=0.5),
    event(2, 3 * 1440, "search", query="Dark Drama"),
    event(3, 3 * 1440 + 1, "play", "d"),
    event(4, 3 * 1440 + 4, "stop", "d", dwell_seconds=180.25, played_fraction=0.04),
    event(5, 3 * 1440 + 5, "remove", "a"),
    event(6, 3 * 1440 + 6, "play", "a1"),
    event(7, 3 * 1440 + 20, "complete", "a1", dwell_seconds=840.0, played_fraction=1.0),
    event(8, 3 * 1440 + 21, "impression", "d"),
]
NOW = BEGIN + (3 * 1440 + 30) * MINUTE


def signals(events: list[dict[str, Any]], asof: int) -> dict[str, list[float]]:
    found = session_signals(events, asof=asof, catalogue=KNOWN, rule=SessionRule())
    return {name: values.tolist() for name, values in found.items()}


def test_an_evening_says_what_one_would_say_of_it() -> None:
    said = signals(EVENING, NOW)
    by_action = {action: count for action, count in zip(ACTIONS, said["session_actions"], strict=True) if count}
    assert by_action == {"search": 1, "remove": 1, "stop": 1, "play": 2, "complete": 1}
    assert {name: said[name] for name in ("session_depth", "session_interactions", "session_titles")} == {
        "session_depth": [6],
        "session_interactions": [2],
        "session_titles": [1],
    }
    assert said["session_last_titles"] == [KNOWN.code_of["a"], 0, 0, 0, 0]
    assert dict(zip(KNOWN.genres, said["session_genres"], strict=True)) == {
        "comedy": 0.0,
        "crime": 0.5,
        "drama": 0.5,
        "horror": 0.0,
    }
    assert dict(zip(KNOWN.kinds, said["session_kinds"], strict=True)) == {"game": 0.0, "movie": 0.0, "show": 1.0}
    assert said["session_age"] == [30 * 60.0]
    assert said["idle"] == [10 * 60.0]
    assert said["session_dwell"] == [1020.25]
    assert said["session_fraction_mean"] == [np.float32(0.52)]
    assert said["session_fraction_max"] == [1.0]
    assert said["since_search"] == [30 * 60.0]
    assert said["query_tokens"] == hashed("dark drama") == hashed("DRAMA, dark!")
    counts = ("session_completed", "session_searches", "session_thumbs_down", "session_removes", "session_abandons")
    assert [said[name] for name in counts] == [[1], [1], [0], [1], [1]]
    assert said["session_genres_refused"] == said["session_genres"]  # of the title that was removed before
    assert [said[name] for name in ("num_sessions", "past_sessions", "past_depth")] == [[2], [1], [1.0]]
    assert said["past_kinds"] == [0.0, 1.0, 0.0]
    assert said["past_fraction_mean"] == [0.5]
    assert said["away"] == [72.5]
    assert said["returned"] == [0]


def test_a_session_closes_without_an_event_and_is_then_the_newest_of_the_past() -> None:
    end = EVENING[6]["at"] + 30 * MINUTE
    still, over = signals(EVENING, end), signals(EVENING, end + 1)
    assert (still["session_depth"], still["past_sessions"]) == ([6], [1])
    assert (over["session_depth"], over["past_sessions"]) == ([0], [2])
    assert over["session_age"] == over["since_search"] == over["session_fraction_max"] == [NEVER]
    assert over["past_depth"] == [3.5]


def test_newer_interactions_count_more_in_what_a_session_turns_to() -> None:
    log = [event(number, number, "play", title) for number, title in enumerate(("a", "d", "c"))]
    said = signals(log, BEGIN + 6 * MINUTE)
    assert WEIGHTS[:4].tolist() == [2**20, 832255, 660561, 2**19]
    third = 2**20 / 3
    parts = {"comedy": third, "crime": 660561 / 2, "drama": 660561 / 2 + third, "horror": third}
    wanted = [parts[genre] / sum(parts.values()) for genre in KNOWN.genres]
    assert said["session_genres_lately"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 59, 60, 61, 500])
def test_the_weights_are_those_of_exact_arithmetic(steps: int) -> None:
    assert WEIGHTS[min(steps, len(WEIGHTS) - 1)] == _weight(steps)


@pytest.mark.parametrize(("days", "returned"), [(7, 0), (7 + 1e-9, 1)])
def test_a_member_who_was_away_for_more_than_a_week_has_returned(days: float, returned: int) -> None:
    log = [event(1, 0, "play", "c")]
    asof = BEGIN + round(days * 1440 * MINUTE)
    assert signals(log, asof)["returned"] == [returned]
    assert signals([*log, event(2, days * 1440, "search")], asof + MINUTE)["returned"] == [returned]


def test_nothing_known_is_the_declared_fallback() -> None:
    for log in ([], [event(1, 0, "impression", "c")], [event(1, 0, "play", "never heard of it")]):
        found = session_signals(log, asof=BEGIN + MINUTE, catalogue=KNOWN, rule=SessionRule())
        alike(found, {signal.name: signal.cold(1, KNOWN)[0] for signal in SESSION_SIGNALS})


def test_every_declared_signal_has_its_function_type_and_width() -> None:
    found = session_signals(EVENING, asof=NOW, catalogue=KNOWN, rule=SessionRule())
    assert [signal.name for signal in SESSION_SIGNALS] == list(FUNCTIONS)
    for signal in SESSION_SIGNALS:
        assert (found[signal.name].dtype, found[signal.name].shape) == (np.dtype(signal.dtype), (signal.size(KNOWN),))


def test_what_signals_give_does_not_change_under_one_version() -> None:
    digest = hashlib.blake2b(digest_size=6)
    for seed in range(40):
        events = actor_events(KNOWN, num=40, seed=seed)
        asof = events[-1]["at"] + seed % 3 * 20 * MINUTE
        for values in twin_signals(events, asof=asof, catalogue=KNOWN, rule=SessionRule()).values():
            digest.update(values.tobytes())
    assert (SIGNALS_VERSION, digest.hexdigest()) == ("a0a94b04866a", "f5691363abfc"), (
        "raise declared.REVISION where values change"
    )
