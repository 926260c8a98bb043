"""What a session is for: drawn once as it opens, unknown to the service.

Shapes: S sessions, N titles, G genres. Codes: genre as in names.GENRES, kind 0 movie and 1 show,
action as in contracts.truth.PLANTED_ACTIONS, recency as in RECENCY; -1 is «any».
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.truth import PLANTED_ACTIONS
from foretaste.worlds.config import WorldConfig

RECENCY = ("new", "older")
NEW_DAYS = 30
OLDER_DAYS = 365
DISCOVER, CONTINUE, RETURN = (PLANTED_ACTIONS.index(name) for name in ("discover", "continue", "return"))

_CONTINUE_ODDS = 0.34
_RETURN_ODDS = 0.14
_ANY_KIND = 0.35
_RECENCY_ODDS = (0.2, 0.15)


@dataclass(frozen=True)
class Intents:
    """One of each per session."""

    departs_S: NDArray[np.bool_]
    genre_S: NDArray[np.int64]
    kind_S: NDArray[np.int64]
    action_S: NDArray[np.int64]
    recency_S: NDArray[np.int64]


def draw_intents(
    config: WorldConfig,
    taste_SG: NDArray[np.float64],
    show_share_S: NDArray[np.float64],
    can_continue_S: NDArray[np.bool_],
    can_return_S: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Intents:
    """Draw an intent for every session.

    The genre is drawn from the member's taste, or, in sessions that depart from it, evenly among the genres that
    the member likes less than average. Someone with nothing to continue or return to discovers. Kind and recency
    are only wished for when discovering. In a world without intents the same is drawn, never departs, and is ignored.
    """
    num, genres = taste_SG.shape
    departs_S = np.less(rng.random(num), config.departure_share if config.intents else 0.0)
    disliked_SG = (taste_SG < 1.0 / genres).astype(np.float64)
    odds_SG = np.where(departs_S[:, None], disliked_SG / disliked_SG.sum(axis=1, keepdims=True), taste_SG)
    genre_S = pick(odds_SG, rng)

    u_S = rng.random(num)
    action_S = np.full(num, DISCOVER)
    action_S[can_continue_S & (u_S < _CONTINUE_ODDS)] = CONTINUE
    action_S[can_return_S & (u_S > 1.0 - _RETURN_ODDS)] = RETURN
    discovers_S = action_S == DISCOVER

    wants_show_S = rng.random(num) < np.where(departs_S, 0.5, show_share_S)
    any_kind_S = (rng.random(num) < _ANY_KIND) | ~discovers_S
    new, older = _RECENCY_ODDS
    r_S = rng.random(num)
    recency_S = np.where(r_S < new, 0, np.where(r_S < new + older, 1, -1))
    return Intents(
        departs_S=departs_S,
        genre_S=genre_S,
        kind_S=np.where(any_kind_S, -1, wants_show_S.astype(np.int64)),
        action_S=action_S,
        recency_S=np.where(discovers_S, recency_S, -1),
    )


def pick(odds_SX: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw one column per row with the odds of the row, which need not sum to one."""
    cumulative_SX = np.cumsum(odds_SX, axis=1)
    u_S = rng.random(len(odds_SX)) * cumulative_SX[:, -1]
    return np.asarray(np.minimum((cumulative_SX <= u_S[:, None]).sum(axis=1), odds_SX.shape[1] - 1))
