"""The baselines of a split, fitted on what a model may learn from under that split."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from foretaste.contracts.catalogue import Catalogue
from foretaste.evaluation.protocols import BESIDE, Protocol
from foretaste.models.baselines import BASELINES, BaselineConfig, baseline, fit_baseline
from foretaste.models.contract import Recommender
from foretaste.signals.histories import pack


def fit_baselines(
    interactions: pa.Table,
    catalogue: Catalogue,
    *,
    protocol: Protocol,
    target_actions: Collection[str],
    configs: Sequence[BaselineConfig] | None = None,
) -> list[Recommender]:
    """Fit classic models on an INTERACTIONS table: those of `configs`, or all with their defaults for the track.

    They count choices, that is interactions by `target_actions`, in the rows that the protocol lets models learn
    from. Popularity of the last days is handed all rows; it reads only those strictly before each as-of time.
    Raises ValueError where no row is marked so.
    """
    if configs is None:
        aware = protocol.track == "aware"
        configs = [baseline(name, time_aware=aware or name == BESIDE) for name in BASELINES]
    marks = interactions["split_time" if protocol.split == "time" else "split_last"]
    mask = pc.is_in(marks, value_set=pa.array(sorted(protocol.fit_on), pa.string()))
    if not np.asarray(mask).any():
        raise ValueError(f"baselines: split {protocol.split!r} marks no row {sorted(protocol.fit_on)}")
    log, _ = pack(interactions.filter(mask), catalogue)
    timeline, _ = pack(interactions, catalogue)
    return [
        fit_baseline(config, log=log, timeline=timeline, catalogue=catalogue, actions=target_actions)
        for config in configs
    ]
