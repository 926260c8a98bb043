"""Decisions and events divided by a hash of their actor, so that each bucket is compared on its own, wherever."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from foretaste.contracts.columns import DECISIONS, LOGGED_EVENTS
from foretaste.sessions.spread import Item

BUCKET_BYTES = 64 * 2**20  # of decisions or events as they lie on the disk
HELD_BYTES = 128 * 2**20  # of rows in memory before they are written
DECISION_PARTS, EVENT_PARTS = "decisions", "events"
SCHEMAS = {DECISION_PARTS: DECISIONS, EVENT_PARTS: LOGGED_EVENTS}


def num_buckets(*folders: Path) -> int:
    """How many buckets the largest of some folders needs; at least two, for there are as a rule two processors."""
    sizes = [sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) for folder in folders]
    return max(2, *(math.ceil(size / BUCKET_BYTES) for size in sizes))


class Buckets:
    """Parquet files by bucket in a folder of their own."""

    def __init__(self, folder: Path, num: int, schemas: Mapping[str, pa.Schema] = SCHEMAS) -> None:
        """`schemas` are those of the tables that will be divided, by name."""
        self._folder = folder
        self._num = num
        self._schemas = schemas

    def write(self, name: str, tables: Iterable[pa.Table], *, actor: Callable[[pa.Table], pa.ChunkedArray]) -> int:
        """Divide tables of one schema; returns the number of their rows. Holds about HELD_BYTES at a time."""
        writers: dict[int, pq.ParquetWriter] = {}
        held: list[pa.Table] = []
        rows = size = 0

        def flush() -> None:
            if not held:
                return
            table = pa.concat_tables(held)
            number_R = pl.Series(pl.from_arrow(actor(table).combine_chunks())).hash(seed=0).to_numpy() % self._num
            for number in np.unique(number_R).tolist():
                if number not in writers:
                    writers[number] = pq.ParquetWriter(
                        self._path(name, number), self._schemas[name], compression="zstd"
                    )
                writers[number].write_table(table.filter(pa.array(number_R == number)))
            held.clear()

        try:
            for table in tables:
                held.append(table)
                rows, size = rows + table.num_rows, size + table.nbytes
                if size >= HELD_BYTES:
                    flush()
                    size = 0
            flush()
        finally:
            for writer in writers.values():
                writer.close()
        return rows

    def items(self) -> list[Item]:
        """What to do: the buckets that have decisions, as files."""
        found = [(self._path(DECISION_PARTS, number), self._path(EVENT_PARTS, number)) for number in range(self._num)]
        return [
            {DECISION_PARTS: str(decisions), EVENT_PARTS: str(events) if events.is_file() else None}
            for decisions, events in found
            if decisions.is_file()
        ]

    def files(self) -> list[dict[str, str]]:
        """Files of each bucket by the name of their table; those that there are."""
        found = [{name: self._path(name, number) for name in self._schemas} for number in range(self._num)]
        return [{name: str(path) for name, path in bucket.items() if path.is_file()} for bucket in found]

    def _path(self, name: str, number: int) -> Path:
        return self._folder / f"{name}-{number:05d}.parquet"
