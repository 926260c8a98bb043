"""The signals of a request, declared: what each is called, how it is shaped, and what it is where nothing is known.

Every signal is a function of the events visible to an answer, the instant of the answer and the catalogue. Sums are of
integers (counts, milliseconds, millionths, weights in fixed point), divided once at the end: no order of events, size
of batch or kind of processor changes a bit. The functions are in `signals.in_session` and `signals.cross_session`.

A session is open at an instant that an event would have to fall into to belong to it. Signals of the open session are
their fallback where none is open; those of the sessions before it then speak of the newest ones.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import GENRE_PARTS, Catalogue
from foretaste.contracts.events import ACTIONS, Action
from foretaste.contracts.words import TOKEN_PLACES

REVISION = 1
"""To be raised when a function changes what it gives although the declaration stays."""

POSITIVE: tuple[str, ...] = (
    Action.FOLLOW,
    Action.COMMENT,
    Action.ADD_TO_LIST,
    Action.RATE,
    Action.STOP,
    Action.PLAY,
    Action.COMPLETE,
    Action.THUMB_UP,
)
"""Interactions that say yes to a title, unless it was abandoned."""
ABANDONED: tuple[str, ...] = (Action.STOP, Action.PLAY)
"""Interactions that say no to a title where less than ABANDON_BELOW of it was played."""
ABANDON_BELOW = 100_000  # millionths of a title
COMPLETE_FROM = 900_000
STEPS_TO_HALF = 3  # interactions after which one counts half in what a session has turned to
WEIGHT_BITS = 20  # of the newest interaction's weight; one that weighs less than 1 counts nothing
MILLION = 1_000_000
LONGEST_DWELL_SECONDS = 1e7
LAST_TITLES = 5
PAST_SESSIONS = 3
AWAY_DAYS = 7  # since the last visit, after which a member has returned

NEVER = -1.0
"""A time or a share that there is none of."""
CODES = "catalogue code"
GENRES, KINDS, BY_ACTION = "genres", "kinds", "actions"
"""Widths that are those of a list of names."""


@dataclass(frozen=True, slots=True)
class Signal:
    """What one signal is."""

    name: str
    dtype: str  # of numpy
    width: int | str  # values, or GENRES, KINDS, BY_ACTION: one a name
    unit: str
    description: str
    fallback: float = 0.0  # where nothing is known

    def names(self, catalogue: Catalogue) -> tuple[str, ...] | None:
        """What the values are of, where each has a name."""
        lists = {GENRES: catalogue.genres, KINDS: catalogue.kinds, BY_ACTION: ACTIONS}
        return lists[self.width] if isinstance(self.width, str) else None

    def size(self, catalogue: Catalogue) -> int:
        """Number of values for a catalogue."""
        names = self.names(catalogue)
        return int(self.width) if names is None else len(names)

    def cold(self, size: int, catalogue: Catalogue) -> NDArray[np.generic]:
        """Fallback of `size` members: [B, width]."""
        return np.full((size, self.size(catalogue)), self.fallback, dtype=self.dtype)


def _count(name: str, description: str, *, width: int | str = 1, unit: str = "count") -> Signal:
    return Signal(name, "int64", width, unit, description)


def _time(name: str, unit: str, description: str) -> Signal:
    return Signal(name, "float32", 1, unit, description, fallback=NEVER)


def _shares(name: str, width: str, description: str) -> Signal:
    return Signal(name, "float32", width, "share", description)


def _fraction(name: str, description: str) -> Signal:
    return Signal(name, "float32", 1, "fraction of a title", description, fallback=NEVER)


SESSION_SIGNALS: tuple[Signal, ...] = (
    _count("session_depth", "events of the open session"),
    _time("session_age", "seconds", "since the first event of the open session"),
    _time("idle", "seconds", "since the newest event of all"),
    _count("session_actions", "events of the open session by action", width=BY_ACTION),
    _count("session_interactions", "interactions of the open session"),
    _count("session_titles", "distinct titles that the open session says yes to"),
    _count("session_last_titles", "codes of the newest of them, newest first", width=LAST_TITLES, unit=CODES),
    _shares("session_genres", GENRES, "genres of the interactions that say yes"),
    _shares("session_kinds", KINDS, "kinds of the interactions that say yes"),
    _shares("session_genres_lately", GENRES, "the same, newer interactions counting more"),
    _shares("session_kinds_lately", KINDS, "the same, newer interactions counting more"),
    Signal("session_dwell", "float32", 1, "seconds", "spent with titles in the open session"),
    _fraction("session_fraction_mean", "mean over the interactions of which it is known"),
    _fraction("session_fraction_max", "largest of the open session"),
    _count("session_completed", "interactions of the open session that completed a title"),
    _count("session_searches", "searches of the open session"),
    _time("since_search", "seconds", "since the newest search of the open session"),
    _count("query_tokens", "words of the open session's newest query, hashed", width=TOKEN_PLACES),
    _count("session_thumbs_down", "interactions of the open session with a thumb down"),
    _count("session_removes", "titles removed from a list in the open session"),
    _count("session_abandons", "interactions of the open session that were given up early"),
    _shares("session_genres_refused", GENRES, "genres of what was thumbed down, removed or abandoned"),
    _count("num_sessions", "sessions that are visible, the open one included"),
    _count("past_sessions", f"sessions before the open one that the following speak of, at most {PAST_SESSIONS}"),
    _shares("past_genres", GENRES, "genres of their interactions that say yes"),
    _shares("past_kinds", KINDS, "kinds of their interactions that say yes"),
    Signal("past_depth", "float32", 1, "events a session", "their mean length"),
    _fraction("past_fraction_mean", "mean over their interactions of which it is known"),
    _time("away", "hours", "from the newest event before the open session to the instant"),
    _count("returned", f"1 where a visit begins over {AWAY_DAYS} days after the one before", unit="flag"),
)
"""Every signal of a request, in the order in which they are logged."""

_CONSTANTS = {
    name: value for name, value in sorted(globals().items()) if name.isupper() and isinstance(value, int | float)
} | {"POSITIVE": list(POSITIVE), "ABANDONED": list(ABANDONED), "ACTIONS": list(ACTIONS), "GENRE_PARTS": GENRE_PARTS}


def _fingerprint() -> str:
    declared = [[signal.name, signal.dtype, signal.width, signal.unit, signal.fallback] for signal in SESSION_SIGNALS]
    text = json.dumps([_CONSTANTS, declared], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


SIGNALS_VERSION = _fingerprint()
"""Twelve hexadecimal digits that change with any declaration or constant."""
