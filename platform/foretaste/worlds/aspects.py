"""Mechanism «aspects»: what lacks an aspect is out, and taste decides among what is left.

A non-compensatory rule, elimination by aspects (Tversky, Psychological Review 1972), of which three things are taken:
aspects come one after the other, the sooner the more important they are, in an order that is drawn; what lacks one
is out whatever else it has; and an aspect that nothing left has is passed over. Two things are as later work found
them: elimination only narrows the choice, and among what is left one weighs all in all (Payne 1976; consider then
choose: Hauser and Wernerfelt 1990); attention is random (Manzini and Mariotti, Econometrica 2014), so that any title
can be chosen. What was had loses its pull within the session (satiation of attributes: McAlister 1982).

A session has one to four aspects, k = 0 the first. At every choice each is attended to with its probability a_k, on its
own, and then what lacks it is out. With `h` the weights of habit (taste is never set aside),

    P(n) = sum over sets T of aspects of  odds(T) h_n [n in C_T] / sum_{m in C_T} h_m,
    odds(T) = product of a_k over k in T and of 1 - a_k over the others

and C_T what is left by the aspects of T, in their order. After a choice that has the first aspect, this is sated with
probability SATIATION: it falls away and the others move up.

Titles are alike to this but for `h` and which aspects they have, so all is computed per set of aspects, of which there
are 16, and not per title.

Shapes: S sessions, X some of them (`rows`), N titles, A = 4 intents (also places of the order), C = 16 sets of intents
(as bits).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.intents import Intent
from foretaste.contracts.truth import PLANTED_INTENTS
from foretaste.worlds.choices import Offer, liking
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.intents import (
    CONTINUE,
    DISCOVER,
    NEW,
    NEW_DAYS,
    OLDER,
    OLDER_DAYS,
    Intents,
    Visitors,
    draw_actions,
    draw_genres,
    pick,
)

IMPORTANCE = {Intent.ACTION: 1.0, Intent.GENRE: 1.0, Intent.KIND: 1.0, Intent.RECENCY: 1.0}
"""Odds of each aspect to come next in the order: nothing published says that one of them leads."""
SATIATION = 0.2

_DEPTH_ODDS = (0.3, 0.4, 0.2, 0.1)  # of one to four aspects
_CONTINUE_ODDS = 0.5
_RETURN_ODDS = 0.2
_NEW_ODDS = 0.6

_NUM = len(PLANTED_INTENTS)
_ACTION, _GENRE, _KIND, _RECENCY = range(_NUM)
_HAS_CA = (np.arange(2**_NUM)[:, None] >> np.arange(_NUM)[None, :]) & 1 == 1  # whether a set has an intent


def attention(config: WorldConfig) -> NDArray[np.float64]:
    """Probability with which the aspect at each place of the order is attended to, [A]; 0.86, 0.63, 0.39, 0.22."""
    return np.asarray(1.0 - np.exp(-config.intent_strength / 2.0 ** (1.0 + np.arange(_NUM))))


def draw_intents(config: WorldConfig, visitors: Visitors, rng: np.random.Generator) -> Intents:
    """Draw one to four aspects for every session, in order, and what is wished of each.

    In a world without intents the same is drawn, never departs, and is ignored.
    """
    num = len(visitors.taste_SG)
    depth_S = pick(np.broadcast_to(_DEPTH_ODDS, (num, _NUM)), rng) + 1
    # the order of odds without replacement is that of exponential waits (Yellott 1977)
    wait_SA = rng.exponential(1.0, (num, _NUM)) / np.array([IMPORTANCE[intent] for intent in PLANTED_INTENTS])
    order_SA = np.where(np.arange(_NUM) < depth_S[:, None], np.argsort(wait_SA, axis=1, kind="stable"), -1)
    departs_S, genre_S = draw_genres(visitors.taste_SG, config.departure_share if config.intents else 0.0, rng)
    action_S = draw_actions(visitors, _CONTINUE_ODDS, _RETURN_ODDS, rng)
    kind_S = (rng.random(num) < visitors.show_share_S).astype(np.int64)
    recency_S = np.where(rng.random(num) < _NEW_ODDS, NEW, OLDER)
    wished_SA = (order_SA[:, :, None] == np.arange(_NUM)).any(axis=1)
    return Intents(
        departs_S=departs_S & wished_SA[:, _GENRE],
        genre_S=np.where(wished_SA[:, _GENRE], genre_S, -1),
        kind_S=np.where(wished_SA[:, _KIND], kind_S, -1),
        action_S=np.where(wished_SA[:, _ACTION], action_S, -1),
        recency_S=np.where(wished_SA[:, _RECENCY], recency_S, -1),
        order_SA=order_SA,
    )


class Aspects:
    """The sessions of a round that eliminate by aspects."""

    def __init__(self, offer: Offer, intents: Intents) -> None:
        self.offer = offer
        self.num_sated_S = np.zeros_like(intents.genre_S)
        self._order_SA = intents.order_SA.copy()  # as it is now: what is sated moves out
        self._attention_A = attention(offer.config)
        self._set_SN = _sets(offer, intents)

    def weigh(self, rows: NDArray[np.int64], without: Intent | None = None) -> NDArray[np.float64]:
        """Give the probabilities themselves; an aspect left out leaves its place to nobody."""
        habitual_XN, set_XN = self.offer.habitual_SN[rows], self._set_SN[rows]
        cell_XN = set_XN * len(rows) + np.arange(len(rows))[:, None]
        habit_CX = np.zeros((2**_NUM, len(rows)))
        habit_CX += np.bincount(cell_XN.ravel(), habitual_XN.ravel(), habit_CX.size).reshape(habit_CX.shape)
        order_XA = self._order_SA[rows]
        if without is not None:
            order_XA = np.where(order_XA == PLANTED_INTENTS.index(without), -1, order_XA)
        habitual_XN *= self._chances(habit_CX, order_XA).ravel()[cell_XN]
        return habitual_XN

    def match(self, rows: NDArray[np.int64], chosen_X: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of the aspects still wished for that titles have; where none is left, how well they are liked."""
        place_XA = self._order_SA[rows]
        has_XA = _HAS_CA[self._set_SN[rows, chosen_X][:, None], place_XA] & (place_XA >= 0)
        num_X = (place_XA >= 0).sum(axis=1)
        share_X = has_XA.sum(axis=1) / np.maximum(num_X, 1)
        return np.where(num_X > 0, share_X, liking(self.offer, rows, chosen_X))

    def move_on(self, rows: NDArray[np.int64], chosen_X: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Sate the first aspect of some of the sessions whose choice had it."""
        first_X = self._order_SA[rows, 0]
        had_X = (first_X >= 0) & _HAS_CA[self._set_SN[rows, chosen_X], first_X]
        sated = rows[had_X & (rng.random(len(rows)) < SATIATION)]
        self._order_SA[sated] = np.roll(self._order_SA[sated], -1, axis=1)
        self._order_SA[sated, -1] = -1
        self.num_sated_S[sated] += 1

    def _chances(self, habit_CX: NDArray[np.float64], order_XA: NDArray[np.int64]) -> NDArray[np.float64]:
        """What the weight of habit of a title with each set of intents is multiplied with, [C, X].

        `habit_CX` is the weight of habit of all titles with that set.
        """
        paths = [(np.ones(habit_CX.shape[1]), np.ones(habit_CX.shape))]  # their odds, and which sets are left, 0 or 1
        for place in range(_NUM):
            aspect_X = order_XA[:, place]
            if not (aspect_X >= 0).any():
                continue
            attention_X = np.where(aspect_X >= 0, self._attention_A[place], 0.0)
            has_CX, longer = _HAS_CA[:, aspect_X], []
            for odds_X, left_CX in paths:
                kept_CX = left_CX * has_CX
                none_kept_X = (habit_CX * kept_CX).sum(axis=0) == 0.0
                kept_CX[:, none_kept_X] = left_CX[:, none_kept_X]
                longer += [(odds_X * (1.0 - attention_X), left_CX), (odds_X * attention_X, kept_CX)]
            paths = longer
        chance_CX = np.zeros(habit_CX.shape)
        for odds_X, left_CX in paths:
            chance_CX += left_CX * (odds_X / (habit_CX * left_CX).sum(axis=0))
        return chance_CX


def _sets(offer: Offer, intents: Intents) -> NDArray[np.int64]:
    """Which intents of its session each title serves, as bits, [S, N]; of those that it does not have, any."""
    past, age_SN, titles = offer.past, offer.age_SN, offer.titles
    action_S1, recency_S1 = intents.action_S[:, None], intents.recency_S[:, None]
    seen_before_SN = np.where(action_S1 == CONTINUE, past.to_continue(), past.to_return())
    has = {
        _ACTION: np.where(action_S1 == DISCOVER, ~past.seen_SN, seen_before_SN),
        _GENRE: titles.genre_NG.T[intents.genre_S] > 0,
        _KIND: titles.show_N[None, :] == (intents.kind_S[:, None] == 1),
        _RECENCY: np.where(recency_S1 == NEW, age_SN <= NEW_DAYS, age_SN > OLDER_DAYS),
    }
    set_SN = np.zeros(age_SN.shape, dtype=np.int64)
    for intent, has_SN in has.items():
        set_SN |= has_SN.astype(np.int64) << intent
    return set_SN
