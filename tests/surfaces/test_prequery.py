"""What may stand on the pre-query list, and which titles are ranked for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.sessions import SessionRule
from foretaste.signals.histories import pack
from foretaste.surfaces.prequery import PREQUERY, Availability, availability, blocked, pool
from foretaste.testing.builders import START, interactions_table, titles_table

TITLES = titles_table(
    [
        {"title_id": "a"},
        {"title_id": "b", "available_from": START + timedelta(days=10)},
        {"title_id": "c", "available_until": START + timedelta(days=20)},
        {"title_id": "d"},
        {"title_id": "s", "kind": "show"},
        {"title_id": "s1", "kind": "episode", "series_id": "s", "available_until": START},
    ]
)
CATALOGUE = catalogue(TITLES)
WINDOWS = availability(TITLES, CATALOGUE)
RULE = SessionRule(gap_minutes=30, native=True)


def at(days: float) -> int:
    return int((START + timedelta(days=days)).timestamp()) * 1_000_000


def history(*rows: tuple[float, str, str]) -> Histories:
    if not rows:
        none = np.zeros(0, dtype=np.int32)
        return Histories(np.zeros(2, dtype=np.int64), none, none, none.astype(np.int64), none, *[none.astype("f4")] * 2)
    table = interactions_table([("m", day, title, action) for day, title, action in rows], rule=RULE)
    return pack(table, CATALOGUE)[0]


def shown(past: Histories, *, days: float = 15, exclude: tuple[int, ...] = (), repeats: bool = True) -> set[str]:
    blocked_N1 = blocked(
        past, asof=at(days), catalogue=CATALOGUE, windows=WINDOWS, exclude=exclude, repeats=repeats, rule=RULE
    )
    assert blocked_N1[0]
    return {CATALOGUE.ids[code - 1] for code in np.flatnonzero(~blocked_N1)}


def test_an_empty_history_leaves_all_that_is_available() -> None:
    assert shown(history()) == {"a", "b", "c", "d", "s"}


@pytest.mark.parametrize(
    ("days", "wanted"),
    [(10 - 1e-3, {"a", "c", "d", "s"}), (10, {"a", "b", "c", "d", "s"}), (20, {"a", "b", "d", "s"})],
)
def test_a_window_starts_inclusive_and_ends_exclusive(days: float, wanted: set[str]) -> None:
    assert shown(history(), days=days) == wanted


def test_the_window_of_an_episode_is_not_that_of_its_series() -> None:
    assert WINDOWS.until_N1[CATALOGUE.code_of["s"]] == np.iinfo(np.int64).max


def test_excluded_titles_are_out_and_an_unknown_one_changes_nothing() -> None:
    assert shown(history(), exclude=(CATALOGUE.code_of["a"], CATALOGUE.code_of["s1"], 0)) == {"b", "c", "d"}


def test_without_repeats_every_title_of_the_history_is_out() -> None:
    assert shown(history((1, "a", "detail"), (2, "s", "play")), repeats=False) == {"b", "c", "d"}


def test_with_repeats_a_completed_title_is_out_until_the_session_closes() -> None:
    past = history((15 - 1 / 24, "d", "complete"), (15, "a", "complete"), (15, "s", "complete"))
    assert shown(past, days=15) == {"b", "c", "d", "s"}  # d was another session; s goes on
    assert shown(past, days=15 + 30 / 1440) == {"b", "c", "d", "s"}
    assert shown(past, days=15 + 31 / 1440) == {"a", "b", "c", "d", "s"}


def test_a_title_thumbed_down_does_not_come_back() -> None:
    assert shown(history((1, "a", "thumb_down"), (2, "d", "play"))) == {"b", "c", "d", "s"}


def test_the_pool_is_the_best_that_are_left_ties_by_code() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.5, -1.0], dtype=np.float32)
    blocked_N1 = np.array([True, False, True, False, False, False])
    assert pool(scores, blocked_N1, size=2).tolist() == [1, 3]
    assert pool(scores, blocked_N1, size=9).tolist() == [1, 3, 4, 5]
    assert pool(scores, np.ones(6, dtype=np.bool_), size=9).tolist() == []


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=40), st.integers(1, 50))
def test_the_fast_pool_is_the_stable_sort(rows: list[tuple[int, bool]], size: int) -> None:
    scores: NDArray[np.float32] = np.array([score for score, _ in rows], dtype=np.float32)
    blocked_N1 = np.array([True, *(out for _, out in rows)])
    slow = sorted((code for code in range(1, len(rows) + 1) if not blocked_N1[code]), key=lambda c: -scores[c - 1])
    assert pool(scores, blocked_N1, size=size).tolist() == slow[:size]


def test_the_pool_covers_the_longest_list() -> None:
    assert PREQUERY.pool_size >= PREQUERY.max_k >= PREQUERY.k
    assert isinstance(WINDOWS, Availability)


def test_a_title_that_took_long_to_complete_is_out_until_half_an_hour_after_its_end() -> None:
    past = history((15, "a", "complete"))
    long = replace(past, dwell_T=past.dwell_T + 3600)
    assert shown(long, days=15 + 90 / 1440) == {"b", "c", "d", "s"}
    assert shown(long, days=15 + 91 / 1440) == {"a", "b", "c", "d", "s"}
