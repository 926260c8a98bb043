"""What a look at a deployment found, and what to mend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """How something is."""

    GOOD = "good"
    WARNING = "warning"  # works, and will not always
    BAD = "bad"  # has to be mended
    SKIPPED = "not looked at"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    state: State
    found: str
    mend: str = ""  # what to do; empty where nothing is to be done

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"state": self.state.value}


def good(check: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(check, State.GOOD, found)


def warning(check: str, found: str, mend: str) -> Finding:
    """Works, and will not always."""
    return Finding(check, State.WARNING, found, mend)


def bad(check: str, found: str, mend: str) -> Finding:
    """Has to be mended."""
    return Finding(check, State.BAD, found, mend)


def skipped(check: str, why: str) -> Finding:
    """Could not be looked at, and does not have to be."""
    return Finding(check, State.SKIPPED, why)


Look = Callable[[], Iterable[Finding]]


def looked(check: str, look: Look) -> Iterator[Finding]:
    """Look; what raises is a finding, so that the rest is looked at, too."""
    try:
        yield from look()
    except Exception as error:  # whatever it is, it is in the way of this check alone
        yield bad(
            check, f"{type(error).__name__}: {error}", "mend what the message says; nothing more was looked at here"
        )
