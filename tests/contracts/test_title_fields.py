"""What can be said of titles, over a catalogue with episodes and gaps."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.columns import TITLES, conform
from foretaste.contracts.expression_text import ExpressionError
from foretaste.contracts.title_fields import KEPT, TITLE_FIELDS, TitleColumns
from foretaste.testing.builders import START, titles_table

TABLE = titles_table(
    [
        {
            "title_id": "a",
            "name": "Alpha",
            "genres": ["comedy", "drama"],
            "released_at": START - timedelta(days=10),
            "maturity": "PG",
            "countries": ["NL", "BE"],
            "languages": ["nl"],
        },
        {"title_id": "b", "genres": ["drama"], "maturity": "18", "countries": [], "languages": ["en", "nl"]},
        {"title_id": "s", "kind": "show", "released_at": START, "available_until": START + timedelta(days=5)},
        {"title_id": "s1", "kind": "episode", "series_id": "s", "released_at": START + timedelta(days=1)},
    ]
)
CATALOGUE = catalogue(TABLE)
COLUMNS = TitleColumns(TABLE, CATALOGUE)
NOW = int(START.timestamp() * 1e6)


def those(text: str, *, asof: int = NOW, columns: TitleColumns = COLUMNS) -> str:
    found_N1 = columns.that(text, asof=asof)
    return "".join(CATALOGUE.ids[code - 1] for code in np.flatnonzero(found_N1[1:]) + 1)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('kind == "movie"', "ab"),
        ('name == "Alpha" or name == "b"', "ab"),
        ('title_id in ["s1"]', "s"),
        ('"drama" in genres and not title_id == "b"', "a"),
        ("series", "s"),
        ('released_at >= "2025-12-22" and released_at < "2026-01-01"', "a"),
        ("not known(released_at)", "b"),
        ("known(available_until)", "s"),
        ('available_until > "2026-01-06"', ""),
        ('maturity != "18"', "a"),
        ('not maturity == "18"', "as"),
        ('"NL" in countries', "a"),
        ("known(countries)", "ab"),
        ('"nl" in languages', "ab"),
        ("age_days <= 10", "as"),
        ("age_days < 10", "s"),
    ],
)
def test_a_condition_holds_of_these_titles(text: str, wanted: str) -> None:
    assert those(text) == wanted


def test_age_is_of_the_instant_that_is_asked_about() -> None:
    assert those("age_days < 0", asof=NOW - 1) == "s"
    assert those("age_days < 0", asof=NOW) == ""


def test_a_catalogue_without_the_optional_columns_leaves_them_unknown() -> None:
    bare = TABLE.drop_columns(["maturity", "countries", "languages"])
    columns = TitleColumns(bare, CATALOGUE)
    assert those('known(maturity) or "NL" in countries or known(languages)', columns=columns) == ""
    assert those("true", columns=columns) == "abs"
    assert conform(bare, TITLES, what="titles").schema == TITLES


def test_a_condition_is_computed_once_and_few_are_kept() -> None:
    columns = TitleColumns(TABLE, CATALOGUE)
    assert columns.that('kind == "movie"', asof=0) is columns.that('kind == "movie"', asof=1)
    first = columns.that("series", asof=0)
    for number in range(KEPT):
        columns.that(f'name == "{number}"', asof=0)
    assert columns.that("series", asof=0) is not first


def test_a_field_that_titles_do_not_have_is_refused_by_name() -> None:
    with pytest.raises(ExpressionError, match=r"at character 0: wanted one of age_days, .*, found 'colour'"):
        those("colour == 1")
    assert {"kind", "genres", "maturity", "countries", "languages", "available_until"} < set(TITLE_FIELDS)
