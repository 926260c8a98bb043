"""A small language for conditions and values over named fields: parsed by hand into closed nodes, never run as code.

    kind == "movie" and "comedy" in genres and released_at >= "2020-01-01" and not title_id in ["t1", "t2"]

There are fields, numbers, texts, `true`, `false`, `and`, `or`, `not`, comparisons, `in`, `+ - * /`, brackets,
`known(field)`, `if(condition, number, number)`, `min(...)` and `max(...)` of numbers; no other calls, no attributes, no
names but the fields. A time is written as a text, a date or RFC 3339, UTC where it names no offset. Length, nodes and
depth are bounded, so that reading and computing one are, too.

A comparison or `in` of an unknown value is false, whichever it is; `not` turns that around. So `maturity != "18"`
leaves out titles of unknown maturity, and `not maturity == "18"` does not. A number that is made of an unknown one is
unknown; of an `if` only the part that is taken counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property

from foretaste.contracts.expression_text import ExpressionError, Sort, Token, tokens

MAX_NODES = 300
MAX_DEPTH = 32

_TIME = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RESERVED = frozenset({"and", "or", "not", "in", "true", "false", "True", "False", "known", "if", "min", "max"})


class Type(StrEnum):
    """What a part of an expression is."""

    FLAG = "a condition"
    NUMBER = "a number"
    TIME = "a time"
    TEXT = "a text"
    TEXTS = "a list of texts"


@dataclass(frozen=True, slots=True)
class Value:
    """A constant: bool, float (times in microseconds since 1970) or str."""

    value: bool | float | str
    type: Type


@dataclass(frozen=True, slots=True)
class Name:
    """A field."""

    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class Known:
    """Whether the value of a field is known."""

    field: Name
    type: Type = Type.FLAG


@dataclass(frozen=True, slots=True)
class Not:
    """The other way around."""

    part: Node
    type: Type = Type.FLAG


@dataclass(frozen=True, slots=True)
class Join:
    """All (`and`) or any (`or`) of several conditions."""

    sign: str
    parts: tuple[Node, ...]
    type: Type = Type.FLAG


@dataclass(frozen=True, slots=True)
class Compare:
    """Two values of one type; of texts one is a field, the other a constant, and the sign is == or !=."""

    sign: str
    left: Node
    right: Node
    type: Type = Type.FLAG


@dataclass(frozen=True, slots=True)
class Among:
    """A field that is one of some constants."""

    field: Node
    values: tuple[bool | float | str, ...]
    type: Type = Type.FLAG


@dataclass(frozen=True, slots=True)
class Within:
    """A text that is in a field of several."""

    value: str
    field: Name
    type: Type = Type.FLAG


@dataclass(frozen=True, slots=True)
class Sum:
    """Two numbers by + - * or /; a division by 0 is unknown."""

    sign: str
    left: Node
    right: Node
    type: Type = Type.NUMBER


@dataclass(frozen=True, slots=True)
class If:
    """One number where a condition holds, another one where it does not."""

    condition: Node
    then: Node
    otherwise: Node
    type: Type = Type.NUMBER


@dataclass(frozen=True, slots=True)
class Extreme:
    """The smallest (`min`) or the largest (`max`) of several numbers."""

    sign: str
    parts: tuple[Node, ...]
    type: Type = Type.NUMBER


Node = Value | Name | Known | Not | Join | Compare | Among | Within | Sum | If | Extreme


@dataclass(frozen=True)
class Expression:
    """An expression that was read; equal where its text and fields are."""

    text: str
    root: Node

    @cached_property
    def fields(self) -> frozenset[str]:
        """Names of the fields that it reads."""
        return frozenset(_names(self.root))


def parse(text: str, fields: Mapping[str, Type], *, wanted: Type = Type.FLAG) -> Expression:
    """Read an expression over `fields` that gives `wanted`.

    Raises ExpressionError with the place (0-based), what was wanted there and what was found.
    """
    reader = _Reader(text, fields)
    root = reader.whole()
    if root.type is not wanted:
        raise ExpressionError(0, f"{wanted.value} as a whole", root.type.value)
    return Expression(text, root)


class _Reader:
    """Recursive descent; every node is counted and knows its depth, every recursion is bounded."""

    def __init__(self, text: str, fields: Mapping[str, Type]) -> None:
        self._tokens = tokens(text)
        self._fields = fields
        self._place = 0
        self._num = 0
        self._level = 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._place]

    def whole(self) -> Node:
        node, _ = self._any()
        self._want("the end, or `and`, `or`, `in` or a comparison", self._next.sort is Sort.END)
        return node

    def _any(self) -> tuple[Node, int]:
        return self._joined("or", self._all)

    def _all(self) -> tuple[Node, int]:
        return self._joined("and", self._not)

    def _joined(self, sign: str, part: Callable[[], tuple[Node, int]]) -> tuple[Node, int]:
        at = self._next.at
        node, depth = part()
        parts = [node]
        while self._took(sign):
            self._typed(parts[-1], Type.FLAG, at)
            at = self._next.at
            node, below = part()
            parts, depth = [*parts, node], max(depth, below)
        if len(parts) == 1:
            return parts[0], depth
        self._typed(parts[-1], Type.FLAG, at)
        return self._made(Join(sign, tuple(parts)), depth)

    def _not(self) -> tuple[Node, int]:
        if not self._took("not"):
            return self._compared()
        at = self._next.at
        node, depth = self._deeper(self._not)
        return self._made(Not(self._typed(node, Type.FLAG, at)), depth)

    def _compared(self) -> tuple[Node, int]:
        at = self._next.at
        left, depth = self._sum()
        token = self._next
        if token.sort is Sort.SIGN and token.text in ("==", "!=", "<", "<=", ">", ">="):
            self._place += 1
            after = self._next.at
            right, below = self._sum()
            again = self._next
            self._want(
                "`and`, `or` or the end (comparisons are of two)",
                again.text not in ("==", "!=", "<", "<=", ">", ">=") or again.sort is not Sort.SIGN,
            )
            return self._made(_compare(token, left, right, at, after), max(depth, below))
        if token.sort is Sort.WORD and token.text in ("in", "not"):
            self._place += 1
            turned = token.text == "not"
            if turned:
                self._want("`in`", self._took("in"))
            found, depth = self._made(self._in(left, at), depth)
            return self._made(Not(found), depth) if turned else (found, depth)
        return left, depth

    def _in(self, left: Node, at: int) -> Node:
        token = self._next
        if token.text == "[" and token.sort is Sort.SIGN:
            if not isinstance(left, Name) or left.type in (Type.FLAG, Type.TEXTS):
                raise ExpressionError(at, "a field that is a text, a number or a time", _shown(left))
            self._place += 1
            return Among(left, self._list(left.type))
        node, _ = self._atom()
        if not isinstance(node, Name) or node.type is not Type.TEXTS:
            raise ExpressionError(token.at, "a list of values in [ ], or a field that is a list", token.found)
        if not isinstance(left, Value) or not isinstance(left.value, str):
            raise ExpressionError(at, f"a text in quotes before `in {node.name}`", _shown(left))
        return Within(left.value, node)

    def _list(self, type_: Type) -> tuple[bool | float | str, ...]:
        values = []
        while True:
            token = self._next
            node, _ = self._unary()
            values.append(_constant(node, type_, token).value)
            if self._took("]"):
                return tuple(values)
            self._want("`,` or `]`", self._took(","))

    def _sum(self) -> tuple[Node, int]:
        return self._chain(("+", "-"), lambda: self._chain(("*", "/"), self._unary))

    def _chain(self, signs: tuple[str, ...], part: Callable[[], tuple[Node, int]]) -> tuple[Node, int]:
        at = self._next.at
        left, depth = part()
        while self._next.sort is Sort.SIGN and self._next.text in signs:
            sign = self._next.text
            self._typed(left, Type.NUMBER, at)
            self._place += 1
            after = self._next.at
            right, below = part()
            self._typed(right, Type.NUMBER, after)
            left, depth = self._made(Sum(sign, left, right), max(depth, below))
        return left, depth

    def _unary(self) -> tuple[Node, int]:
        if not self._took("-"):
            return self._atom()
        at = self._next.at
        node, depth = self._deeper(self._unary)
        self._typed(node, Type.NUMBER, at)
        if isinstance(node, Value):
            assert not isinstance(node.value, str)
            return Value(-node.value, Type.NUMBER), depth
        return self._made(Sum("-", Value(0.0, Type.NUMBER), node), depth)

    def _atom(self) -> tuple[Node, int]:
        token = self._next
        self._place += token.sort is not Sort.END
        if token.sort is Sort.NUMBER:
            return self._made(Value(_number(token), Type.NUMBER), 0)
        if token.sort is Sort.TEXT:
            return self._made(Value(token.text, Type.TEXT), 0)
        if token.sort is Sort.SIGN and token.text == "(":
            found = self._deeper(self._any)
            self._want("`)`", self._took(")"))
            return found
        if token.sort is Sort.WORD:
            return self._word(token)
        raise ExpressionError(token.at, "a field or a value", token.found)

    def _word(self, token: Token) -> tuple[Node, int]:
        if token.text.lower() in ("true", "false"):
            return self._made(Value(token.text.lower() == "true", Type.FLAG), 0)
        if token.text == "known":
            self._want("`(` after `known`", self._took("("))
            at = self._next
            node, depth = self._deeper(self._atom)
            if not isinstance(node, Name):
                raise ExpressionError(at.at, "a field in `known(...)`", at.found)
            self._want("`)`", self._took(")"))
            return self._made(Known(node), depth)
        if token.text in ("if", "min", "max") and self._next.text == "(" and self._next.sort is Sort.SIGN:
            return self._call(token)
        if token.text not in self._fields or token.text in _RESERVED:
            raise ExpressionError(token.at, f"one of {', '.join(sorted(self._fields))}", token.found)
        return self._made(Name(token.text, self._fields[token.text]), 0)

    def _call(self, token: Token) -> tuple[Node, int]:
        self._want(f"`(` after `{token.text}`", self._took("("))
        parts: list[Node] = []
        deepest = 0
        while True:
            at = self._next.at
            node, depth = self._deeper(self._any)
            condition = token.text == "if" and not parts
            parts.append(self._typed(node, Type.FLAG if condition else Type.NUMBER, at))
            deepest = max(deepest, depth)
            if token.text == "if" and len(parts) == 3:
                self._want("`)`: `if` is of a condition and two numbers", self._took(")"))
                return self._made(If(parts[0], parts[1], parts[2]), deepest)
            if token.text != "if" and len(parts) > 1 and self._took(")"):
                return self._made(Extreme(token.text, tuple(parts)), deepest)
            more = "" if token.text != "if" and len(parts) > 1 else f" (more parts of `{token.text}`)"
            self._want("`,`" + (more or " or `)`"), self._took(","))

    def _made(self, node: Node, depth: int) -> tuple[Node, int]:
        self._num += 1
        if self._num > MAX_NODES:
            raise ExpressionError(self._next.at, f"at most {MAX_NODES} parts", "more")
        if depth + 1 > MAX_DEPTH:
            raise ExpressionError(self._next.at, f"parts at most {MAX_DEPTH} deep", "deeper ones")
        return node, depth + 1

    def _deeper(self, part: Callable[[], tuple[Node, int]]) -> tuple[Node, int]:
        self._level += 1
        if self._level > MAX_DEPTH:
            raise ExpressionError(self._next.at, f"parts at most {MAX_DEPTH} deep", "deeper ones")
        found = part()
        self._level -= 1
        return found

    def _took(self, text: str) -> bool:
        token = self._next
        took = token.text == text and token.sort in (Sort.SIGN, Sort.WORD)
        self._place += took
        return took

    def _want(self, what: str, there: bool) -> None:
        if not there:
            raise ExpressionError(self._next.at, what, self._next.found)

    @staticmethod
    def _typed(node: Node, wanted: Type, at: int) -> Node:
        if node.type is not wanted:
            raise ExpressionError(at, wanted.value, _shown(node))
        return node


def _compare(token: Token, left: Node, right: Node, at: int, after: int) -> Compare:
    """Check that two sides can be compared, and read a text that stands beside a time as one."""
    if left.type is Type.TIME and isinstance(right, Value) and right.type is Type.TEXT:
        right = Value(_time(str(right.value), after), Type.TIME)
    elif right.type is Type.TIME and isinstance(left, Value) and left.type is Type.TEXT:
        left = Value(_time(str(left.value), at), Type.TIME)
    if left.type in (Type.FLAG, Type.TEXTS):
        wanted = "no comparison: a condition stands alone" if left.type is Type.FLAG else '`"..." in` a list'
        raise ExpressionError(token.at, wanted, repr(token.text))
    if right.type is not left.type:
        raise ExpressionError(after, left.type.value, _shown(right))
    if left.type is Type.TEXT:
        if token.text not in ("==", "!="):
            raise ExpressionError(token.at, "`==` or `!=` between texts", repr(token.text))
        if isinstance(left, Name) == isinstance(right, Name):
            raise ExpressionError(after, "a field on one side, a text on the other", _shown(right))
    return Compare(token.text, left, right)


def _constant(node: Node, type_: Type, token: Token) -> Value:
    if isinstance(node, Value) and type_ is Type.TIME and node.type is Type.TEXT:
        return Value(_time(str(node.value), token.at), Type.TIME)
    if not isinstance(node, Value) or node.type is not type_:
        raise ExpressionError(token.at, f"{type_.value} that is written out", token.found)
    return node


def _time(text: str, at: int) -> float:
    """Microseconds since 1970 of a date or an instant."""
    try:
        moment = datetime.fromisoformat(text.upper()) if _TIME.fullmatch(text) else None
    except ValueError:
        moment = None
    if moment is None:
        raise ExpressionError(at, 'a time, e.g. "2020-01-31" or "2020-01-31T12:00:00Z"', repr(text))
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return float((moment - _EPOCH) // timedelta(microseconds=1))


def _number(token: Token) -> float:
    value = float(token.text)
    if not math.isfinite(value):
        raise ExpressionError(token.at, "a finite number", token.found)
    return value


def _shown(node: Node) -> str:
    if isinstance(node, Name):
        return f"{node.type.value} ({node.name})"
    return f"{node.type.value} ({node.value!r})" if isinstance(node, Value) else node.type.value


def _names(node: Node) -> list[str]:
    match node:
        case Name():
            return [node.name]
        case Value():
            return []
        case Known() | Within():
            return [node.field.name]
        case Among():
            return _names(node.field)
        case Not():
            return _names(node.part)
        case Join():
            return [name for part in node.parts for name in _names(part)]
        case Extreme():
            return [name for part in node.parts for name in _names(part)]
        case If():
            return [*_names(node.condition), *_names(node.then), *_names(node.otherwise)]
        case Compare() | Sum():
            return [*_names(node.left), *_names(node.right)]
