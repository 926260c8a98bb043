"""How a title is chosen, and how the slate that was shown came about.

A choice is a draw among the titles that are available and not yet chosen in this session, with weights

    appeal x taste x kind x hype        what the member is like (taste is set aside in sessions that depart)
    x intent                            what the session is for: genre, kind, recency, discover/continue/return
    x (1 + slate boost / (1 + place))   what was shown, and how high up: the bias of position

Every factor stands in this file; `probability` of a choice is its weight over the sum of the weights.

Shapes: S sessions, M members of the partition, N titles in order of release, P places of the slate, G genres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.worlds.config import WorldConfig
from foretaste.worlds.intents import CONTINUE, DISCOVER, NEW_DAYS, OLDER_DAYS, RETURN, Intents
from foretaste.worlds.members import Members, affinity
from foretaste.worlds.titles import Titles

HYPE_DAYS = 14
HYPE = 2.5
KIND = 5.0
NEW = 8.0
OLDER = 3.0
SEEN_WHEN_DISCOVERING = 0.02
CONTINUED = 400.0
SEEN_OTHERWISE = 0.2
RETURNED = 400.0
HABIT_CONTINUED = 12.0
"""Without intents, what is open draws everyone by habit."""


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

    @property
    def to_continue_SN(self) -> NDArray[np.bool_]:
        """Titles that can be continued."""
        return self.recent_SN & self.open_SN

    @property
    def to_return_SN(self) -> NDArray[np.bool_]:
        """Titles that can be returned to."""
        return self.seen_SN & ~self.recent_SN


def weights(
    config: WorldConfig,
    titles: Titles,
    habits: Habits,
    member_S: NDArray[np.int64],
    day_S: NDArray[np.int64],
    past: Past,
    intents: Intents,
    slate_SP: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Weight of every title in every session, [S, N]; 0 for what is not released."""
    age_SN = day_S[:, None] - titles.day_N[None, :]
    weight_SN = habits.base_2MN[intents.departs_S.astype(np.int64), member_S]
    weight_SN *= np.where((age_SN >= 0) & (age_SN <= HYPE_DAYS), HYPE, 1.0)
    weight_SN *= age_SN >= 0
    if config.intents:
        _apply_intents(weight_SN, config, titles, past, intents, age_SN)
    else:
        weight_SN *= np.where(past.to_continue_SN, HABIT_CONTINUED, np.where(past.seen_SN, SEEN_OTHERWISE, 1.0))
    rows = np.arange(len(member_S))
    for place in range(slate_SP.shape[1]):
        weight_SN[rows, slate_SP[:, place]] *= 1.0 + config.slate_boost / (1.0 + place)
    return weight_SN


def _apply_intents(
    weight_SN: NDArray[np.float64],
    config: WorldConfig,
    titles: Titles,
    past: Past,
    intents: Intents,
    age_SN: NDArray[np.int64],
) -> None:
    genre_GN = np.exp(config.intent_strength * titles.genre_NG.T)
    weight_SN *= genre_GN[intents.genre_S]
    kind_XN = np.stack([np.where(titles.show_N, 1.0, KIND), np.where(titles.show_N, KIND, 1.0), np.ones(len(titles))])
    weight_SN *= kind_XN[intents.kind_S]  # -1, «any», is the last row
    new_S, older_S = (np.flatnonzero(intents.recency_S == code) for code in (0, 1))
    weight_SN[new_S] *= np.where(age_SN[new_S] <= NEW_DAYS, NEW, 1.0)
    weight_SN[older_S] *= np.where(age_SN[older_S] > OLDER_DAYS, OLDER, 1.0)
    for action, wanted_SN, factor in (
        (DISCOVER, None, SEEN_WHEN_DISCOVERING),
        (CONTINUE, past.to_continue_SN, CONTINUED),
        (RETURN, past.to_return_SN, RETURNED),
    ):
        rows = np.flatnonzero(intents.action_S == action)
        seen = past.seen_SN[rows]
        if wanted_SN is None:
            weight_SN[rows] *= np.where(seen, factor, 1.0)
        else:
            weight_SN[rows] *= np.where(wanted_SN[rows], factor, np.where(seen, SEEN_OTHERWISE, 1.0))


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


def draw_slates(
    config: WorldConfig,
    habits: Habits,
    row_S: NDArray[np.int64],
    available_S: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Fill the slates as the logging policy does; gives titles and their propensities, [S, P].

    Place by place: with probability `slate_exploration` any title that is available and not above, evenly, else one
    of them in proportion to exp(appeal + what the service knows of the taste). A guest's row is the last.
    """
    cdf, num, width = habits.policy_cdf, len(row_S), habits.base_2MN.shape[2]
    reach_S = cdf[row_S * width + available_S - 1] - row_S  # the share of the row that is available
    slate_SP = np.full((num, config.impressions_per_session), -1, dtype=np.int64)
    propensity_SP = np.zeros(slate_SP.shape)
    left_S = np.ones(num)
    for place in range(slate_SP.shape[1]):
        explores_S = rng.random(num) < config.slate_exploration
        todo = np.arange(num)
        while len(todo):  # what stands above is drawn again: the same as drawing among the rest
            u = rng.random(len(todo))
            greedy = draw(cdf, width, row_S[todo], u * reach_S[todo])
            even = (u * available_S[todo]).astype(np.int64)
            found = np.minimum(np.where(explores_S[todo], even, greedy), available_S[todo] - 1)
            slate_SP[todo, place] = found
            todo = todo[(slate_SP[todo, :place] == found[:, None]).any(axis=1)]
        column_S = slate_SP[:, place]
        cell_S = row_S * width + column_S
        below_S = np.where(column_S > 0, cdf[cell_S - 1], row_S)
        share_S = (cdf[cell_S] - below_S) / reach_S
        even_S = config.slate_exploration / (available_S - place)
        propensity_SP[:, place] = even_S + (1.0 - config.slate_exploration) * share_S / left_S
        left_S = left_S - share_S
    return slate_SP, propensity_SP
