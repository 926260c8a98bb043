"""What showing a title to a member is worth under a reward program, learned from outcomes: counted and shrunk.

Members are told apart by how much of their taste a title is, in a few bands, which is all that the policy of the log
knows of them, too. A value is the mean reward of a title in a band, put right for its places, drawn towards
title + band - mean by as many exposures as `shrink_to` (empirical Bayes in its simplest form: Efron and Morris 1975).

Shapes: X outcomes whose reward is known, N titles, G bands, P places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_BANDS = 6
SHRINK_TO = 50.0


@dataclass(frozen=True)
class Values:
    """Learned values."""

    value_NG: NDArray[np.float64]
    edges_G: NDArray[np.float64]  # inner edges of the bands of affinity, one fewer than bands
    weight_P: NDArray[np.float64]  # how large rewards are at a place, over the first place's

    def score(self, affinity_MN: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of titles to members, and in a last row to somebody unknown: the mean over bands; [M + 1, N]."""
        band_MN = np.searchsorted(self.edges_G, affinity_MN, side="right")
        known_MN = self.value_NG[np.arange(affinity_MN.shape[1]), band_MN]
        return np.vstack([known_MN, self.value_NG.mean(axis=1)])


def edges(affinity_X: NDArray[np.float64], num_bands: int = NUM_BANDS) -> NDArray[np.float64]:
    """Edges of bands that hold as many exposures each; equal ones fall together."""
    return np.unique(np.quantile(affinity_X, np.arange(1, num_bands) / num_bands))


def learn(
    reward_X: NDArray[np.float64],
    title_X: NDArray[np.int64],
    affinity_X: NDArray[np.float64],
    place_X: NDArray[np.int64],
    *,
    num_titles: int,
    edges_G: NDArray[np.float64],
    shrink_to: float = SHRINK_TO,
) -> Values:
    """Learn from outcomes with known rewards. Raises ValueError where there are none."""
    if not len(reward_X):
        raise ValueError("no outcome has a known reward")
    size_P, num_P = np.bincount(place_X, np.abs(reward_X)), np.maximum(np.bincount(place_X), 1)
    weight_P = size_P / num_P
    weight_P = weight_P / weight_P[0] if weight_P[0] > 0 else np.ones_like(weight_P)
    exposure_X = weight_P[place_X]
    bands = len(edges_G) + 1
    band_X = np.searchsorted(edges_G, affinity_X, side="right")

    def sums(key_X: NDArray[np.int64], size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.asarray(np.bincount(key_X, reward_X, size), float), np.bincount(key_X, exposure_X, size).astype(float)

    mean = float(reward_X.sum() / exposure_X.sum())
    total_N, seen_N = sums(title_X, num_titles)
    total_G, seen_G = sums(band_X, bands)
    title_N = (total_N + shrink_to * mean) / (seen_N + shrink_to)
    band_G = (total_G + shrink_to * mean) / (seen_G + shrink_to)
    total_NG, seen_NG = (one.reshape(num_titles, bands) for one in sums(title_X * bands + band_X, num_titles * bands))
    prior_NG = title_N[:, None] + band_G[None, :] - mean
    return Values((total_NG + shrink_to * prior_NG) / (seen_NG + shrink_to), edges_G, weight_P)
