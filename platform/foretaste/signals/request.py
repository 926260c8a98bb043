"""What an actor's events say at the instant of a request: the history that preparation would make of them.

Shapes: E events visible, sorted by (at, event_id), T of them engagement, R interactions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.events import ACTION_CODES, ENGAGEMENT
from foretaste.contracts.histories import Histories
from foretaste.contracts.sessions import SessionRule, entries, session_starts, ways
from foretaste.signals.interactions import runs


def visible_history(
    events: Sequence[Mapping[str, Any]], *, asof: int, catalogue: Catalogue, rule: SessionRule
) -> Histories:
    """Make the history, B = 1, of one actor's events before `asof` (exclusive, microseconds since 1970).

    `events` are rows of a session log in any order: EVENTS columns with `at` in microseconds; null columns may be
    absent, other columns (sequence) are ignored; of two with one event_id the earlier counts. Sessions are numbered
    from the first event given. An event of an unknown action is no engagement.
    """
    distinct: dict[str, Mapping[str, Any]] = {}
    for event in sorted((e for e in events if e["at"] < asof), key=lambda e: (e["at"], e["event_id"])):
        distinct.setdefault(event["event_id"], event)
    visible = list(distinct.values())
    session_E = _sessions(visible, rule)
    action_E = np.array([ACTION_CODES.get(e["action"], -1) for e in visible], dtype=np.int32)
    entry_E = entries(action_E, ways(session_E, action_E))
    engaged = [place for place, e in enumerate(visible) if e["action"] in ENGAGEMENT]
    rows = [visible[place] for place in engaged]
    title_ids = [catalogue.series_of.get(e["title_id"], e["title_id"]) for e in rows]
    names = {title_id: number for number, title_id in enumerate(dict.fromkeys(title_ids))}
    collapsed = runs(
        session_E[engaged],
        np.array([names[title_id] for title_id in title_ids], dtype=np.int32),
        np.array([ACTION_CODES[e["action"]] for e in rows], dtype=np.int32),
        _numbers(rows, "dwell_seconds"),
        _numbers(rows, "played_fraction"),
    )
    first_R = collapsed.first_R
    return Histories(
        offsets_B1=np.array([0, len(first_R)], dtype=np.int64),
        title_T=catalogue.codes([title_ids[place] for place in first_R]),
        action_T=collapsed.action_R,
        at_T=np.array([rows[place]["at"] for place in first_R], dtype=np.int64),
        session_T=session_E[engaged][first_R].astype(np.int32),
        dwell_T=collapsed.dwell_R.astype(np.float32),
        fraction_T=collapsed.fraction_R.astype(np.float32),
        entry_T=entry_E[engaged][first_R],
    )


def _sessions(visible: Sequence[Mapping[str, Any]], rule: SessionRule) -> NDArray[np.int64]:
    """0-based session of each event, of whatever action."""
    native: dict[str, int] = {}
    named = [e.get("session_id") for e in visible]
    codes = [-1 if name is None else native.setdefault(name, len(native)) for name in named]
    starts_E = session_starts(
        np.zeros(len(visible), dtype=np.int64),
        np.array([e["at"] for e in visible], dtype=np.int64),
        np.array(codes, dtype=np.int64),
        rule=rule,
    )
    return np.cumsum(starts_E, dtype=np.int64) - 1


def _numbers(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    values = (row.get(name) for row in rows)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
