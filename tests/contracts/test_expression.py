"""Expressions are read by a closed grammar, computed over columns, and can do nothing else."""

from __future__ import annotations

import contextlib
import math
import re
import string
import sys
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.contracts.expression import MAX_DEPTH, MAX_NODES, Expression, Type, parse
from foretaste.contracts.expression_text import MAX_LENGTH, ExpressionError
from foretaste.contracts.expression_values import Column, Marks, Numbers, WordLists, Words, flags, numbers

FIELDS = {
    "plays": Type.NUMBER,
    "rating": Type.NUMBER,
    "kind": Type.TEXT,
    "tags": Type.TEXTS,
    "at": Type.TIME,
    "new": Type.FLAG,
}
DAY = 86_400e6
COLUMNS: dict[str, Column] = {
    "plays": Numbers(np.array([0.0, 1.0, 2.0, 3.0])),
    "rating": Numbers(np.array([4.5, np.nan, 0.0, -1.0])),
    "kind": Words(np.array([0, 1, 0, -1], dtype=np.int32), {"movie": 0, "show": 1}),
    "tags": WordLists(
        np.array([[True, False], [True, True], [False, False], [False, False]]),
        np.array([True, True, True, False]),
        {"fun": 0, "dark": 1},
    ),
    "at": Numbers(np.array([0.0, DAY, 2 * DAY, np.nan])),
    "new": Marks(np.array([True, False, True, False])),
}


def rows(text: str) -> list[int]:
    return np.flatnonzero(flags(parse(text, FIELDS), COLUMNS)).tolist()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('kind == "movie"', [0, 2]),
        ("kind != 'movie'", [1]),
        ('not kind == "movie"', [1, 3]),
        ('"movie" == kind', [0, 2]),
        ('kind == "nobody"', []),
        ('kind != "nobody"', [0, 1, 2]),
        ('kind in ["show", "movie", "x"]', [0, 1, 2]),
        ('kind not in ["show"]', [0, 2, 3]),
        ('not kind in ["show"]', [0, 2, 3]),
        ('"fun" in tags', [0, 1]),
        ('"fun" in tags and not "dark" in tags', [0]),
        ('"gone" in tags', []),
        ('"gone" not in tags', [0, 1, 2, 3]),
        ("plays >= 1 and plays < 3", [1, 2]),
        ("plays in [0, 2, 7]", [0, 2]),
        ("plays == 0 or new", [0, 2]),
        ("new or plays == 1 and plays == 2", [0, 2]),
        ("(new or plays == 1) and plays == 2", [2]),
        ("rating < 100", [0, 2, 3]),
        ("rating != 100", [0, 2, 3]),
        ("known(rating)", [0, 2, 3]),
        ("known(tags) and known(kind)", [0, 1, 2]),
        ("not known(at)", [3]),
        ('at >= "1970-01-02"', [1, 2]),
        ('at < "1970-01-02T00:00:00.5+00:00"', [0, 1]),
        ('"1970-01-02T01:00:00+01:00" == at', [1]),
        ('at in ["1970-01-01", "1970-01-03"]', [0, 2]),
        ("plays * 2 - 1 > rating / 2", [2, 3]),
        ("1 / plays >= 0", [1, 2, 3]),
        ("-rating > 0", [3]),
        ("plays - -1 == 1", [0]),
        ("true", [0, 1, 2, 3]),
        ("not True", []),
        ('kind == "a\\"b\\\\"', []),
    ],
)
def test_a_condition_holds_of_these_rows(text: str, wanted: list[int]) -> None:
    assert rows(text) == wanted


def test_a_number_is_computed_and_unknown_where_a_part_is() -> None:
    found = numbers(parse("2 * plays + rating / plays", FIELDS, wanted=Type.NUMBER), COLUMNS)
    np.testing.assert_array_equal(found, [np.nan, np.nan, 4.0, 6.0 - 1 / 3])
    assert parse("plays * (rating - 2)", FIELDS, wanted=Type.NUMBER).fields == {"plays", "rating"}


@pytest.mark.parametrize(
    ("text", "at", "wanted", "found"),
    [
        ("", 0, "a field or a value", "the end"),
        ("kind", 0, "a condition as a whole", "a text"),
        ("plays + 1", 0, "a condition as a whole", "a number"),
        ("colour == 1", 0, "one of at, kind, new", "'colour'"),
        ('kind = "movie"', 5, "a field, a value or a sign", "'='"),
        ('kind == "movie', 8, "the other end of a text", "'\"'"),
        ("kind == movie", 8, "one of", "'movie'"),
        ("kind == 3", 8, "a text", "a number (3.0)"),
        ('kind < "movie"', 5, "`==` or `!=` between texts", "'<'"),
        ("kind == kind", 8, "a field on one side", "a text (kind)"),
        ('plays == "1"', 9, "a number", "a text ('1')"),
        ('at > "yesterday"', 5, "a time, e.g.", "'yesterday'"),
        ('at > "2020-13-01"', 5, "a time, e.g.", "'2020-13-01'"),
        ("at > 5", 5, "a time", "a number (5.0)"),
        ("1 < plays < 3", 10, "comparisons are of two", "'<'"),
        ("new == true", 4, "a condition stands alone", "'=='"),
        ("tags == 1", 5, '`"..." in` a list', "'=='"),
        ("kind in tags", 0, "a text in quotes before `in tags`", "a text (kind)"),
        ('"a" in kind', 7, "a list of values in [ ]", "'kind'"),
        ("plays in [1, kind]", 13, "a number that is written out", "'kind'"),
        ("plays in [1 2]", 12, "`,` or `]`", "'2'"),
        ("plays in []", 10, "a field or a value", "']'"),
        ("(plays == 1", 11, "`)`", "the end"),
        ("plays == 1)", 10, "the end", "')'"),
        ("plays and new", 0, "a condition", "a number (plays)"),
        ("not plays", 4, "a condition", "a number (plays)"),
        ("new + 1 == 2", 0, "a number", "a condition (new)"),
        ("known(1)", 6, "a field in `known(...)`", "'1'"),
        ("len(tags) == 1", 0, "one of", "'len'"),
        ("plays.real == 1", 5, "a field, a value or a sign", "'.'"),
        ("new new", 4, "the end", "'new'"),
    ],
)
def test_an_error_says_where_what_was_wanted_and_what_was_found(text: str, at: int, wanted: str, found: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text, FIELDS)
    assert caught.value.at == at
    assert wanted in caught.value.wanted
    assert caught.value.found.startswith(found)
    assert str(caught.value).startswith(f"at character {at}: wanted ")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x" * (MAX_LENGTH + 1), f"at most {MAX_LENGTH} characters"),
        ("(" * 600 + "new" + ")" * 600, "deep"),
        ("not " * 400 + "new", "deep"),
        ("- " * 400 + "1 == plays", "deep"),
        (" + ".join(["plays"] * (MAX_DEPTH + 2)) + " == 1", "deep"),
        (" or ".join(["1<2"] * 250), "parts"),
        (f"plays in [{','.join('1' * (MAX_NODES + 2))}]", "parts"),
    ],
)
def test_what_is_too_long_too_deep_or_of_too_many_parts_is_refused(text: str, wanted: str) -> None:
    with pytest.raises(ExpressionError, match=wanted):
        parse(text, FIELDS)


SIGNS = "and or not in true known == != < <= > >= + - * / ( ) [ ] , 1 0 2.5"
WORDS = [*FIELDS, *SIGNS.split()]
WORDS += ['"movie"', "'fun'", '"2020-01-01"', "__import__", "os", "lambda", "eval", "open", ".", "{", "=", "\\", "\x00"]


def read(text: str) -> tuple[int, Expression | None]:
    try:
        return 0, parse(text, FIELDS)
    except ExpressionError as error:
        return error.at, None


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join) | st.text(string.printable, max_size=80))
def test_whatever_is_written_is_an_answer_or_an_error_with_a_place(text: str) -> None:
    at, expression = read(text)
    if expression is None:
        assert 0 <= at <= max(len(text), MAX_LENGTH)
        return
    found = flags(expression, COLUMNS)
    assert found.shape == (4,)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, flags(expression, COLUMNS))


HOSTILE = [
    "__import__('os').system('true')",
    "().__class__.__bases__[0].__subclasses__()",
    "eval('1')",
    "open('/etc/passwd')",
    "(lambda: 1)()",
    "[x for x in tags]",
    "f'{1}'",
    "kind == '{0.__class__}'.format(1)",
    "plays == 9 ** 9 ** 9",
    "new if new else new",
    "new := 1",
    "exec('import os')",
    "breakpoint()",
    "kind == 'a'; import os",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_expression_runs_code(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    watched = {"on": True}

    def audit(event: str, args: Any) -> None:
        if watched["on"] and event in ("compile", "exec", "import", "open", "os.system", "subprocess.Popen"):
            ran.append(event)

    sys.addaudithook(audit)
    try:
        with pytest.raises(ExpressionError):
            parse(text, FIELDS)
    finally:
        watched["on"] = False
    assert ran == []


def seconds(text: str) -> float:
    begun = time.process_time()
    with contextlib.suppress(ExpressionError):
        flags(parse(text, FIELDS), COLUMNS)
    return time.process_time() - begun


@pytest.mark.parametrize(
    "piece",
    [
        "new or ",
        "not ",
        "(",
        '"' + "\\\\",
        "[",
        "- ",
        "1 + ",
        "plays == 1 and ",
        "1" * 15,
        "a" * 50,
        "'",
        '"a" in tags or ',
    ],
)
def test_the_longest_expressions_take_about_as_long_as_a_plain_long_one(piece: str) -> None:
    plain = min(seconds(" or ".join(["plays == 1"] * 90)) for _ in range(5))
    longest = min(seconds((piece * MAX_LENGTH)[:MAX_LENGTH]) for _ in range(5))
    assert longest < 50 * plain


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("if(known(year), year, 0)", [2000.0, 0.0]),
        ("if(year > 1990, 1, 2)", [1.0, 2.0]),  # a comparison of an unknown value is false
        ("min(year, 1500)", [1500.0, math.nan]),
        ("max(1, 2, if(known(year), 3, -4)) * 2", [6.0, 4.0]),
        ("if(not known(year) and 1 < 2, -1, 1 / 4)", [0.25, -1.0]),
    ],
)
def test_a_number_may_depend_on_a_condition_and_be_the_smallest_or_largest_of_some(
    text: str, wanted: list[float]
) -> None:
    columns = {"year": Numbers(np.array([2000.0, math.nan]))}
    found = numbers(parse(text, {"year": Type.NUMBER}, wanted=Type.NUMBER), columns)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("if(year, 1, 2)", "a condition"),
        ("if(year > 1, 1)", "`,`"),
        ("if(year > 1, 1, 2, 3)", "`)`"),
        ("min(year)", "`,`"),
        ('max(year, "a")', "a number"),
        ("abs(year)", "one of year"),
        ("if + 1", "one of year"),
    ],
)
def test_a_call_that_is_none_is_refused_with_its_place(text: str, wanted: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(wanted)):
        parse(text, {"year": Type.NUMBER}, wanted=Type.NUMBER)
