"""What happens once a title plays, whether the session satisfied, and when the member comes back.

Shapes: X plays, R episodes in a row, S sessions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from foretaste.worlds.config import DAY_US, HOUR_US, WorldConfig
from foretaste.worlds.titles import Titles

MAX_EPISODES = 3
_NEXT_EPISODE = 0.6
COMPLETE_FROM = 0.9
"""Played at least so far, a title counts as watched to the end."""

_FRACTION_NOISE = 0.28
_MIDDLING = 0.58
"""Satisfaction at which members wait as long as is their mean."""


@dataclass(frozen=True)
class Viewing:
    """Up to R items played one after the other; `played_XR` says which were."""

    played_XR: NDArray[np.bool_]
    fraction_XR: NDArray[np.float64]
    episode_XR: NDArray[np.int64]  # number of the episode among those of its show, 0-based; 0 for a movie

    @property
    def complete_XR(self) -> NDArray[np.bool_]:
        """Which were watched to the end."""
        return self.played_XR & (self.fraction_XR >= COMPLETE_FROM)


def view(
    titles: Titles,
    title_X: NDArray[np.int64],
    match_X: NDArray[np.float64],
    next_X: NDArray[np.int64],
    released_X: NDArray[np.int64],
    rng: np.random.Generator,
) -> Viewing:
    """Play a movie, or episodes from number `next_X` on of the `released_X` that there are.

    How far one plays grows with match (0..1) and with the title's quality; only an episode watched to the end is
    followed by the next one.
    """
    num = len(title_X)
    shape = (num, MAX_EPISODES)
    mean_X = _mean_fraction(titles, title_X, match_X)
    fraction_XR = np.clip(mean_X[:, None] + rng.normal(0.0, _FRACTION_NOISE, shape), 0.03, 1.0)
    episode_XR = next_X[:, None] + np.arange(MAX_EPISODES)
    goes_on_XR = (rng.random(shape) < _NEXT_EPISODE) & (episode_XR + 1 < released_X[:, None])
    goes_on_XR &= (fraction_XR >= COMPLETE_FROM) & titles.show_N[title_X, None]
    played_XR = np.ones(shape, dtype=np.bool_)
    played_XR[:, 1:] = np.logical_and.accumulate(goes_on_XR[:, :-1], axis=1)
    return Viewing(played_XR, fraction_XR, np.where(titles.show_N[title_X, None], episode_XR, 0))


def finish_probability(titles: Titles, title_X: NDArray[np.int64], match_X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability that what plays is watched to its end, of a show the first episode: the law by which `view` draws."""
    return np.asarray(ndtr((_mean_fraction(titles, title_X, match_X) - COMPLETE_FROM) / _FRACTION_NOISE))


def _mean_fraction(titles: Titles, title_X: NDArray[np.int64], match_X: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.3 + 0.45 * match_X + 0.4 * titles.quality_N[title_X])


def satisfaction(
    mean_match_S: NDArray[np.float64], mean_fraction_S: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Satisfaction, 0..1, from how well the choices fitted and how far they were watched."""
    noise_S = rng.normal(0.0, 0.4, len(mean_match_S))
    return np.asarray(1.0 / (1.0 + np.exp(-(-2.9 + 2.2 * mean_match_S + 2.4 * mean_fraction_S + noise_S))))


def next_visit(
    config: WorldConfig,
    gap_days_S: NDArray[np.float64],
    evening_S: NDArray[np.float64],
    satisfaction_S: NDArray[np.float64],
    ended_S: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """When members come back, microseconds: a wait that shrinks with satisfaction, at about their usual hour."""
    earliest_S = ended_S + HOUR_US
    wait_S = rng.exponential(wait_days(config, gap_days_S, satisfaction_S))
    wished_S = earliest_S + (wait_S * DAY_US).astype(np.int64)
    hour_S = (evening_S + rng.normal(0.0, 1.5, len(ended_S))) % 24.0
    start_S = wished_S // DAY_US * DAY_US + (hour_S * HOUR_US).astype(np.int64)
    return np.where(start_S < earliest_S, start_S + DAY_US, start_S)


def wait_days(
    config: WorldConfig, gap_days_S: NDArray[np.float64], satisfaction_S: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean days until members come back."""
    return np.asarray(gap_days_S * np.exp(config.return_effect * (_MIDDLING - satisfaction_S)))
