"""The first pass: read raw files, set bad rows aside, and write the good ones by bucket of their actor.

Shapes: N rows of a piece.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foretaste.contracts.columns import EVENTS, TITLES
from foretaste.contracts.events import GUEST
from foretaste.sessions.quarantine import quarantined
from foretaste.sessions.read import pieces, read
from foretaste.sessions.rules import Titles
from foretaste.sessions.sources import files_under
from foretaste.sessions.spread import Item
from foretaste.sessions.validate import check_events

ACTOR = "actor_id"
STAGED = pa.schema([pa.field(ACTOR, pa.string()), *EVENTS])
"""Good events with their actor; what the second pass reads."""


def bucket_of(actor_id: str, num_buckets: int) -> int:
    """Number of the bucket that holds an actor: the same in every process, on every machine, in every version."""
    digest = hashlib.blake2b(actor_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % num_buckets


def bucket_name(number: int) -> str:
    """Folder of a bucket."""
    return f"bucket={number:04d}"


def units(raw: Path, *, rows: int) -> list[Item]:
    """Divide the files under raw/events into units of work: Parquet by row groups, about `rows` each, others whole."""
    found: list[Item] = []
    for path in [Path(f.name) for f in files_under(raw / "events")]:
        for groups in _row_groups(path, rows) if path.suffix == ".parquet" else [None]:
            found.append({"number": len(found), "path": str(path), "row_groups": groups})
    return found


def _row_groups(path: Path, rows: int) -> Iterator[list[int] | None]:
    try:
        metadata = pq.ParquetFile(path).metadata
    except (pa.ArrowException, OSError):
        yield None  # the task that reads it says what is wrong
        return
    groups: list[int] = []
    size = 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        size += metadata.row_group(group).num_rows
        if size >= rows:
            yield groups
            groups, size = [], 0
    if groups:
        yield groups


@dataclass(frozen=True, slots=True)
class Bucketing:
    """The work on one unit; answers with counts."""

    titles: Path
    staging: Path  # with a folder for each bucket
    quarantine: Path
    num_buckets: int
    piece_rows: int
    now: datetime

    def __call__(self, item: Item) -> Item:
        """Read the rows of a unit and write them. Raises ValueError where a column that must be there is not."""
        events, bad, by_bucket = 0, dict[str, int](), [0] * self.num_buckets
        titles = _titles(self.titles)
        source = pieces(Path(item["path"]), EVENTS, row_groups=item["row_groups"], piece_rows=self.piece_rows)
        for number, piece in enumerate(source):
            name = f"{item['number']:06d}-{number:06d}.parquet"
            if piece.missing:
                raise ValueError(f"{piece.file}: missing columns {list(piece.missing)}; wanted {EVENTS.names}")
            findings = check_events(piece, now=self.now, titles=titles)
            events += piece.num_rows
            for kind, count in findings.rows_by_reason().items():
                bad[kind] = bad.get(kind, 0) + count
            if findings.num_bad:
                pq.write_table(quarantined(piece, findings), self.quarantine / name, compression="zstd")
            written = self._write(piece.table.filter(pa.array(~findings.bad_N)), name)
            by_bucket = [a + b for a, b in zip(by_bucket, written, strict=True)]
        return {"events": events, "bad": bad, "by_bucket": by_bucket}

    def _write(self, good: pa.Table, name: str) -> list[int]:
        actor = actor_ids(good)
        bucket_N = _buckets(actor, self.num_buckets)
        order = np.argsort(bucket_N, kind="stable")
        good = good.add_column(0, ACTOR, actor).take(pa.array(order)).cast(STAGED)
        counts = np.bincount(bucket_N, minlength=self.num_buckets)
        start = 0
        for number, count in enumerate(counts.tolist()):
            if count:
                target = self.staging / bucket_name(number) / name
                pq.write_table(good.slice(start, count), target, compression="lz4")
            start += count
        return [int(count) for count in counts]


def actor_ids(events: pa.Table) -> pa.Array:
    """`contracts.events.actor_id` of every row."""
    guest = pc.binary_join_element_wise(GUEST, events["session_id"], "")
    actors = pc.coalesce(events["member_id"], guest)
    return actors.combine_chunks() if isinstance(actors, pa.ChunkedArray) else actors


def _buckets(actors: pa.Array, num_buckets: int) -> NDArray[np.int64]:
    if not len(actors):
        return np.zeros(0, dtype=np.int64)
    coded = actors.dictionary_encode()
    coded = coded if isinstance(coded, pa.DictionaryArray) else coded.combine_chunks()
    number = np.array([bucket_of(actor, num_buckets) for actor in coded.dictionary.to_pylist()], dtype=np.int64)
    return np.asarray(number[coded.indices.to_numpy()])


@lru_cache(maxsize=1)
def _titles(path: Path) -> Titles:
    # The path is of one run only, so that a cached catalogue is never an old one.
    return Titles(read(path, TITLES).table)
