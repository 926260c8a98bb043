"""The second and the third pass over buckets: read what was staged, write what stays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foretaste.contracts.sessions import SessionRule
from foretaste.contracts.splits import SPLITS, Cuts, split_time
from foretaste.ops.files import parquet_files, write_parquet
from foretaste.sessions.buckets import STAGED
from foretaste.sessions.sequence import Collapse, sequence
from foretaste.sessions.split import Sketch
from foretaste.sessions.spread import Item

PART = "part.parquet"


@dataclass(frozen=True, slots=True)
class Sequencing:
    """The work on one bucket of the second pass; answers with counts."""

    folder: Path
    staging: Path
    rule: SessionRule
    collapse: Collapse

    def __call__(self, item: Item) -> Item:
        """Read the bucket's events; write acts, impressions, interactions to be split, and a sketch of their times."""
        bucket = item["bucket"]
        events = _staged(self.staging / "events" / bucket)
        done = sequence(events, self._series_of(), rule=self.rule, collapse=self.collapse)
        write_parquet(done.acts, self.folder / "acts" / bucket / PART)
        write_parquet(done.impressions, self.folder / "impressions" / bucket / PART)
        pq.write_table(done.interactions, self.staging / "interactions" / bucket / PART)
        sketch = Sketch.of(done.interactions["at"].cast(pa.int64()).to_numpy())
        np.savez(self.staging / "sketches" / f"{bucket}.npz", at_S=sketch.at_S, num=sketch.num)
        return done.counts | {"events": item["events"]}

    def _series_of(self) -> pl.DataFrame:
        titles = pq.read_table(self.folder / "titles.parquet", columns=["title_id", "series_id"])
        return _frame(titles).filter(pl.col("series_id").is_not_null())


@dataclass(frozen=True, slots=True)
class Splitting:
    """The work on one bucket of the third pass; answers with rows by part."""

    folder: Path
    staging: Path
    cut: Cuts

    def __call__(self, item: Item) -> Item:
        """Write the bucket's interactions with the time split."""
        table = pq.read_table(self.staging / "interactions" / item["bucket"] / PART, partitioning=None)
        parts = pa.array(SPLITS[split_time(table["at"].cast(pa.int64()).to_numpy(), self.cut)], pa.string())
        place = table.column_names.index("split_time")
        table = table.set_column(place, table.schema.field(place), parts)
        write_parquet(table, self.folder / "interactions" / item["bucket"] / PART)
        return {
            f"{column}:{part['values']}": part["counts"]
            for column in ("split_time", "split_last")
            for part in pc.value_counts(table[column]).to_pylist()
        }


def stored_sketches(staging: Path) -> list[Sketch]:
    """Read what the second pass left of the times of every bucket."""
    sketches = []
    for file in sorted((staging / "sketches").iterdir()):
        with np.load(file) as stored:
            sketches.append(Sketch(stored["at_S"], int(stored["num"])))
    return sketches


def _staged(folder: Path) -> pl.DataFrame:
    files = parquet_files(folder) if any(folder.iterdir()) else []
    tables = [pq.read_table(file, partitioning=None) for file in files]
    return _frame(pa.concat_tables([STAGED.empty_table(), *tables]))


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
