"""What is planted, as it is drawn, and the truth tables that it becomes.

Shapes: S sessions of the partition, X choices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.columns import AT, conform
from foretaste.contracts.truth import (
    PLANTED_ACTIONS,
    PLANTED_INTENTS,
    TRUTH_CHOICES,
    TRUTH_SATISFACTION,
    TRUTH_SESSIONS,
)
from foretaste.worlds.config import DAY_US, WorldConfig
from foretaste.worlds.intents import RECENCY
from foretaste.worlds.log import DEVICES, SessionNames, numbered, opaque
from foretaste.worlds.members import COUNTRIES, Members
from foretaste.worlds.names import GENRES
from foretaste.worlds.titles import KINDS, Titles

Columns = dict[str, NDArray[Any]]


@dataclass
class Records:
    """Grows by whole arrays, one call a round for sessions, one a step for choices."""

    num_sessions: int = 0
    _sessions: list[Columns] = field(default_factory=list)
    _choices: list[Columns] = field(default_factory=list)

    def sessions(self, **columns: NDArray[Any]) -> None:
        """Record the sessions of a round, in order of their number."""
        self._sessions.append(columns)
        self.num_sessions += len(columns["member"])

    def choices(self, **columns: NDArray[Any]) -> None:
        """Record choices."""
        self._choices.append(columns)

    def session_columns(self) -> Columns:
        """Every session, in order of its number."""
        return _joined(self._sessions)

    def choice_columns(self, *, before: int) -> Columns:
        """Choices strictly before a moment, in order of session and step."""
        whole = _joined(self._choices)
        if not whole:
            return whole
        order = np.lexsort((whole["step"], whole["session"]))
        order = order[whole["at"][order] < before]
        return {name: column[order] for name, column in whole.items()}


def _joined(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def session_names(config: WorldConfig, members: Members, sessions: Columns, *, partition: int) -> SessionNames:
    """Name the sessions; ids tell neither who nor when."""
    member_S = pa.array(sessions["member"])
    number_S = numbered(partition, np.arange(len(member_S)))
    return SessionNames(
        session_id=opaque(config.seed, "session", number_S),
        decision_id=opaque(config.seed, "decision", number_S),
        member_id=pa.array(members.ids).take(pa.array(sessions["member"], mask=sessions["guest"])),
        country=pa.array(COUNTRIES).take(pa.array(members.country_M)).take(member_S),
        device=pa.array(DEVICES).take(pa.array(sessions["device"])),
    )


def truth_sessions(members: Members, sessions: Columns, session_id: pa.Array) -> pa.Table:
    """TRUTH_SESSIONS of a partition."""
    table = pa.table(
        {
            "session_id": session_id,
            "member_id": pa.array(members.ids).take(pa.array(sessions["member"])),
            "guest": sessions["guest"],
            "started_at": pa.array(sessions["started_at"], AT),
            "ended_at": pa.array(sessions["ended_at"], AT),
            "departs": sessions["departs"],
            "genre": pa.array(GENRES).take(_or_null(sessions["genre"])),
            "kind": pa.array(KINDS).take(_or_null(sessions["kind"])),
            "action": pa.array(PLANTED_ACTIONS).take(_or_null(sessions["action"])),
            "recency": pa.array(RECENCY).take(_or_null(sessions["recency"])),
            "aspects": _named(sessions["aspects"]),
            "num_choices": sessions["num_choices"],
            "primary_intent": pa.array(PLANTED_INTENTS).take(_or_null(sessions["primary_intent"])),
            **{f"information_{intent}": sessions["information"][:, a] for a, intent in enumerate(PLANTED_INTENTS)},
        }
    )
    return conform(table, TRUTH_SESSIONS, what="truth of sessions")


def truth_choices(titles: Titles, choices: Columns, session_id: pa.Array) -> pa.Table:
    """TRUTH_CHOICES of a partition."""
    table = pa.table(
        {
            **{name: choices[name] for name in TRUTH_CHOICES.names if name not in ("session_id", "title_id", "at")},
            "session_id": session_id.take(pa.array(choices["session"])),
            "title_id": pa.array(titles.ids).take(pa.array(choices["title"])),
            "at": pa.array(choices["at"], AT),
        }
    )
    return conform(table, TRUTH_CHOICES, what="truth of choices")


def truth_satisfaction(config: WorldConfig, sessions: Columns, session_id: pa.Array) -> pa.Table:
    """TRUTH_SATISFACTION of a partition."""
    horizon_S = sessions["ended_at"] + 7 * DAY_US
    table = pa.table(
        {
            "session_id": session_id,
            "satisfaction": sessions["satisfaction"],
            "mean_match": sessions["mean_match"],
            "mean_fraction": sessions["mean_fraction"],
            "returned_at": pa.array(sessions["returned_at"], AT),
            "returned_within_7d": sessions["returned_at"] <= horizon_S,
            "observable": horizon_S < config.end_us,
        }
    )
    return conform(table, TRUTH_SATISFACTION, what="truth of satisfaction")


def _named(order_SA: NDArray[np.int64]) -> pa.Array:
    """Lists of intents in their order, null where it is empty."""
    length_S = (order_SA >= 0).sum(axis=1)
    offset_S1 = np.concatenate([[0], np.cumsum(length_S)])
    intents = pa.array(PLANTED_INTENTS).take(pa.array(order_SA[order_SA >= 0]))
    return pa.ListArray.from_arrays(pa.array(offset_S1, pa.int32()), intents, mask=pa.array(length_S == 0))


def _or_null(code_S: NDArray[Any]) -> pa.Array:
    return pa.array(code_S, mask=code_S < 0)
