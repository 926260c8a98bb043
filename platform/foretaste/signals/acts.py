"""What actors did that answers may know: the events that preparation would keep too, divided into sessions.

Left out are events that happen to a member without their doing, events of actions or titles that are not known, and
events before the release of their title: before sessions are made, so that they divide and join nothing.

Shapes: B answers (each of one actor as of one instant), E events of all of them, sorted by (answer, at, event_id),
T of them engagement, R interactions, S sessions, P places of titles, Q queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import NO_TITLE, NOWHERE, Catalogue
from foretaste.contracts.events import ACTION_CODES, ACTIONS, ENGAGEMENT, NEEDS_TITLE, PASSIVE
from foretaste.contracts.histories import Histories
from foretaste.contracts.sessions import SessionRule, entries, session_starts, ways
from foretaste.signals.interactions import Runs, runs

UNKNOWN = -1
"""Code of an action that is none of the contract's, of no query and of no native session."""
_COUNTS = np.array([action not in PASSIVE for action in ACTIONS] + [False])  # the last is UNKNOWN's
_NEEDS = np.array([action in NEEDS_TITLE for action in ACTIONS] + [False])
_ENGAGED = np.array([action in ENGAGEMENT for action in ACTIONS] + [False])
_IN_ORDER = itemgetter("at", "event_id")


@dataclass(frozen=True, slots=True)
class Columns:
    """Events as arrays, not yet divided into sessions; row e of one is row e of all."""

    at_E: NDArray[np.int64]  # microseconds since 1970
    action_E: NDArray[np.int32]  # events.ACTION_CODES, or UNKNOWN
    place_E: NDArray[np.int32]  # catalogue.place_of
    native_E: NDArray[np.int64]  # a number a native session, or UNKNOWN
    dwell_E: NDArray[np.float64]  # seconds, NaN when unknown
    fraction_E: NDArray[np.float64]  # 0..1, NaN when unknown
    query_E: NDArray[np.int32]  # index into the queries, or UNKNOWN

    def rows(self, index_E: NDArray[np.int64] | NDArray[np.bool_]) -> Columns:
        """Pick events."""
        return Columns(*(getattr(self, name)[index_E] for name in Columns.__slots__))

    def kept(self, catalogue: Catalogue) -> NDArray[np.bool_]:
        """Say which events count."""
        kept_E: NDArray[np.bool_] = _COUNTS[self.action_E] & (self.place_E != NOWHERE)
        kept_E &= self.at_E >= catalogue.released_P[self.place_E]
        kept_E &= ~_NEEDS[self.action_E] | (self.place_E != NO_TITLE)
        return kept_E


@dataclass(frozen=True, slots=True)
class Acts:
    """Events that count of B answers, and what they make: sessions and interactions."""

    asof_B: NDArray[np.int64]
    offsets_B1: NDArray[np.int64]  # events of answer b are offsets_B1[b]:offsets_B1[b + 1]
    columns: Columns
    queries: Sequence[str]  # Q
    title_E: NDArray[np.int32]  # catalogue code, 0 for none
    session_E: NDArray[np.int64]  # 0-based, over all answers: two of them share none
    engaged_T: NDArray[np.int64]  # index into E
    runs: Runs  # of the events of T

    @property
    def event_R(self) -> NDArray[np.int64]:
        """Index into E of the first event of each interaction."""
        return self.engaged_T[self.runs.first_R]

    def histories(self) -> Histories:
        """The interactions as models read them; sessions are numbered from the first event of each answer."""
        first_R = self.event_R
        interactions_B1 = np.searchsorted(first_R, self.offsets_B1)
        row_R = np.repeat(np.arange(len(self.asof_B)), np.diff(interactions_B1))
        entry_E = entries(self.columns.action_E, ways(self.session_E, self.columns.action_E))
        return Histories(
            offsets_B1=interactions_B1.astype(np.int64),
            title_T=self.title_E[first_R],
            action_T=self.runs.action_R,
            at_T=self.columns.at_E[first_R],
            session_T=(self.session_E[first_R] - self.session_E[self.offsets_B1[row_R]]).astype(np.int32),
            dwell_T=self.runs.dwell_R.astype(np.float32),
            fraction_T=self.runs.fraction_R.astype(np.float32),
            entry_T=entry_E[first_R],
        )


def acts(
    columns: Columns,
    offsets_B1: NDArray[np.int64],
    asof_B: NDArray[np.int64],
    queries: Sequence[str],
    *,
    catalogue: Catalogue,
    rule: SessionRule,
) -> Acts:
    """Divide the visible events of B answers, sorted, into sessions and interactions; those that do not count go."""
    kept_E = columns.kept(catalogue)
    if not kept_E.all():
        offsets_B1 = np.concatenate([[0], np.cumsum(kept_E)])[offsets_B1]
        columns = columns.rows(kept_E)
    row_E = np.repeat(np.arange(len(asof_B)), np.diff(offsets_B1))
    session_E = np.cumsum(session_starts(row_E, columns.at_E, columns.native_E, rule=rule), dtype=np.int64) - 1
    title_E = catalogue.code_P[columns.place_E]
    engaged_T = np.flatnonzero(_ENGAGED[columns.action_E])
    collapsed = runs(
        session_E[engaged_T],
        title_E[engaged_T],
        columns.action_E[engaged_T],
        columns.dwell_E[engaged_T],
        columns.fraction_E[engaged_T],
    )
    return Acts(asof_B, offsets_B1, columns, queries, title_E, session_E, engaged_T, collapsed)


def acts_of_one(events: Sequence[Mapping[str, Any]], *, asof: int, catalogue: Catalogue, rule: SessionRule) -> Acts:
    """Take one actor's events before `asof` (exclusive, microseconds since 1970), B = 1.

    `events` are rows of a session log in any order: EVENTS columns with `at` in microseconds; null columns may be
    absent, other columns (sequence) are ignored; of two with one event_id the earlier counts.
    """
    visible = sorted([event for event in events if event["at"] < asof], key=_IN_ORDER)
    if len({event["event_id"] for event in visible}) < len(visible):
        distinct: dict[str, Mapping[str, Any]] = {}
        for event in visible:
            distinct.setdefault(event["event_id"], event)
        visible = list(distinct.values())
    places = catalogue.place_of
    _, native_E = _numbered([event.get("session_id") for event in visible])
    queries, query_E = _numbered([event.get("query") for event in visible])
    columns = Columns(
        at_E=np.array([event["at"] for event in visible], dtype=np.int64),
        action_E=np.array([ACTION_CODES.get(event["action"], UNKNOWN) for event in visible], dtype=np.int32),
        place_E=np.array([places.get(event.get("title_id"), NOWHERE) for event in visible], dtype=np.int32),
        native_E=native_E,
        dwell_E=np.array([event.get("dwell_seconds") for event in visible], dtype=np.float64),
        fraction_E=np.array([event.get("played_fraction") for event in visible], dtype=np.float64),
        query_E=query_E.astype(np.int32),
    )
    return acts(
        columns,
        np.array([0, len(visible)], dtype=np.int64),
        np.array([asof], dtype=np.int64),
        queries,
        catalogue=catalogue,
        rule=rule,
    )


def _numbered(names: Sequence[str | None]) -> tuple[list[str], NDArray[np.int64]]:
    """Distinct names and the number of each; null is UNKNOWN."""
    distinct = [name for name in dict.fromkeys(names) if name is not None]
    if not distinct:
        return [], np.full(len(names), UNKNOWN, dtype=np.int64)
    number_of = {None: UNKNOWN} | {name: number for number, name in enumerate(distinct)}
    return distinct, np.array([number_of[name] for name in names], dtype=np.int64)
