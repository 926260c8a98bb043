"""How deep a body may be nested."""

from __future__ import annotations

from typing import Any, TypeVar

from fastapi import HTTPException

MAX_DEPTH = 32
T = TypeVar("T")


class FieldError(HTTPException):
    """A field that is refused before the body is looked at as a whole."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(422, f"{field or 'body'}: {message}")
        self.field = field
        self.message = message


def checked_depth(value: T, *, most: int = MAX_DEPTH) -> T:
    """The value itself. Raises FieldError naming where lists and objects are nested deeper than `most`."""
    found = _too_deep(value, most)
    if found is not None:
        raise FieldError(".".join(found), f"is nested deeper than {most} levels")
    return value


def _too_deep(value: Any, left: int) -> list[str] | None:
    """Path to the first list or object that is too deep."""
    if isinstance(value, dict):
        parts: Any = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    else:
        return None
    if left == 0:
        return []
    for name, part in parts:
        if isinstance(part, dict | list) and (found := _too_deep(part, left - 1)) is not None:
            return [str(name), *found]
    return None
