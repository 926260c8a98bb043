"""What a request may say of titles: the fields of its filter and boosts, and their values over the catalogue.

Shapes: N1 rows by catalogue code, row 0 of an unknown title; W words.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.catalogue import UNKNOWN_TIME, Catalogue
from foretaste.contracts.columns import TITLES, conform
from foretaste.contracts.expression import Expression, Type, parse
from foretaste.contracts.expression_values import Column, Marks, Numbers, WordLists, Words, flags

TITLE_FIELDS: Mapping[str, Type] = {
    "title_id": Type.TEXT,
    "name": Type.TEXT,
    "kind": Type.TEXT,
    "genres": Type.TEXTS,
    "series": Type.FLAG,
    "released_at": Type.TIME,
    "age_days": Type.NUMBER,
    "available_from": Type.TIME,
    "available_until": Type.TIME,
    "maturity": Type.TEXT,
    "countries": Type.TEXTS,
    "languages": Type.TEXTS,
}
"""`series`: whether it is one; `age_days`: days from its release to the answer; all else as in columns.TITLES."""
AGE = "age_days"
KEPT = 64
"""Conditions whose titles are kept at hand: at a million titles a megabyte each."""

_DAY_US = 86_400e6


@lru_cache(1024)
def title_condition(text: str) -> Expression:
    """Read a condition over titles, once a text. Raises expression_text.ExpressionError."""
    return parse(text, TITLE_FIELDS)


class TitleColumns:
    """The values of `TITLE_FIELDS` of every title."""

    def __init__(self, titles: pa.Table, catalogue: Catalogue) -> None:
        """`titles` is a TITLES table that the catalogue was made of; episodes have no row of their own."""
        titles = conform(titles, TITLES, what="titles")
        rows = {row["title_id"]: row for row in titles.select(_READ).to_pylist()}
        own = [None, *(rows.get(title_id) for title_id in catalogue.ids)]
        released_N1 = catalogue.released_N1.astype(np.float64)
        released_N1[catalogue.released_N1 == UNKNOWN_TIME] = np.nan
        self._released_N1 = released_N1
        self._columns: dict[str, Column] = {
            "title_id": Words(np.arange(len(own), dtype=np.int32) - (np.arange(len(own)) == 0), catalogue.code_of),
            "name": _words([None, *catalogue.names]),
            "kind": Words(catalogue.kind_N1, {name: code for code, name in enumerate(catalogue.kinds)}),
            "genres": WordLists(
                catalogue.genres_N1G > 0,
                np.arange(len(own)) > 0,
                {name: place for place, name in enumerate(catalogue.genres)},
            ),
            "series": Marks(catalogue.series_N1),
            "released_at": Numbers(released_N1),
            "available_from": _times([row and row["available_from"] for row in own]),
            "available_until": _times([row and row["available_until"] for row in own]),
            "maturity": _words([row and row["maturity"] for row in own]),
            "countries": _lists([row and row["countries"] for row in own]),
            "languages": _lists([row and row["languages"] for row in own]),
        }
        self._kept: OrderedDict[str, NDArray[np.bool_]] = OrderedDict()
        self._lock = threading.Lock()

    def that(self, condition: str, *, asof: int) -> NDArray[np.bool_]:
        """Say of which titles a condition holds as of an instant (microseconds); bool[N1], not to be written to.

        Kept by text where time has no part in it. Raises expression_text.ExpressionError.
        """
        expression = title_condition(condition)
        if AGE in expression.fields:
            age = Numbers((asof - self._released_N1) / _DAY_US)
            return flags(expression, self._columns | {AGE: age})
        with self._lock:
            if condition in self._kept:
                self._kept.move_to_end(condition)
                return self._kept[condition]
        found = flags(expression, self._columns)
        with self._lock:
            self._kept[condition] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found


_READ = ["title_id", "available_from", "available_until", "maturity", "countries", "languages"]


def _words(values: Sequence[str | None]) -> Words:
    code_of = {word: code for code, word in enumerate(sorted({value for value in values if value is not None}))}
    return Words(np.array([-1 if v is None else code_of[v] for v in values], dtype=np.int32), code_of)


def _lists(values: Sequence[Sequence[str] | None]) -> WordLists:
    known_X = np.array([value is not None for value in values], dtype=np.bool_)
    place_of = {word: place for place, word in enumerate(sorted({word for value in values for word in value or ()}))}
    has_XW = np.zeros((len(values), len(place_of)), dtype=np.bool_)
    for row, value in enumerate(values):
        has_XW[row, [place_of[word] for word in value or ()]] = True
    return WordLists(has_XW, known_X, place_of)


def _times(values: Sequence[object]) -> Numbers:
    at = pa.array(values, type=TITLES.field("available_from").type).cast(pa.int64())
    whole = np.asarray(at.fill_null(0), dtype=np.float64)
    whole[np.asarray(at.is_null())] = np.nan
    return Numbers(whole)
