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
        self._weight_SN = self._weights(np.arange(len(intents.genre_S)), None)

    def weigh(self, rows: NDArray[np.int64], without: Intent | None = None) -> NDArray[np.float64]:
        """Multiply the factors of all intents but `without`, of which also the departure from the taste is one."""
        if without is None:
            return self._weight_SN[rows]
        return self._weights(rows, without) * (self._weight_SN[rows] > 0)

    def match(self, rows: NDArray[np.int64], chosen_X: NDArray[np.int64]) -> NDArray[np.float64]:
        """Three quarters for the genre, as far as the title is of it, and one for the kind."""
        genre_X = self.offer.titles.genre_NG[chosen_X, self.intents.genre_S[rows]]
        kind_X = self.intents.kind_S[rows]
        kind_fits_X = (kind_X < 0) | (kind_X == self.offer.titles.show_N[chosen_X])
        return np.asarray(0.75 * genre_X + 0.25 * kind_fits_X)

    def move_on(self, rows: NDArray[np.int64], chosen_X: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Weigh no more what was chosen."""
        self._weight_SN[rows, chosen_X] = 0.0

    def _weights(self, rows: NDArray[np.int64], without: Intent | None) -> NDArray[np.float64]:
        offer, intents = self.offer, self.intents
        departs_X = intents.departs_S[rows] & (without != Intent.GENRE)
        weight_XN = offer.habits.base_2MN[departs_X.astype(np.int64), offer.member_S[rows]]
        weight_XN *= offer.fresh_SN[rows]
        if without != Intent.GENRE:
            genre_GN = np.exp(offer.config.intent_strength * offer.titles.genre_NG.T)
            weight_XN *= genre_GN[intents.genre_S[rows]]
        if without != Intent.KIND:
            weight_XN *= self._kind_XN(intents.kind_S[rows])
        if without != Intent.RECENCY:
            self._apply_recency(weight_XN, rows)
        if without != Intent.ACTION:
            self._apply_action(weight_XN, rows)
        else:
            weight_XN *= offer.habit(rows)
        return offer.show(weight_XN, rows)

    def _kind_XN(self, kind_X: NDArray[np.int64]) -> NDArray[np.float64]:
        show_N = self.offer.titles.show_N
        movie_N, either_N = np.where(show_N, 1.0, KIND_FACTOR), np.ones(len(show_N))
        factor_3N = np.stack([movie_N, np.where(show_N, KIND_FACTOR, 1.0), either_N])
        return np.asarray(factor_3N[kind_X])  # -1, «any», is the last row

    def _apply_recency(self, weight_XN: NDArray[np.float64], rows: NDArray[np.int64]) -> None:
        recency_X, age_SN = self.intents.recency_S[rows], self.offer.age_SN
        new_X, older_X = (np.flatnonzero(recency_X == code) for code in (NEW, OLDER))
        weight_XN[new_X] *= np.where(age_SN[rows[new_X]] <= NEW_DAYS, NEW_FACTOR, 1.0)
        weight_XN[older_X] *= np.where(age_SN[rows[older_X]] > OLDER_DAYS, OLDER_FACTOR, 1.0)

    def _apply_action(self, weight_XN: NDArray[np.float64], rows: NDArray[np.int64]) -> None:
        past, action_X = self.offer.past, self.intents.action_S[rows]
        for action, wanted_SN, factor in (
            (DISCOVER, None, SEEN_WHEN_DISCOVERING),
            (CONTINUE, past.to_continue_SN, CONTINUED),
            (RETURN, past.to_return_SN, RETURNED),
        ):
            x = np.flatnonzero(action_X == action)
            seen = past.seen_SN[rows[x]]
            if wanted_SN is None:
                weight_XN[x] *= np.where(seen, factor, 1.0)
            else:
                weight_XN[x] *= np.where(wanted_SN[rows[x]], factor, np.where(seen, SEEN_OTHERWISE, 1.0))
