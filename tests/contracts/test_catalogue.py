"""The catalogue: codes, roll-up of episodes, fingerprint."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from foretaste.contracts.catalogue import GENRE_PARTS, UNKNOWN_TIME, catalogue
from foretaste.contracts.columns import TITLES


def _titles(*rows: dict[str, Any]) -> pa.Table:
    blank = {"kind": "movie", "genres": [], "artworks": []}
    return pa.Table.from_pylist([blank | row for row in rows], schema=TITLES)


ROWS: tuple[dict[str, Any], ...] = (
    {"title_id": "s", "kind": "show", "name": "Show", "genres": ["drama", "crime"]},
    {"title_id": "s-e1", "kind": "episode", "series_id": "s", "season": 1, "episode": 1},
    {"title_id": "m", "name": "Film", "genres": ["drama"], "released_at": datetime(1970, 1, 2, tzinfo=UTC)},
)


def test_codes_follow_the_order_of_ids_and_an_episode_has_the_code_of_its_show() -> None:
    found = catalogue(_titles(*ROWS))
    assert found.ids == ("m", "s")
    assert found.codes(["m", "s", "s-e1", "absent", None]).tolist() == [1, 2, 2, 0, 0]


def test_genres_kinds_and_release_dates_stand_at_the_code_of_their_title() -> None:
    found = catalogue(_titles(*ROWS))
    assert (found.kinds, found.genres) == (("movie", "show"), ("crime", "drama"))
    assert found.kind_N1.tolist() == [-1, 0, 1]
    assert found.genres_N1G.tolist() == [[0, 0], [0, 1], [1, 1]]
    assert found.released_N1.tolist() == [UNKNOWN_TIME, 86_400_000_000, UNKNOWN_TIME]
    assert found.names == ("Film", "Show")


def test_the_order_of_rows_does_not_matter_and_a_changed_genre_does() -> None:
    forth, back = catalogue(_titles(*ROWS)), catalogue(_titles(*ROWS[::-1]))
    other = catalogue(_titles(ROWS[0], ROWS[1], ROWS[2] | {"genres": ["crime"]}))
    assert forth.fingerprint == back.fingerprint != other.fingerprint
    assert np.array_equal(forth.genres_N1G, back.genres_N1G)


def test_a_title_that_stands_twice_is_named() -> None:
    with pytest.raises(ValueError, match="'m' stands more than once"):
        catalogue(_titles(ROWS[2], ROWS[2]))


def test_an_episode_keeps_its_own_release_and_counts_in_the_fingerprint() -> None:
    day = datetime(1970, 1, 3, tzinfo=UTC)
    found = catalogue(_titles(*ROWS))
    dated = catalogue(_titles(ROWS[0], ROWS[1] | {"released_at": day}, ROWS[2]))
    places = [dated.place_of[title_id] for title_id in ("m", "s", "s-e1", None)]
    assert dated.code_P[places].tolist() == [1, 2, 2, 0]
    assert dated.released_P[places].tolist() == [86_400_000_000, UNKNOWN_TIME, 2 * 86_400_000_000, UNKNOWN_TIME]
    assert dated.fingerprint != found.fingerprint


def test_the_parts_of_a_title_are_whole_and_divided_between_its_genres() -> None:
    assert catalogue(_titles(*ROWS)).genre_parts_N1G.tolist() == [[0, 0], [0, GENRE_PARTS], [GENRE_PARTS // 2] * 2]
