"""Instruments over a log of any length: a task a file of Ray Data, the driver adds.

Files divide the log by member, as buckets do, so that all rows of a member are summed together and errors are robust to
what binds them. A task holds one file; the driver holds the sums, whose size is that of the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foretaste.evaluation.causal.instruments import recentred
from foretaste.evaluation.causal.moments import Moments, Roles, moments, total
from foretaste.jobs.over_files import present


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

        def floats(chosen: Sequence[str]) -> NDArray[np.float64]:
            return np.column_stack([np.asarray(table[name].to_numpy()).astype(np.float64) for name in chosen])

        dice = zip(self.shown, self.propensities, strict=True)
        try:
            instruments = [recentred(_dice(table[one], one), floats([p])[:, 0]) for one, p in dice]
            controls = np.ones((len(table), 1))
            if self.controls:
                controls = np.concatenate([controls, floats(self.controls)], axis=1)
            return moments(
                floats([self.outcome])[:, 0],
                floats(self.exposures),
                controls,
                np.column_stack(instruments),
                cluster_N=_actors(table[self.actor], self.actor) if self.actor else None,
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """What a task does with the name of a file."""
        return _row(self.block(Path(row["path"])))


def sum_log(paths: Sequence[Path], question: Question) -> Moments:
    """Sum Parquet files on the Ray that is connected to.

    Raises FileNotFoundError for a file that is not there, ValueError where none is named.
    """
    import ray.data

    named = [{"path": path} for path in present(paths, what="a log")]
    files = ray.data.from_items(named, override_num_blocks=len(named))
    return total([_moments(row) for row in files.map(question).iter_rows()])


def _row(block: Moments) -> dict[str, Any]:
    """Sums as numbers and arrays, which Ray Data hands over as Arrow."""
    roles = [block.roles.num_exposures, block.roles.num_controls, block.roles.num_instruments]
    counts = [block.num_rows, block.num_clusters, block.num_absorbed]
    arrays = {"second": block.second_PP.ravel(), "fourth": block.fourth_QQ.ravel()}
    return {"roles": np.array(roles), "counts": np.array(counts)} | arrays


def _moments(row: dict[str, Any]) -> Moments:
    second, fourth = (np.asarray(row[name], dtype=np.float64) for name in ("second", "fourth"))
    sides = [round(len(sums) ** 0.5) for sums in (second, fourth)]
    exposures, controls, instruments = np.asarray(row["roles"]).tolist()
    num_rows, num_clusters, num_absorbed = np.asarray(row["counts"]).tolist()
    roles = Roles(exposures, controls, instruments)
    shaped = second.reshape(sides[0], -1), fourth.reshape(sides[1], -1)
    return Moments(roles, num_rows, num_clusters, num_absorbed, *shaped)


def _dice(column: pa.ChunkedArray, name: str) -> NDArray[np.bool_]:
    """What a die decided: true and false, or 1 and 0, of every row. Raises ValueError naming the column and a row."""
    plain = column.combine_chunks()
    good_N = np.asarray(pc.is_in(plain.cast(pa.float64()), value_set=pa.array([0.0, 1.0])))
    if not good_N.all():
        row = int(np.argmin(good_N))
        raise ValueError(f"column {name} of row {row} is {plain[row].as_py()}, wanted 0 or 1")
    return np.asarray(plain.cast(pa.float64())).astype(np.bool_)


def _actors(column: pa.ChunkedArray, name: str) -> NDArray[Any]:
    if column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        raise ValueError(f"column {name} of row {row} has no value: wanted whose row it is")
    return np.asarray(column.to_numpy())
