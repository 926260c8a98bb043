"""What is chosen after the last title.

Shapes: B histories, N titles, N1 = N + 1 catalogue codes, T interactions.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.config import Frozen
from foretaste.contracts.histories import Histories
from foretaste.models.baselines.choices import chosen, shares


class MarkovConfig(Frozen):
    """How much popularity is believed beside what was counted."""

    kind: Literal["markov"] = "markov"
    smoothing: float = Field(
        default=10.0, gt=0, description="choices, spread as popularity is, that are added after every title"
    )


class Markov:
    """First-order transitions, smoothed towards popularity (Dirichlet)."""

    name = "markov"
    time_aware = False

    def __init__(self, counts_N1N: Any, share_N: NDArray[np.float64], smoothing: float) -> None:
        self.counts_N1N = counts_N1N
        self.total_N1 = np.asarray(counts_N1N.sum(axis=1), dtype=np.float32).ravel()
        self.prior_N = (smoothing * share_N).astype(np.float32)
        self.smoothing = np.float32(smoothing)

    @classmethod
    def fit(
        cls,
        histories: Histories,
        catalogue: Catalogue,
        *,
        config: MarkovConfig | None = None,
        actions: Collection[str] | None = None,
    ) -> Markov:
        """Count, over neighbours within a history, which title is chosen after which.

        A pair counts where both titles are known and the later one is a choice (by `actions`, any when None).
        """
        config = config or MarkovConfig()
        num_titles = len(catalogue)
        chosen_T = chosen(histories, actions)
        pair_T = chosen_T & (_before(histories) > 0)
        pairs = (
            np.ones(int(pair_T.sum()), dtype=np.float32),
            (_before(histories)[pair_T], histories.title_T[pair_T] - 1),
        )
        counts_N1N = sparse.coo_array(pairs, shape=(num_titles + 1, num_titles)).tocsr()
        return cls(counts_N1N, shares(histories.title_T[chosen_T], num_titles), config.smoothing)

    def scores(self, histories: Histories, asof_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Score the catalogue: probability of each title after the last known one; popularity where there is none."""
        last_B = last_known(histories)
        scores_BN: NDArray[np.float32] = self.counts_N1N[last_B].toarray()
        scores_BN += self.prior_N
        scores_BN /= np.maximum(self.total_N1[last_B] + self.smoothing, np.float32(1e-12))[:, None]
        return scores_BN


def last_known(histories: Histories) -> NDArray[np.int32]:
    """Catalogue code of the newest known title of each history: int32[B], 0 where there is none."""
    place_T = np.where(histories.title_T > 0, np.arange(len(histories.title_T)), -1)
    newest_T1 = np.concatenate([[-1], np.maximum.accumulate(place_T)]).astype(np.int64)
    newest_B = newest_T1[histories.offsets_B1[1:]]
    found_B = newest_B >= histories.offsets_B1[:-1]
    last_B = np.zeros(len(histories), dtype=np.int32)
    last_B[found_B] = histories.title_T[newest_B[found_B]]
    return last_B


def _before(histories: Histories) -> NDArray[np.int32]:
    """Code of the title just before each interaction in its history, 0 for the first."""
    before_T = np.zeros_like(histories.title_T)
    before_T[1:] = histories.title_T[:-1]
    starts = histories.offsets_B1[:-1]
    before_T[starts[starts < len(before_T)]] = 0
    return before_T
