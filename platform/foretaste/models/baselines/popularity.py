"""What everybody chooses: of all time, and of the last days.

Shapes: B histories, N titles, T choices of all actors together.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.config import Frozen
from foretaste.contracts.histories import Histories
from foretaste.models.baselines.choices import chosen, shares

DAY_US = 86_400_000_000


class PopularityConfig(Frozen):
    """Popularity has nothing to set."""

    kind: Literal["popularity"] = "popularity"


class RecentPopularityConfig(Frozen):
    """How far back popularity is counted."""

    kind: Literal["recent_popularity"] = "recent_popularity"
    days: float = Field(default=7.0, gt=0, description="days before the question whose choices are counted")


class Popularity:
    """Scores a title by its share of all choices it was fitted on; the history is not read."""

    name = "popularity"
    time_aware = False

    def __init__(self, share_N: NDArray[np.float64]) -> None:
        self.share_N = share_N.astype(np.float32)

    @classmethod
    def fit(
        cls,
        histories: Histories,
        catalogue: Catalogue,
        *,
        config: PopularityConfig | None = None,
        actions: Collection[str] | None = None,
    ) -> Popularity:
        """Count choices (interactions by `actions`, all when None). No choices: a uniform score."""
        return cls(shares(histories.title_T[chosen(histories, actions)], len(catalogue)))

    def scores(self, histories: Histories, asof_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Score the catalogue: the same row for every history."""
        return np.tile(self.share_N, (len(histories), 1))


class RecentPopularity:
    """Scores a title by the number of choices in the days strictly before each as-of time.

    It holds the whole timeline and answers as a live counter would have: nothing at or after an as-of time
    is used. Titles with equal counts are ordered by their choices of all time before the as-of time.
    """

    name = "recent_popularity"
    time_aware = True

    def __init__(self, title_T: NDArray[np.int32], at_T: NDArray[np.int64], num_titles: int, days: float) -> None:
        order = np.argsort(at_T, kind="stable")
        self.index_T = (title_T[order] - 1).astype(np.int64)
        self.at_T = at_T[order]
        self.num_titles = num_titles
        self.window_us = round(days * DAY_US)

    @classmethod
    def fit(
        cls,
        timeline: Histories,
        catalogue: Catalogue,
        *,
        config: RecentPopularityConfig | None = None,
        actions: Collection[str] | None = None,
    ) -> RecentPopularity:
        """Keep the choices of `timeline` (interactions by `actions`, all when None) in order of time."""
        chosen_T = chosen(timeline, actions)
        days = (config or RecentPopularityConfig()).days
        return cls(timeline.title_T[chosen_T], timeline.at_T[chosen_T], len(catalogue), days)

    def scores(self, histories: Histories, asof_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Score the catalogue: the count in [as-of - days, as-of), plus less than 1 for choices of all time."""
        high_B = np.searchsorted(self.at_T, asof_B, side="left")
        low_B = np.searchsorted(self.at_T, asof_B - self.window_us, side="left")
        scores_BN = np.empty((len(asof_B), self.num_titles), dtype=np.float32)
        all_N = np.zeros(self.num_titles, dtype=np.int64)
        counted = 0
        for b in np.argsort(high_B, kind="stable"):
            np.add.at(all_N, self.index_T[counted : high_B[b]], 1)
            counted = high_B[b]
            recent_N = np.bincount(self.index_T[low_B[b] : high_B[b]], minlength=self.num_titles)
            scores_BN[b] = recent_N + all_N / (all_N.max(initial=0) + 1.0)
        return scores_BN
