"""What the signals of a request are made of: the open session and those before it, as whole numbers.

Shapes: B answers, E events, R interactions, S sessions, X events or interactions, W columns, G genres, K kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.events import ACTION_CODES, Action
from foretaste.contracts.sessions import SessionRule, still_open
from foretaste.signals.acts import Acts
from foretaste.signals.declared import (
    ABANDON_BELOW,
    ABANDONED,
    LONGEST_DWELL_SECONDS,
    MILLION,
    NEVER,
    PAST_SESSIONS,
    POSITIVE,
    STEPS_TO_HALF,
    WEIGHT_BITS,
)

Whole = NDArray[np.int64]
_POSITIVE, _ABANDONED = (np.isin(list(ACTION_CODES), list(names)) for names in (POSITIVE, ABANDONED))


def weight(steps: int) -> int:
    """Weight of the interaction that so many newer ones follow, the newest one's being 2 ** WEIGHT_BITS.

    The largest whole number not above 2 ** (WEIGHT_BITS - steps / STEPS_TO_HALF): the guess is checked exactly.
    """
    power = WEIGHT_BITS * STEPS_TO_HALF - steps
    guess: int = round(2.0 ** (power / STEPS_TO_HALF))
    return guess - 1 if guess**STEPS_TO_HALF > 2**power else guess


WEIGHTS = np.array([weight(steps) for steps in range(WEIGHT_BITS * STEPS_TO_HALF + 1)] + [0], dtype=np.int64)
"""Weights by steps; the last stands for all that follow."""


@dataclass(frozen=True, slots=True)
class Spans:
    """A stretch of events (or interactions) an answer: first_B:stop_B."""

    first_B: Whole
    stop_B: Whole

    @property
    def sizes_B(self) -> Whole:
        """How many there are."""
        return self.stop_B - self.first_B

    def of(self, index_X: Whole) -> Spans:
        """Take the stretches of those events that are at `index_X`, ascending."""
        return Spans(np.searchsorted(index_X, self.first_B), np.searchsorted(index_X, self.stop_B))

    def sums(self, values_X: NDArray[np.generic]) -> Whole:
        """Sum whole numbers (or flags) over each stretch: of values [X] or [X, W] to [B, 1] or [B, W]."""
        wide_XW = values_X if values_X.ndim == 2 else values_X[:, None]
        if len(self.first_B) == 1:  # the same, without the sums of what is outside
            part_XW = wide_XW[int(self.first_B[0]) : int(self.stop_B[0])]
            return np.asarray(part_XW.sum(axis=0, dtype=np.int64)[None])
        sums_X1W = np.zeros((len(wide_XW) + 1, wide_XW.shape[1]), dtype=np.int64)
        np.cumsum(wide_XW, axis=0, out=sums_X1W[1:])
        return np.asarray(sums_X1W[self.stop_B] - sums_X1W[self.first_B])

    def largest(self, values_X: Whole) -> Whole:
        """Largest over each stretch, -1 over an empty one: int64[B, 1]. Stretches follow each other."""
        edges = np.empty(2 * len(self.first_B), dtype=np.int64)
        edges[::2], edges[1::2] = self.first_B, self.stop_B
        found_B = np.maximum.reduceat(np.append(values_X, -1), edges)[::2]
        return np.where(self.sizes_B > 0, found_B, -1)[:, None]

    def rows(self) -> tuple[Whole, Whole]:
        """Answer and index of everything in the stretches."""
        row_X = np.repeat(np.arange(len(self.first_B)), self.sizes_B)
        begin_B = np.cumsum(self.sizes_B) - self.sizes_B
        return row_X, np.arange(len(row_X)) + (self.first_B - begin_B)[row_X]


class Scene:
    """Visible events of B answers as the signals look at them."""

    def __init__(self, acts: Acts, catalogue: Catalogue, rule: SessionRule) -> None:
        self.acts, self.catalogue, self.asof_B = acts, catalogue, acts.asof_B
        begin_B, stop_B = acts.offsets_B1[:-1], acts.offsets_B1[1:]
        self.at_E, self.action_E = acts.columns.at_E, acts.columns.action_E
        self.newest_B = pick(self.at_E, stop_B - 1, stop_B > begin_B)
        self.some_B = stop_B > begin_B
        self.open_B = self.some_B & still_open(self.newest_B, self.asof_B, rule=rule)
        opens_S = np.flatnonzero(np.diff(acts.session_E, prepend=-1))
        session_S1 = np.append(opens_S, len(self.at_E))
        first_B1 = np.searchsorted(opens_S, acts.offsets_B1)  # sessions of answer b are first_B1[b]:first_B1[b + 1]
        self.num_sessions_B: Whole = np.diff(first_B1)
        cut_B = first_B1[1:] - self.open_B
        past_B = np.maximum(first_B1[:-1], cut_B - PAST_SESSIONS)
        self.num_past_B: Whole = cut_B - past_B
        self.now_E = Spans(session_S1[cut_B], stop_B)
        self.past_E = Spans(session_S1[past_B], session_S1[cut_B])
        self.before_E = Spans(begin_B, session_S1[cut_B])
        event_R = acts.event_R
        self.now_R, self.past_R = self.now_E.of(event_R), self.past_E.of(event_R)
        self.title_R = acts.title_E[event_R]
        self.action_R = acts.runs.action_R

    @cached_property
    def fraction_R(self) -> Whole:
        """Largest played fraction of each interaction in millionths, -1 when unknown."""
        fraction_R = self.acts.runs.fraction_R
        return np.rint(np.where(np.isnan(fraction_R), -1.0, fraction_R * MILLION)).astype(np.int64)

    @cached_property
    def dwell_R(self) -> Whole:
        """Milliseconds spent in each interaction; each event's are rounded, then summed."""
        seconds_T = self.acts.columns.dwell_E[self.acts.engaged_T]
        known_T = np.where(np.isnan(seconds_T), 0.0, np.minimum(seconds_T, LONGEST_DWELL_SECONDS))
        ms_T = np.rint(known_T * 1000.0).astype(np.int64)
        return np.add.reduceat(ms_T, self.acts.runs.first_R) if len(ms_T) else ms_T

    @cached_property
    def abandoned_R(self) -> NDArray[np.bool_]:
        """Interactions that were given up early."""
        early_R = (self.fraction_R >= 0) & (self.fraction_R < ABANDON_BELOW)
        return np.asarray(_ABANDONED[self.action_R] & early_R)

    @cached_property
    def yes_R(self) -> NDArray[np.bool_]:
        """Interactions that say yes to their title."""
        return np.asarray(_POSITIVE[self.action_R] & ~self.abandoned_R)

    @cached_property
    def genres_RG(self) -> Whole:
        """Weight of each interaction's title, divided between its genres."""
        return np.asarray(self.catalogue.genre_parts_N1G[self.title_R])

    @cached_property
    def kinds_RK(self) -> Whole:
        """1 at the kind of each interaction's title."""
        is_RK = self.catalogue.kind_N1[self.title_R][:, None] == np.arange(len(self.catalogue.kinds))
        return np.asarray(is_RK, dtype=np.int64)

    @cached_property
    def lately_R1(self) -> Whole:
        """Weight of each interaction of the open session by those that follow, 0 where it says no: int64[R, 1]."""
        row_X, index_X = self.now_R.rows()
        weight_R = np.zeros(len(self.action_R), dtype=np.int64)
        steps_X = self.now_R.stop_B[row_X] - 1 - index_X
        weight_R[index_X] = WEIGHTS[np.minimum(steps_X, len(WEIGHTS) - 1)]
        return np.asarray((weight_R * self.yes_R)[:, None])

    @cached_property
    def titles_X(self) -> tuple[Whole, Whole]:
        """Distinct titles that open sessions say yes to: answer, and newest interaction; the newest first."""
        row_X, index_X = self.now_R.rows()
        yes_X = self.yes_R[index_X]
        row_X, index_X = row_X[yes_X][::-1], index_X[yes_X][::-1]
        key_X = row_X * (len(self.catalogue) + 1) + self.title_R[index_X]
        place = np.sort(np.unique(key_X, return_index=True)[1])
        place = place[np.argsort(row_X[place], kind="stable")]
        return row_X[place], index_X[place]

    @cached_property
    def actions_BA(self) -> Whole:
        """Events of the open session by action."""
        row_X, index_X = self.now_E.rows()
        width = len(ACTION_CODES)
        counts = np.bincount(row_X * width + self.action_E[index_X], minlength=len(self.asof_B) * width)
        return counts.reshape(-1, width).astype(np.int64)

    def performed(self, action: Action) -> Whole:
        """How many events of the open session are of an action: int64[B, 1]."""
        code = ACTION_CODES[action]
        return self.actions_BA[:, code : code + 1]


def since(asof_B: Whole, at_B: Whole, some_B: NDArray[np.bool_], *, unit_us: int) -> NDArray[np.float32]:
    """Time from `at_B` to the instant in a unit of so many microseconds, NEVER where there is none: [B, 1]."""
    return np.where(some_B, (asof_B - at_B) / unit_us, NEVER).astype(np.float32)[:, None]


def shares(parts_BW: Whole) -> NDArray[np.float32]:
    """Divide whole parts by their total; 0 throughout where that is 0."""
    total_B1 = parts_BW.sum(axis=1, keepdims=True)
    return np.asarray(parts_BW / np.maximum(total_B1, 1), dtype=np.float32)


def mean(total_B1: Whole, count_B1: Whole, *, unit: int, otherwise: float) -> NDArray[np.float32]:
    """Divide a total by a count and a unit; `otherwise` where the count is 0."""
    return np.where(count_B1 > 0, total_B1 / np.maximum(count_B1 * unit, 1), otherwise).astype(np.float32)


def pick(values_X: Whole, index_B: Whole, some_B: NDArray[np.bool_]) -> Whole:
    """Pick values, 0 where there is none."""
    found_B = np.zeros(len(index_B), dtype=np.int64)
    found_B[some_B] = values_X[index_B[some_B]]
    return found_B
