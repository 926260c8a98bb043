"""Expressions computed over columns, all rows at once: plain numpy over closed nodes, nothing is run as code.

Shapes: X rows (titles, sessions, whatever the columns are of), W words of a column.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.expression import (
    Among,
    Compare,
    Expression,
    Extreme,
    If,
    Join,
    Known,
    Name,
    Node,
    Not,
    Sum,
    Type,
    Value,
    Within,
)

Flags = NDArray[np.bool_]
Reals = NDArray[np.float64]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EXTREME: dict[str, Callable[[Any, Any], Any]] = {"min": np.minimum, "max": np.maximum}
_COUNT: dict[str, Callable[[Any, Any], Any]] = {"+": np.add, "-": np.subtract, "*": np.multiply}


@dataclass(frozen=True, slots=True)
class Marks:
    """A condition a row, always known."""

    values_X: Flags


@dataclass(frozen=True, slots=True)
class Numbers:
    """A number a row, NaN where unknown; a time is its microseconds since 1970."""

    values_X: Reals


@dataclass(frozen=True, slots=True)
class Words:
    """A text a row, as a code; below 0 where unknown. Several texts may have one code."""

    codes_X: NDArray[np.int32]
    code_of: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class WordLists:
    """Several texts a row."""

    has_XW: Flags
    known_X: Flags
    place_of: Mapping[str, int]  # column of a text


Column = Marks | Numbers | Words | WordLists


def flags(expression: Expression, columns: Mapping[str, Column]) -> Flags:
    """Say of each row whether a condition holds; bool[X].

    `columns` has the expression's fields, each as its type says. Raises KeyError for one that is missing.
    """
    size = next((_known(column).shape[0] for column in columns.values()), 0)
    return np.array(np.broadcast_to(_flags(expression.root, columns), (size,)))


def numbers(expression: Expression, columns: Mapping[str, Column]) -> Reals:
    """Compute a number of each row, NaN where something that it needs is unknown; float64[X]. Raises as `flags`."""
    size = next((_known(column).shape[0] for column in columns.values()), 0)
    return np.array(np.broadcast_to(_reals(expression.root, columns), (size,)))


def _flags(node: Node, columns: Mapping[str, Column]) -> Any:
    match node:
        case Value():
            return np.bool_(node.value)
        case Name():
            column = columns[node.name]
            assert isinstance(column, Marks)
            return column.values_X
        case Known():
            return _known(columns[node.field.name])
        case Not():
            return ~_flags(node.part, columns)
        case Join():
            how = operator.and_ if node.sign == "and" else operator.or_
            return reduce(how, (_flags(part, columns) for part in node.parts))
        case Compare():
            return _compared(node, columns)
        case Among():
            return _among(node, columns)
        case Within():
            lists = columns[node.field.name]
            assert isinstance(lists, WordLists)
            place = lists.place_of.get(node.value)
            return np.zeros(len(lists.known_X), dtype=np.bool_) if place is None else lists.has_XW[:, place]
        case Sum() | If() | Extreme():
            raise TypeError("a number is no condition")


def _compared(node: Compare, columns: Mapping[str, Column]) -> Any:
    if node.left.type is Type.TEXT:
        field, value = (node.left, node.right) if isinstance(node.left, Name) else (node.right, node.left)
        assert isinstance(field, Name)
        assert isinstance(value, Value)
        words = columns[field.name]
        assert isinstance(words, Words)
        code = words.code_of.get(str(value.value))
        same_X = np.zeros(len(words.codes_X), dtype=np.bool_) if code is None else words.codes_X == code
        return same_X if node.sign == "==" else ~same_X & (words.codes_X >= 0)
    left, right = _reals(node.left, columns), _reals(node.right, columns)
    with np.errstate(invalid="ignore"):
        return _COMPARE[node.sign](left, right) & ~np.isnan(left) & ~np.isnan(right)


def _among(node: Among, columns: Mapping[str, Column]) -> Any:
    assert isinstance(node.field, Name)
    column = columns[node.field.name]
    if isinstance(column, Words):
        codes = [column.code_of[value] for value in node.values if isinstance(value, str) and value in column.code_of]
        return np.isin(column.codes_X, np.array(codes, dtype=np.int32))
    return np.isin(_reals(node.field, columns), np.array(node.values, dtype=np.float64))


def _reals(node: Node, columns: Mapping[str, Column]) -> Any:
    match node:
        case Value():
            return np.float64(node.value)
        case Name():
            column = columns[node.name]
            assert isinstance(column, Numbers)
            return column.values_X
        case Sum():
            left, right = _reals(node.left, columns), _reals(node.right, columns)
            with np.errstate(all="ignore"):
                if node.sign == "/":
                    return np.where(right == 0, np.nan, left / np.where(right == 0, 1.0, right))
                return _COUNT[node.sign](left, right)
        case If():
            then, otherwise = _reals(node.then, columns), _reals(node.otherwise, columns)
            return np.where(_flags(node.condition, columns), then, otherwise)
        case Extreme():
            return reduce(_EXTREME[node.sign], (_reals(part, columns) for part in node.parts))
        case _:
            raise TypeError("a condition is no number")


def _known(column: Column) -> Flags:
    match column:
        case Marks():
            return np.ones(len(column.values_X), dtype=np.bool_)
        case Numbers():
            return ~np.isnan(column.values_X)
        case Words():
            return column.codes_X >= 0
        case WordLists():
            return column.known_X
