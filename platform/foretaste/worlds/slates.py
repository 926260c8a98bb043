"""How the slate that opens a session comes about: the logging policy, with exact propensities.

Shapes: S sessions, M members of the partition, N titles in order of release, P places of the slate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foretaste.worlds.choices import Habits, draw
from foretaste.worlds.config import WorldConfig


class SlatePolicy(Protocol):
    """Fills the slates of a round."""

    def __call__(
        self, row_S: NDArray[np.int64], available_S: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Give titles and their propensities, [S, P].

        `row_S` are the members, M for a guest; on sale are the first `available_S` titles.
        """
        ...


@dataclass(frozen=True)
class Logging:
    """What `draw_slates` does."""

    config: WorldConfig
    habits: Habits

    def __call__(
        self, row_S: NDArray[np.int64], available_S: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Fill the slates."""
        return draw_slates(self.config, self.habits, row_S, available_S, rng)


@dataclass(frozen=True)
class Scored:
    """At each place the title of the highest score that is not above, or with probability `epsilon` any, evenly."""

    score_M1N: NDArray[np.float64]  # the last row is of guests
    places: int
    epsilon: float

    def __call__(
        self, row_S: NDArray[np.int64], available_S: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Fill the slates; equal scores go to the title that came out first."""
        num, width = len(row_S), self.score_M1N.shape[1]
        score_SN = np.where(np.arange(width) < available_S[:, None], self.score_M1N[row_S], -np.inf)
        free_SN = np.isfinite(score_SN)
        slate_SP = np.full((num, self.places), -1, dtype=np.int64)
        propensity_SP = np.zeros(slate_SP.shape)
        s = np.arange(num)
        for place in range(self.places):
            best_S = score_SN.argmax(axis=1)
            nth_S = (rng.random(num) * (available_S - place)).astype(np.int64)
            even_S = (np.cumsum(free_SN, axis=1) > nth_S[:, None]).argmax(axis=1)
            found_S = np.where(rng.random(num) < self.epsilon, even_S, best_S)
            propensity_SP[:, place] = self.epsilon / (available_S - place) + (1.0 - self.epsilon) * (found_S == best_S)
            slate_SP[:, place] = found_S
            score_SN[s, found_S], free_SN[s, found_S] = -np.inf, False
        return slate_SP, propensity_SP


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
