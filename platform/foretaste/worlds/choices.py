"""What choices have in common: what a member would choose by habit, and what an intent may do about it.

By habit a title is drawn, among those released and not yet chosen in this session, with the weight

    appeal x taste x kind x hype        what the member is like
    x habit                             what is open draws everyone, what else was seen hardly anyone
    x (1 + slate boost / (1 + place))   what was shown, and how high up: the bias of position

How intents bend that is a mechanism of its own: `weights.Weights`, `aspects.Aspects`; where there are no intents it is
`Habitual`. Each knows the probability of every title at every choice.

Shapes: S sessions, X some of them (`rows`), M members of the partition, N titles in order of release, P places of the
slate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.intents import Intent
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.intents import Intents
from foretaste.worlds.members import Members, affinity
from foretaste.worlds.titles import Titles

HYPE_DAYS = 14
HYPE = 2.5
HABIT_CONTINUED = 12.0
SEEN_OTHERWISE = 0.2


@dataclass(frozen=True)
class Habits:
    """What members are like, which no session changes."""

    affinity_MN: NDArray[np.float64]
    base_2MN: NDArray[np.float64]  # weights with the taste, and without it
    policy_cdf: NDArray[np.float64]  # `row_cdf` of the logging policy, M + 1 rows: the last is for guests


def make_habits(config: WorldConfig, members: Members, titles: Titles) -> Habits:
    """Compute the parts of the weights that stay."""
    affinity_MN = affinity(members, titles)
    kind_MN = np.where(titles.show_N[None, :], members.show_share_M[:, None], 1.0 - members.show_share_M[:, None])
    plain_MN = np.exp(titles.appeal_N)[None, :] * 2.0 * kind_MN
    liking_MN = config.taste_strength * affinity_MN
    score_M1N = titles.appeal_N[None, :] + np.vstack([0.5 * liking_MN, np.zeros((1, len(titles)))])
    return Habits(
        affinity_MN=affinity_MN,
        base_2MN=np.stack([plain_MN * np.exp(liking_MN), plain_MN]),
        policy_cdf=row_cdf(np.exp(score_M1N)),
    )


@dataclass(frozen=True)
class Past:
    """What members of the sessions have seen, when the sessions open."""

    seen_SN: NDArray[np.bool_]
    recent_SN: NDArray[np.bool_]  # chosen within the last seven days
    open_SN: NDArray[np.bool_]  # not watched to the end, or with an episode to come

    def to_continue(self, rows: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.bool_]:
        """Titles that can be continued in some sessions, [X, N]."""
        return self.recent_SN[rows] & self.open_SN[rows]

    def to_return(self, rows: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.bool_]:
        """Titles that can be returned to in some sessions, [X, N]."""
        return self.seen_SN[rows] & ~self.recent_SN[rows]


class Offer:
    """What there is to choose in the sessions of a round, and how it would be chosen by habit alone."""

    def __init__(
        self,
        config: WorldConfig,
        titles: Titles,
        habits: Habits,
        member_S: NDArray[np.int64],
        day_S: NDArray[np.int64],
        past: Past,
        slate_SP: NDArray[np.int64],
    ) -> None:
        self.config, self.titles, self.habits, self.past = config, titles, habits, past
        self.member_S, self.slate_SP = member_S, slate_SP
        self.age_SN = day_S[:, None] - titles.day_N[None, :]  # days since release
        self.fresh_SN = np.where((self.age_SN >= 0) & (self.age_SN <= HYPE_DAYS), HYPE, 1.0) * (self.age_SN >= 0)
        weight_SN = habits.base_2MN[0, member_S] * self.fresh_SN
        weight_SN *= self.habit(np.arange(len(member_S)))
        self.habitual_SN = self.show(weight_SN, np.arange(len(member_S)))  # 0: not released, or chosen in this session

    def habit(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Give the factor of what the members of some sessions have seen, [X, N]."""
        seen_XN = np.where(self.past.seen_SN[rows], SEEN_OTHERWISE, 1.0)
        return np.where(self.past.to_continue(rows), HABIT_CONTINUED, seen_XN)

    def show(self, weight_XN: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Raise, in place, the weights of what was shown in some sessions."""
        x = np.arange(len(rows))
        for place in range(self.slate_SP.shape[1]):
            weight_XN[x, self.slate_SP[rows, place]] *= 1.0 + self.config.slate_boost / (1.0 + place)
        return weight_XN

    def take(self, rows: NDArray[np.int64], chosen_X: NDArray[np.int64]) -> None:
        """Offer what was chosen no more in this session."""
        self.habitual_SN[rows, chosen_X] = 0.0


class Mechanism(Protocol):
    """How the intents of the sessions of a round drive their choices."""

    @property
    def num_sated_S(self) -> NDArray[np.int64]:
        """How many intents of each session have fallen away so far."""
        ...

    def weigh(self, rows: NDArray[np.int64], without: Intent | None = None) -> NDArray[np.float64]:
        """Weight of every title in some sessions, [X, N], in proportion to the probability of its being chosen now.

        `without` leaves one intent out, all else equal. 0 for what is not released or was chosen in this session.
        """
        ...

    def match(self, rows: NDArray[np.int64], chosen_X: NDArray[np.int64]) -> NDArray[np.float64]:
        """How well titles fit what their sessions are for, 0..1."""
        ...

    def move_on(self, rows: NDArray[np.int64], chosen_X: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Note what was chosen, after `Offer.take`; intents may change of it."""
        ...


class Habitual:
    """No intents: habit alone drives what is chosen, whatever was drawn."""

    def __init__(self, offer: Offer, intents: Intents) -> None:
        self.offer = offer
        self.num_sated_S = np.zeros_like(intents.genre_S)

    def weigh(self, rows: NDArray[np.int64], without: Intent | None = None) -> NDArray[np.float64]:
        """Give the weights of habit."""
        return self.offer.habitual_SN[rows]

    def match(self, rows: NDArray[np.int64], chosen_X: NDArray[np.int64]) -> NDArray[np.float64]:
        """Three times the affinity to the taste, at most 1."""
        return liking(self.offer, rows, chosen_X)

    def move_on(self, rows: NDArray[np.int64], chosen_X: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Change nothing."""


def liking(offer: Offer, rows: NDArray[np.int64], title_X: NDArray[np.int64]) -> NDArray[np.float64]:
    """How well titles fit a session that is for nothing: three times their affinity to the taste, at most 1."""
    return np.minimum(3.0 * offer.habits.affinity_MN[offer.member_S[rows], title_X], 1.0)


def row_cdf(weight_SN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distribution functions of the rows, each raised by its row number, flat: ready for `draw`."""
    cdf_SN = np.cumsum(weight_SN, axis=1)
    cdf_SN /= cdf_SN[:, -1:]
    cdf_SN += np.arange(len(cdf_SN))[:, None]
    return cdf_SN.ravel()


def draw(cdf: NDArray[np.float64], width: int, row_X: NDArray[np.int64], u_X: NDArray[np.float64]) -> NDArray[np.int64]:
    """Draw a column from each named row of `row_cdf`, by one binary search each; `u_X` is uniform in [0, 1)."""
    key_X = np.minimum(row_X + u_X, np.nextafter(row_X + 1.0, 0.0))
    return np.asarray(np.searchsorted(cdf, key_X, side="right") - row_X * width)
