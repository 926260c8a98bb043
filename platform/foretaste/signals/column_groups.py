"""Columns of candidates that come from one source each: what was done with the title, the slow views, the signals.

Shapes: B requests, C candidates each, G genres, W values of a signal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import LabelConfig
from foretaste.contracts.relations import (
    CONTINUE_SERIES,
    FROM_LIST,
    NEVER,
    RESUME_UNFINISHED,
    RETURN_AFTER_GAP,
    REWATCH,
    Past,
    relations,
)
from foretaste.signals.crosses import DAY_US, asked_for, chance, expected, log_hours
from foretaste.signals.views import MemberView, TitleView

_RELATIONS = {
    "continues": CONTINUE_SERIES,
    "resumes": RESUME_UNFINISHED,
    "returns": RETURN_AFTER_GAP,
    "rewatches": REWATCH,
    "from_list": FROM_LIST,
}
Signals = Mapping[str, NDArray[Any]]
"""Signals of B requests by name, [B, W] each; one that is missing counts nothing."""


def own_history(
    histories: Histories,
    asof_B: NDArray[np.int64],
    first_B: NDArray[np.int64],
    candidates_BC: NDArray[np.int32],
    catalogue: Catalogue,
    labels: LabelConfig,
) -> tuple[NDArray[np.int32], dict[str, NDArray[Any]]]:
    """What choosing each title would be, and the columns of what was done with it before."""
    row_BC = np.broadcast_to(np.arange(len(asof_B))[:, None], candidates_BC.shape)
    past, newest_BC = Past(histories, labels).of(row_BC, candidates_BC)
    relation_BC = relations(past, catalogue.series_N1[candidates_BC], asof_B[:, None], labels)
    seen_BC, chosen_BC = past.touched_at_X != NEVER, past.chosen_at_X != NEVER
    some_B = first_B < histories.offsets_B1[1:]
    begun_B = np.where(some_B, histories.at_T[np.minimum(first_B, len(histories.at_T) - 1)], 0) if some_B.any() else 0
    columns: dict[str, NDArray[Any]] = {
        "seen_in_session": newest_BC >= first_B[:, None],
        "chosen_in_session": chosen_BC & some_B[:, None] & (past.chosen_at_X >= np.reshape(begun_B, (-1, 1))),
        "seen_before": seen_BC,
        "since_seen": log_hours(past.touched_at_X, asof_B[:, None], seen_BC),
        "since_chosen": log_hours(past.chosen_at_X, asof_B[:, None], chosen_BC),
        "finished": past.finished_X,
        "listed": past.listed_X,
    }
    return relation_BC, columns | {name: relation_BC == code for name, code in _RELATIONS.items()}


def slow(
    members: MemberView,
    titles: TitleView,
    candidates_BC: NDArray[np.int32],
    genres_BCG: NDArray[np.float64],
    kind_BC: NDArray[np.integer],
    asof_B: NDArray[np.int64],
) -> dict[str, NDArray[Any]]:
    """The columns of the slow views."""
    first_ms_BC = titles.first_seen_ms[candidates_BC]
    days_BC = np.where(first_ms_BC > 0, (asof_B[:, None] - first_ms_BC * 1000) / DAY_US, 0.0)
    plays = {name: np.log1p(getattr(titles, name)[candidates_BC]) for name in _PLAYS}
    return {
        **plays,
        "member_genre": expected(genres_BCG, members.genre_affinity_BG),
        "member_kind": chance(members.kind_affinity_BK, kind_BC),
        "completion_rate": titles.completion_rate[candidates_BC],
        "first_seen": np.log1p(np.maximum(days_BC, 0.0)),
    }


_PLAYS = ("plays_1d", "plays_7d", "plays_30d", "plays_all")


def signalled(
    signals: Signals,
    catalogue: Catalogue,
    candidates_BC: NDArray[np.int32],
    genres_BCG: NDArray[np.float64],
    kind_BC: NDArray[np.integer],
) -> dict[str, NDArray[Any]]:
    """The columns of the request's signals; 0 where there are none."""
    words_BP = signals.get("query_tokens")
    asked = words_BP is not None and words_BP.any()
    return {
        "session_genre_yes": expected(genres_BCG, signals.get("session_genres_lately")),
        "session_genre_no": expected(genres_BCG, signals.get("session_genres_refused")),
        "past_genre": expected(genres_BCG, signals.get("past_genres")),
        "past_kind": chance(signals.get("past_kinds"), kind_BC),
        "query_match": asked_for(words_BP, catalogue.words_N1P[candidates_BC])
        if words_BP is not None and asked
        else np.zeros(candidates_BC.shape),
    }
