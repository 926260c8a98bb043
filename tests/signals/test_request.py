"""A history made of a session log's rows: what is visible, and what it is made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.events import ACTION_CODES
from foretaste.contracts.sessions import SessionRule
from foretaste.signals.acts import acts_of_one
from foretaste.testing.builders import START, titles_table

TITLES = catalogue(titles_table([{"title_id": "a"}, {"title_id": "b"}, {"title_id": "a1", "series_id": "a"}]))
MINUTE = 60_000_000
RULE = SessionRule()


def event(number: int, minute: float, title: str | None, action: str = "play", **other: Any) -> dict[str, Any]:
    at = int(minute * MINUTE)
    return {"event_id": f"e{number}", "member_id": "m", "at": at, "action": action, "title_id": title, **other}


def test_only_events_strictly_before_the_instant_are_visible() -> None:
    log = [event(1, 0, "a"), event(2, 5, "b")]
    assert acts_of_one(log, asof=5 * MINUTE, catalogue=TITLES, rule=RULE).histories().title_T.tolist() == [1]
    assert acts_of_one(log, asof=5 * MINUTE + 1, catalogue=TITLES, rule=RULE).histories().title_T.tolist() == [1, 2]


def test_nothing_visible_is_an_empty_history() -> None:
    for log in ([], [event(1, 0, None, "search")], [event(1, 9, "a")]):
        history = acts_of_one(log, asof=MINUTE, catalogue=TITLES, rule=RULE).histories()
        assert (len(history), history.lengths_B.tolist()) == (1, [0])
        assert history.dwell_T.dtype == np.float32


def test_what_is_shown_to_a_member_holds_no_session_open() -> None:
    log = [event(1, 0, "a"), event(2, 20, "b", "impression"), event(3, 40, "b", "detail"), event(4, 60, "a")]
    history = acts_of_one(log, asof=100 * MINUTE, catalogue=TITLES, rule=RULE).histories()
    assert history.session_T.tolist() == [0, 1, 1]
    assert history.action_T.tolist() == [ACTION_CODES[a] for a in ("play", "detail", "play")]


def test_an_episode_is_its_series_and_unknown_titles_are_left_out() -> None:
    log = [event(1, 0, "a"), event(2, 1, "a1"), event(3, 2, "x"), event(4, 3, ""), event(5, 4, "a")]
    history = acts_of_one(log, asof=MINUTE * 9, catalogue=TITLES, rule=RULE).histories()
    assert history.title_T.tolist() == [1]
    assert history.dwell_T.tolist() == [0.0]


def test_what_is_left_out_divides_and_joins_nothing() -> None:
    log = [event(1, 0, "a"), event(2, 25, "x"), event(3, 50, "b"), event(4, 60, None, "no such thing")]
    log += [event(5, 75, "b", "remove"), event(6, 100, "b", "play"), event(7, 125, None, "play")]
    history = acts_of_one(log, asof=MINUTE * 990, catalogue=TITLES, rule=RULE).histories()
    assert history.title_T.tolist() == [1, 2]
    assert history.session_T.tolist() == [0, 1]


def test_a_title_is_not_known_before_its_release_and_an_episode_has_its_own() -> None:
    dated = [{"title_id": "s", "released_at": -1.0}, {"title_id": "s1", "series_id": "s", "released_at": 1.0}]
    known = catalogue(titles_table(dated))
    first = int(START.timestamp()) * 1_000_000
    for title, at, seen in (("s", 0, 1), ("s1", 0, 0), ("s1", 86_400_000_000 - 1, 0), ("s1", 86_400_000_000, 1)):
        log = [event(1, 0, title) | {"at": first + at}]
        assert len(acts_of_one(log, asof=2 * first, catalogue=known, rule=RULE).histories().at_T) == seen


def test_a_redelivered_event_counts_once_and_the_order_given_does_not_matter() -> None:
    log = [event(2, 3, "b", sequence=7), event(1, 0, "a", dwell_seconds=4.0), event(1, 0, "a", dwell_seconds=4.0)]
    history = acts_of_one(log, asof=MINUTE * 9, catalogue=TITLES, rule=RULE).histories()
    assert history.title_T.tolist() == [1, 2]
    assert history.dwell_T.tolist() == [4.0, 0.0]
