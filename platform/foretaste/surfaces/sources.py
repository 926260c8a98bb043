"""Where titles of a pool come from beside the model's own scores: each source is a pure function with a reason.

Shapes: N1 rows by catalogue code, D width of title vectors, T interactions of one history, S titles of the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import UNKNOWN_TIME, Catalogue
from foretaste.contracts.controls import ControlsConfig, Source
from foretaste.contracts.events import ACTION_CODES, Action
from foretaste.contracts.histories import Histories

Codes = NDArray[np.int32]

TASTED, FINISHED = 0.05, 0.9
"""Played fractions below which a title was only tried, and from which it is over."""
_PLAYS = [ACTION_CODES[a] for a in (Action.PLAY, Action.STOP, Action.COMPLETE)]
_COMPLETE = ACTION_CODES[Action.COMPLETE]
_DAY_US = 86_400e6


class Likeness:
    """Which titles are like which: cosines between an intent model's title vectors."""

    def __init__(self, title_N1D: NDArray[np.float32]) -> None:
        """Row 0 is an unknown title, like nothing."""
        norm_N11 = np.sqrt((title_N1D.astype(np.float64) ** 2).sum(axis=1, keepdims=True))
        self._unit_N1D = (title_N1D / np.where(norm_N11 > 0, norm_N11, 1.0)).astype(np.float32)
        self._unit_N1D[0] = 0.0

    def to_all(self, codes_S: Codes) -> NDArray[np.float32]:
        """Mean likeness of every title to some, -1 to 1; float32[N1]."""
        return np.asarray(self._unit_N1D @ self._unit_N1D[codes_S].mean(axis=0))

    def nearest(self, codes_C: Codes, codes_S: Codes) -> Codes:
        """Which of some titles each of others is most like; int32[C]."""
        return np.asarray(codes_S[(self._unit_N1D[codes_C] @ self._unit_N1D[codes_S].T).argmax(axis=1)])


@dataclass(frozen=True, slots=True)
class Brought:
    """The titles that each source has, and which title of the session a similar one is most like."""

    codes: Mapping[Source, Codes]
    like: Mapping[int, int]  # code -> code

    @property
    def all(self) -> Codes:
        """All of them, in order of precedence; a title may stand twice."""
        return np.concatenate([np.zeros(0, dtype=np.int32), *self.codes.values()])

    def by(self, code: int) -> list[Source]:
        """Sources of a title."""
        return [source for source, codes in self.codes.items() if code in codes]


def bring(
    config: ControlsConfig,
    *,
    blocked_N1: NDArray[np.bool_],
    asof: int,
    catalogue: Catalogue,
    history: Histories,
    plays_7d_N1: NDArray[np.int64],
    session_S: Codes,
    likeness: Likeness | None,
    shown: Codes,
) -> Brought:
    """Ask every source; `session_S` are titles of the session, newest first, `shown` those of the list before.

    `asof` in microseconds; without a likeness nothing is similar.
    """
    codes = {
        Source.SHOWN: shown[~blocked_N1[shown]],
        Source.CONTINUE: begun(history, catalogue, blocked_N1, size=config.continue_watching),
    }
    like: dict[int, int] = {}
    session_S = session_S[session_S > 0]
    if likeness is not None and len(session_S) and config.similar:
        codes[Source.SIMILAR], like = similar(likeness, session_S, blocked_N1, size=config.similar)
    if config.trending:
        codes[Source.TRENDING] = trending(plays_7d_N1, blocked_N1, size=config.trending)
    if config.new_releases:
        codes[Source.NEW] = new_releases(
            catalogue.released_N1, blocked_N1, asof=asof, days=config.new_days, size=config.new_releases
        )
    return Brought({source: found for source, found in codes.items() if len(found)}, like)


def begun(history: Histories, catalogue: Catalogue, blocked_N1: NDArray[np.bool_], *, size: int) -> Codes:
    """Titles of one history that were begun and not finished, the newest first; a series goes on until it is blocked.

    What its newest play says counts: one that stopped below `TASTED` was only tried.
    """
    found: list[int] = []
    known: set[int] = {0}
    played_T = np.isin(history.action_T, _PLAYS) | ~np.isnan(history.fraction_T)
    for place in np.flatnonzero(played_T)[::-1].tolist() if size else []:
        code, fraction = int(history.title_T[place]), float(history.fraction_T[place])
        if code in known:
            continue
        known.add(code)
        over = int(history.action_T[place]) == _COMPLETE or fraction >= FINISHED
        if not blocked_N1[code] and not fraction < TASTED and (not over or catalogue.series_N1[code]):
            found.append(code)
            if len(found) == size:
                break
    return np.array(found, dtype=np.int32)


def similar(
    likeness: Likeness, session_S: Codes, blocked_N1: NDArray[np.bool_], *, size: int
) -> tuple[Codes, dict[int, int]]:
    """Titles most like those of the session by their mean likeness, and which of these each is most like."""
    mean_N1 = likeness.to_all(session_S)
    mean_N1[blocked_N1] = -np.inf
    mean_N1[session_S] = -np.inf
    codes = _largest(mean_N1, size, above=0.0)
    return codes, dict(zip(codes.tolist(), likeness.nearest(codes, session_S).tolist(), strict=True))


def trending(plays_7d_N1: NDArray[np.int64], blocked_N1: NDArray[np.bool_], *, size: int) -> Codes:
    """Titles with the most plays of the last seven days, equal ones by code; none without plays."""
    return _largest(np.where(blocked_N1, 0, plays_7d_N1).astype(np.float64), size, above=0.0)


def new_releases(
    released_N1: NDArray[np.int64], blocked_N1: NDArray[np.bool_], *, asof: int, days: float, size: int
) -> Codes:
    """Titles released in the last `days` days as of `asof` (microseconds), the newest first, equal ones by code."""
    may_N1 = ~blocked_N1 & (released_N1 != UNKNOWN_TIME) & (released_N1 <= asof)
    at_N1 = np.where(may_N1, released_N1, UNKNOWN_TIME).astype(np.float64)
    return _largest(at_N1, size, above=asof - days * _DAY_US)


def _largest(values_N1: NDArray[np.floating[Any]], size: int, *, above: float) -> Codes:
    codes = np.flatnonzero(values_N1 > above)
    if size == 0 or not len(codes):
        return np.zeros(0, dtype=np.int32)
    values = values_N1[codes]
    if len(codes) > size:
        least = np.partition(values, len(values) - size)[len(values) - size]
        codes, values = codes[values >= least], values[values >= least]
    return codes[np.argsort(-values, kind="stable")][:size].astype(np.int32)
