"""The baselines of a split, fitted on what a model may learn from under that split."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from foretaste.contracts.catalogue import Catalogue
from foretaste.evaluation.cases import Split
from foretaste.models.baselines import Markov, Popularity, RecentPopularity, SessionKNN, SessionKNNConfig
from foretaste.models.contract import Recommender
from foretaste.signals.histories import pack


def fit_baselines(
    interactions: pa.Table,
    catalogue: Catalogue,
    *,
    split: Split,
    target_actions: Collection[str],
    fit_on: Collection[str] = ("train",),
    session_knn: SessionKNNConfig | None = None,
) -> list[Recommender]:
    """Fit Popularity, RecentPopularity, Markov and SessionKNN on an INTERACTIONS table.

    They count choices, that is interactions by `target_actions`, in the rows that the split marks one of
    `fit_on`. RecentPopularity is handed all rows; it reads only those strictly before each as-of time.
    Raises ValueError where no row is marked so.
    """
    marks = interactions["split_time" if split == "time" else "split_last"]
    mask = pc.is_in(marks, value_set=pa.array(sorted(fit_on), pa.string()))
    if not np.asarray(mask).any():
        raise ValueError(f"baselines: split {split!r} marks no row {sorted(fit_on)}")
    log, _ = pack(interactions.filter(mask), catalogue)
    timeline, _ = pack(interactions, catalogue)
    return [
        Popularity.fit(log, catalogue, actions=target_actions),
        RecentPopularity.fit(timeline, catalogue, actions=target_actions),
        Markov.fit(log, catalogue, actions=target_actions),
        SessionKNN.fit(log, catalogue, config=session_knn, actions=target_actions),
    ]
