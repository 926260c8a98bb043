"""What a session is for: drawn once as it opens, unknown to the service.

Shapes: S sessions, X some of them, G genres, A the intents in the order of contracts.truth.PLANTED_INTENTS.
Codes: genre as in names.GENRES, kind 0 movie and 1 show, action as in contracts.truth.PLANTED_ACTIONS, recency as in
RECENCY; -1 is «any».
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.truth import PLANTED_ACTIONS

RECENCY = ("new", "older")
NEW, OLDER = range(2)
NEW_DAYS = 30
OLDER_DAYS = 365
DISCOVER, CONTINUE, RETURN = (PLANTED_ACTIONS.index(name) for name in ("discover", "continue", "return"))


@dataclass(frozen=True)
class Intents:
    """One of each per session, as it opens."""

    departs_S: NDArray[np.bool_]
    genre_S: NDArray[np.int64]
    kind_S: NDArray[np.int64]
    action_S: NDArray[np.int64]
    recency_S: NDArray[np.int64]
    order_SA: NDArray[np.int64]  # their numbers, what comes first first, -1 after the last; all -1: no order

    @property
    def wished_SA(self) -> NDArray[np.bool_]:
        """Which intents a session has."""
        return np.stack([self.action_S, self.genre_S, self.kind_S, self.recency_S], axis=1) >= 0


@dataclass(frozen=True)
class Visitors:
    """What of the members bears on what they come for."""

    taste_SG: NDArray[np.float64]
    show_share_S: NDArray[np.float64]
    can_continue_S: NDArray[np.bool_]
    can_return_S: NDArray[np.bool_]


def draw_genres(
    taste_SG: NDArray[np.float64], departure_share: float, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Draw whether sessions depart from the taste, and their genres.

    The genre is drawn from the member's taste, or, in sessions that depart from it, evenly among the genres that
    the member likes less than average.
    """
    num, genres = taste_SG.shape
    departs_S = np.less(rng.random(num), departure_share)
    disliked_SG = (taste_SG < 1.0 / genres).astype(np.float64)
    odds_SG = np.where(departs_S[:, None], disliked_SG / disliked_SG.sum(axis=1, keepdims=True), taste_SG)
    return departs_S, pick(odds_SG, rng)


def draw_actions(
    visitors: Visitors, continue_odds: float, return_odds: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw what to do; someone with nothing to continue or return to discovers."""
    u_S = rng.random(len(visitors.taste_SG))
    action_S = np.full(len(u_S), DISCOVER)
    action_S[visitors.can_continue_S & (u_S < continue_odds)] = CONTINUE
    action_S[visitors.can_return_S & (u_S > 1.0 - return_odds)] = RETURN
    return action_S


def pick(odds_SX: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw one column per row with the odds of the row, which need not sum to one."""
    cumulative_SX = np.cumsum(odds_SX, axis=1)
    u_S = rng.random(len(odds_SX)) * cumulative_SX[:, -1]
    return np.asarray(np.minimum((cumulative_SX <= u_S[:, None]).sum(axis=1), odds_SX.shape[1] - 1))
