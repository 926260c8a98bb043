"""A history made of a session log's rows: what is visible, and what it is made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.events import ACTION_CODES
from foretaste.contracts.sessions import SessionRule
from foretaste.signals.request import visible_history
from foretaste.testing.builders import titles_table

TITLES = catalogue(titles_table([{"title_id": "a"}, {"title_id": "b"}, {"title_id": "a1", "series_id": "a"}]))
MINUTE = 60_000_000
RULE = SessionRule()


def event(number: int, minute: float, title: str | None, action: str = "play", **other: Any) -> dict[str, Any]:
    at = int(minute * MINUTE)
    return {"event_id": f"e{number}", "member_id": "m", "at": at, "action": action, "title_id": title, **other}


def test_only_events_strictly_before_the_instant_are_visible() -> None:
    log = [event(1, 0, "a"), event(2, 5, "b")]
    assert visible_history(log, asof=5 * MINUTE, catalogue=TITLES, rule=RULE).title_T.tolist() == [1]
    assert visible_history(log, asof=5 * MINUTE + 1, catalogue=TITLES, rule=RULE).title_T.tolist() == [1, 2]


def test_nothing_visible_is_an_empty_history() -> None:
    for log in ([], [event(1, 0, None, "search")], [event(1, 9, "a")]):
        history = visible_history(log, asof=MINUTE, catalogue=TITLES, rule=RULE)
        assert (len(history), history.lengths_B.tolist()) == (1, [0])
        assert history.dwell_T.dtype == np.float32


def test_impressions_hold_a_session_open_but_are_no_interactions() -> None:
    log = [event(1, 0, "a"), event(2, 20, "b", "impression"), event(3, 40, "b", "detail"), event(4, 99, "a")]
    history = visible_history(log, asof=100 * MINUTE, catalogue=TITLES, rule=RULE)
    assert history.session_T.tolist() == [0, 0, 1]
    assert history.action_T.tolist() == [ACTION_CODES[a] for a in ("play", "detail", "play")]


def test_an_episode_is_its_series_and_unknown_titles_stay_apart() -> None:
    log = [event(1, 0, "a"), event(2, 1, "a1"), event(3, 2, "x"), event(4, 3, "y")]
    history = visible_history(log, asof=MINUTE * 9, catalogue=TITLES, rule=RULE)
    assert history.title_T.tolist() == [1, 0, 0]


def test_a_redelivered_event_counts_once_and_the_order_given_does_not_matter() -> None:
    log = [event(2, 3, "b", sequence=7), event(1, 0, "a", dwell_seconds=4.0), event(1, 0, "a", dwell_seconds=4.0)]
    history = visible_history(log, asof=MINUTE * 9, catalogue=TITLES, rule=RULE)
    assert history.title_T.tolist() == [1, 2]
    assert history.dwell_T.tolist() == [4.0, 0.0]
