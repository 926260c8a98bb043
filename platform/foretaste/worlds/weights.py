"""Mechanism «weights»: every intent makes titles likelier by a factor of its own, all at once.

A compensatory rule: a multinomial logit whose utility is the sum of the logarithms of the factors (McFadden 1974), so
that what a title lacks in one intent it can make up in another. The factors take the place of habit, and in sessions
that depart from the taste the taste is set aside.

    appeal x taste x kind leaning x hype x genre x kind x recency x action x slate

Shapes: S sessions, X some of them (`rows`), N titles, G genres.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.intents import Intent
from foretaste.contracts.truth import PLANTED_INTENTS
from foretaste.worlds.choices import SEEN_OTHERWISE, Offer
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.intents import (
    CONTINUE,
    DISCOVER,
    NEW,
    NEW_DAYS,
    OLDER,
    OLDER_DAYS,
    RETURN,
    Intents,
    Visitors,
    draw_actions,
    draw_genres,
)

KIND_FACTOR = 5.0
NEW_FACTOR = 8.0
OLDER_FACTOR = 3.0
SEEN_WHEN_DISCOVERING = 0.02
CONTINUED = 400.0
RETURNED = 400.0

_CONTINUE_ODDS = 0.34
_RETURN_ODDS = 0.14
_ANY_KIND = 0.35
_RECENCY_ODDS = (0.2, 0.15)


def draw_intents(config: WorldConfig, visitors: Visitors, rng: np.random.Generator) -> Intents:
    """Draw an intent for every session: a genre and an action each; kind and recency at times, when discovering.

    In a world without intents the same is drawn, never departs, and is ignored.
    """
    num = len(visitors.taste_SG)
    departs_S, genre_S = draw_genres(visitors.taste_SG, config.departure_share if config.intents else 0.0, rng)
    action_S = draw_actions(visitors, _CONTINUE_ODDS, _RETURN_ODDS, rng)
    discovers_S = action_S == DISCOVER

    wants_show_S = rng.random(num) < np.where(departs_S, 0.5, visitors.show_share_S)
    any_kind_S = (rng.random(num) < _ANY_KIND) | ~discovers_S
    new, older = _RECENCY_ODDS
    r_S = rng.random(num)
    recency_S = np.where(r_S < new, NEW, np.where(r_S < new + older, OLDER, -1))
    return Intents(
        departs_S=departs_S,
        genre_S=genre_S,
        kind_S=np.where(any_kind_S, -1, wants_show_S.astype(np.int64)),
        action_S=action_S,
        recency_S=np.where(discovers_S, recency_S, -1),
        order_SA=np.full((num, len(PLANTED_INTENTS)), -1),
    )


class Weights:
    """The sessions of a round whose intents weigh titles; the weights stay until the session ends."""

    def __init__(self, offer: Offer, intents: Intents) -> None:
        self.offer, self.intents = offer, intents
        self.num_sated_S = np.zeros_like(intents.genre_S)
        show_N = offer.titles.show_N
        self._genre_GN = np.exp(offer.config.intent_strength * offer.titles.genre_NG.T)
        for_movies_N, for_shows_N = np.where(show_N, 1.0, KIND_FACTOR), np.where(show_N, KIND_FACTOR, 1.0)
        self._kind_3N = np.stack([for_movies_N, for_shows_N, np.ones(len(show_N))])  # -1, «any», is the last row
        rows = np.arange(len(intents.genre_S))
        weight_SN = offer.habits.base_2MN[intents.departs_S.astype(np.int64), offer.member_S]
        weight_SN *= offer.fresh_SN
        weight_SN *= self._genre_GN[intents.genre_S]
        weight_SN *= self._kind_3N[intents.kind_S]
        weight_SN *= self._recency_factor(rows)
        weight_SN *= self._action_factor(rows)
        self._weight_SN = offer.show(weight_SN, rows)

    def weigh(self, rows: NDArray[np.int64], without: Intent | None = None) -> NDArray[np.float64]:
        """Multiply the factors of all intents but `without`, of which also the departure from the taste is one."""
        weight_XN = self._weight_SN[rows]
        if without is Intent.GENRE:
            weight_XN /= self._genre_GN[self.intents.genre_S[rows]]
            x = np.flatnonzero(self.intents.departs_S[rows])
            taste_2XN = self.offer.habits.base_2MN[:, self.offer.member_S[rows[x]]]
            weight_XN[x] *= taste_2XN[0] / taste_2XN[1]
        elif without is Intent.KIND:
            weight_XN /= self._kind_3N[self.intents.kind_S[rows]]
        elif without is Intent.RECENCY:
            weight_XN /= self._recency_factor(rows)
        elif without is Intent.ACTION:
            weight_XN *= self.offer.habit(rows) / self._action_factor(rows)
        return weight_XN

    def match(self, rows: NDArray[np.int64], chosen_X: NDArray[np.int64]) -> NDArray[np.float64]:
        """Three quarters for the genre, as far as the title is of it, and one for the kind."""
        genre_X = self.offer.titles.genre_NG[chosen_X, self.intents.genre_S[rows]]
        kind_X = self.intents.kind_S[rows]
        kind_fits_X = (kind_X < 0) | (kind_X == self.offer.titles.show_N[chosen_X])
        return np.asarray(0.75 * genre_X + 0.25 * kind_fits_X)

    def move_on(self, rows: NDArray[np.int64], chosen_X: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Weigh no more what was chosen."""
        self._weight_SN[rows, chosen_X] = 0.0

    def _recency_factor(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        recency_X1, age_XN = self.intents.recency_S[rows][:, None], self.offer.age_SN[rows]
        factor_XN = np.where((recency_X1 == NEW) & (age_XN <= NEW_DAYS), NEW_FACTOR, 1.0)
        factor_XN[(recency_X1 == OLDER) & (age_XN > OLDER_DAYS)] = OLDER_FACTOR
        return factor_XN

    def _action_factor(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        past, action_X = self.offer.past, self.intents.action_S[rows]
        unwanted_X1 = np.where(action_X == DISCOVER, SEEN_WHEN_DISCOVERING, SEEN_OTHERWISE)[:, None]
        factor_XN = np.where(past.seen_SN[rows], unwanted_X1, 1.0)
        for action, wanted, factor in ((CONTINUE, past.to_continue, CONTINUED), (RETURN, past.to_return, RETURNED)):
            x = np.flatnonzero(action_X == action)
            factor_XN[x] = np.where(wanted(rows[x]), factor, factor_XN[x])
        return factor_XN
