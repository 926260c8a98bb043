"""Instruments over a log of any length: a task a file of Ray Data, the driver adds.

Files divide the log by member, as buckets do, so that all rows of a member are summed together and errors are robust to
what binds them. A task holds one file; the driver holds the sums, whose size is that of the question.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foretaste.evaluation.causal.instruments import recentred
from foretaste.evaluation.causal.moments import Moments, moments, total


@dataclass(frozen=True, slots=True)
class Question:
    """Columns of a log: what exposures do to an outcome, given controls and a constant, by dice."""

    outcome: str
    exposures: tuple[str, ...]
    shown: tuple[str, ...]  # what each die decided
    propensities: tuple[str, ...]  # with which probability it would show, as many
    controls: tuple[str, ...] = ()
    actor: str | None = None

    def __post_init__(self) -> None:
        if len(self.shown) != len(self.propensities):
            raise ValueError(f"wanted a propensity for each of {list(self.shown)}, found {list(self.propensities)}")

    def block(self, path: Path) -> Moments:
        """Sum one file. Raises ValueError naming the file and what is wrong with it."""
        actor = [self.actor] if self.actor else []
        names = [self.outcome, *self.exposures, *self.shown, *self.propensities, *self.controls, *actor]
        there = pq.read_schema(path).names
        if missing := [name for name in names if name not in there]:
            raise ValueError(f"{path}: missing columns {missing}; has {there}")
        table = pq.read_table(path, columns=names)
        column = {name: np.asarray(table[name].to_numpy()) for name in names}

        def floats(chosen: Sequence[str]) -> NDArray[np.float64]:
            return np.column_stack([column[name].astype(np.float64) for name in chosen])

        dice = zip(self.shown, self.propensities, strict=True)
        try:
            instruments = [recentred(column[one].astype(np.bool_), column[p].astype(np.float64)) for one, p in dice]
            controls = np.ones((len(table), 1))
            if self.controls:
                controls = np.concatenate([controls, floats(self.controls)], axis=1)
            return moments(
                column[self.outcome].astype(np.float64),
                floats(self.exposures),
                controls,
                np.column_stack(instruments),
                cluster_N=column[self.actor] if self.actor else None,
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """What a task does with the name of a file."""
        return {"moments": pickle.dumps(self.block(Path(row["path"])))}


def sum_log(paths: Sequence[Path], question: Question) -> Moments:
    """Sum Parquet files on the Ray that is connected to.

    Raises FileNotFoundError for a file that is not there, ValueError where none is named.
    """
    import ray.data
    from ray.data import DataContext

    if missing := [str(path) for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"{missing[0]}: not there ({len(missing)} of {len(paths)} files)")
    if not paths:
        raise ValueError("a log: wanted files, found none")
    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    files = ray.data.from_items([{"path": str(path.absolute())} for path in paths], override_num_blocks=len(paths))
    return total([pickle.loads(row["moments"]) for row in files.map(question).iter_rows()])
