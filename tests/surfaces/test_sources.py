"""What each source brings to a pool, and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.controls import ControlsConfig, Source
from foretaste.contracts.histories import Histories
from foretaste.signals.histories import pack
from foretaste.surfaces.prequery import pool
from foretaste.surfaces.sources import Likeness, begun, bring, new_releases, similar, trending
from foretaste.testing.builders import START, interactions_table, titles_table

TITLES = titles_table(
    [{"title_id": name, "released_at": START + timedelta(days=day)} for day, name in enumerate("abcdef")]
    + [{"title_id": "s", "kind": "show"}]
)
CATALOGUE = catalogue(TITLES)
FREE: NDArray[np.bool_] = np.arange(8) == 0
DAY = 86_400_000_000
NOW = int(START.timestamp() * 1e6) + 4 * DAY


def names(codes: NDArray[np.int32]) -> str:
    return "".join(CATALOGUE.ids[code - 1] for code in codes)


def history(*rows: tuple[float, str, str]) -> Histories:
    return pack(interactions_table([("m", day, title, action) for day, title, action in rows]), CATALOGUE)[0]


def blocking(title_ids: str) -> NDArray[np.bool_]:
    out = FREE.copy()
    out[CATALOGUE.codes(list(title_ids))] = True
    return out


def test_what_was_begun_comes_newest_first_and_what_is_over_does_not() -> None:
    past = history((1, "a", "play"), (2, "b", "stop"), (3, "c", "complete"), (4, "s", "complete"), (5, "d", "detail"))
    assert names(begun(past, CATALOGUE, FREE, size=9)) == "sba"
    assert names(begun(past, CATALOGUE, FREE, size=2)) == "sb"
    assert names(begun(past, CATALOGUE, blocking("s"), size=9)) == "ba"
    assert names(begun(past, CATALOGUE, FREE, size=0)) == ""
    again = history((1, "a", "play"), (2, "a", "complete"))
    assert names(begun(again, CATALOGUE, FREE, size=9)) == ""


def test_what_was_only_tried_is_not_gone_on_with() -> None:
    past = history((1, "a", "play"), (2, "b", "play"))
    for fractions, wanted in (([0.04, 0.95], ""), ([0.05, 0.89], "ba")):
        played = replace(past, fraction_T=np.array(fractions, dtype=np.float32))
        assert names(begun(played, CATALOGUE, FREE, size=9)) == wanted


def test_trending_is_what_was_played_most_equal_ones_by_code() -> None:
    plays_N1 = np.array([9, 1, 3, 3, 0, 7, 2, 0])
    assert names(trending(plays_N1, FREE, size=3)) == "ebc"
    assert names(trending(plays_N1, blocking("e"), size=9)) == "bcfa"
    assert names(trending(np.zeros(8, dtype=np.int64), FREE, size=3)) == ""


def test_new_is_what_was_released_lately_and_no_sooner() -> None:
    assert names(new_releases(CATALOGUE.released_N1, FREE, asof=NOW, days=3, size=9)) == "edc"
    assert names(new_releases(CATALOGUE.released_N1, FREE, asof=NOW, days=3, size=1)) == "e"


def test_similar_titles_are_those_of_like_vectors_each_with_the_one_it_is_most_like() -> None:
    vectors_N1D = np.array(
        [[5, 5], [1, 0], [9, 1], [0, 1], [1, 9], [-1, -1], [0, 0], [1, 1]], dtype=np.float32
    )  # a b c d e f s
    codes, like = similar(Likeness(vectors_N1D), CATALOGUE.codes(["a", "c"]), FREE, size=9)
    assert names(codes[:1]) == "s"
    assert sorted(names(codes)) == ["b", "d", "s"]
    assert {CATALOGUE.ids[k - 1]: CATALOGUE.ids[v - 1] for k, v in like.items()} == {"b": "a", "d": "c", "s": "a"}


def test_all_sources_are_asked_and_those_that_have_nothing_are_absent() -> None:
    found = bring(
        ControlsConfig(trending=1, new_releases=2),
        blocked_N1=blocking("f"),
        asof=NOW,
        catalogue=CATALOGUE,
        history=history((1, "a", "play")),
        plays_7d_N1=np.arange(8),
        session_S=np.zeros(5, dtype=np.int32),
        likeness=Likeness(np.eye(8, dtype=np.float32)),
        shown=CATALOGUE.codes(["f", "b"]),
    )
    assert {source: names(codes) for source, codes in found.codes.items()} == {
        Source.SHOWN: "b",
        Source.CONTINUE: "a",
        Source.TRENDING: "s",
        Source.NEW: "ed",
    }
    assert found.by(CATALOGUE.code_of["b"]) == [Source.SHOWN]
    assert found.by(CATALOGUE.code_of["c"]) == []


def test_what_is_brought_has_its_place_in_the_pool_and_the_best_fill_it() -> None:
    scores_N = np.array([0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], dtype=np.float32)
    brought = CATALOGUE.codes(["f", "d", "f", "a"])
    assert names(pool(scores_N, FREE, size=4, brought=brought)) == "abdf"
    assert names(pool(scores_N, FREE, size=2, brought=brought)) == "df"
    assert names(pool(scores_N, blocking("f"), size=3, brought=brought)) == "abd"
    assert names(pool(scores_N, FREE, size=99, brought=brought)) == "abcdefs"


@given(
    st.lists(st.integers(-2, 2), min_size=7, max_size=7),
    st.lists(st.integers(1, 7), max_size=9),
    st.sets(st.sampled_from("abcdefs")),
    st.integers(1, 9),
)
def test_a_pool_is_full_free_of_what_is_blocked_and_in_order(
    scores: list[int], brought: list[int], out: set[str], size: int
) -> None:
    scores_N: NDArray[np.float32] = np.array(scores, dtype=np.float32)
    blocked_N1 = blocking("".join(sorted(out)))
    found = pool(scores_N, blocked_N1, size=size, brought=np.array(brought, dtype=np.int32))
    allowed = [code for code in range(1, 8) if not blocked_N1[code]]
    assert len(found) == min(size, len(allowed))
    assert found.tolist() == sorted(found.tolist(), key=lambda code: (-scores_N[code - 1], code))
    forced = list(dict.fromkeys(code for code in brought if code in allowed))[:size]
    assert set(forced) <= set(found.tolist()) <= set(allowed)
    rest = [code for code in found.tolist() if code not in forced]
    left = sorted((code for code in allowed if code not in forced), key=lambda code: (-scores_N[code - 1], code))
    assert sorted(rest) == sorted(left[: len(rest)])
