"""The words of an expression: tokens with their places, and the error that names a place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

MAX_LENGTH = 2_000
"""Characters of the longest expression."""
LONGEST_FOUND = 40

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<number>[0-9]{1,15}(?:\.[0-9]{1,15})?(?:[eE][+-]?[0-9]{1,2})?)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<sign>==|!=|<=|>=|[<>()\[\],+\-*/])
      | (?P<text>"(?:[^"\\\n]|\\["\\])*"|'(?:[^'\\\n]|\\['\\])*')""",
    re.VERBOSE | re.ASCII,
)
_ESCAPED = re.compile(r"\\(.)")


class ExpressionError(ValueError):
    """What is wrong with an expression, where, and what was wanted there."""

    def __init__(self, at: int, wanted: str, found: str) -> None:
        shown = found if len(found) <= LONGEST_FOUND else found[: LONGEST_FOUND - 3] + "..."
        super().__init__(f"at character {at}: wanted {wanted}, found {shown}")
        self.at = at  # 0-based
        self.wanted = wanted
        self.found = shown


class Sort(Enum):
    """What a token is."""

    NUMBER = "number"
    TEXT = "text"
    WORD = "word"
    SIGN = "sign"
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of an expression; `text` is as it was written, of a TEXT what stands between the quotes."""

    sort: Sort
    text: str
    at: int

    @property
    def found(self) -> str:
        """How an error shows it."""
        return "the end" if self.sort is Sort.END else repr(self.text)


def tokens(text: str) -> list[Token]:
    """Divide an expression into tokens, the last one being its end; time grows with its length alone.

    Raises ExpressionError for one longer than MAX_LENGTH and for a character that begins no token.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(MAX_LENGTH, f"at most {MAX_LENGTH} characters", f"{len(text)}")
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            wanted = "the other end of a text" if text[at] in "\"'" else "a field, a value or a sign"
            raise ExpressionError(at, wanted, repr(text[at : at + 1]))
        if match.lastgroup != "space":
            found.append(_token(match, at))
        at = match.end()
    return [*found, Token(Sort.END, "", len(text))]


def _token(match: re.Match[str], at: int) -> Token:
    whole = match.group()
    sort = Sort(match.lastgroup)
    return Token(sort, _ESCAPED.sub(r"\1", whole[1:-1]) if sort is Sort.TEXT else whole, at)
