"""The first pass: read raw files, set bad rows aside, and put the good ones by bucket of their actor.

What is good of a piece is one Arrow file with one record batch a bucket, so that a task of the second pass reads its
bucket from every file without reading the others.

Shapes: N rows of a piece.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
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
from foretaste.ops.files import write_parquet
from foretaste.sessions.findings import Findings
from foretaste.sessions.journal import Journal, key
from foretaste.sessions.quarantine import quarantined
from foretaste.sessions.read import Read, pieces, read
from foretaste.sessions.rules import Titles
from foretaste.sessions.sequence import ACTOR
from foretaste.sessions.sources import File
from foretaste.sessions.spread import Item
from foretaste.sessions.validate import check_events

STAGED = pa.schema([pa.field(ACTOR, pa.string()), *EVENTS])
"""Good events with their actor; what the second pass reads."""

BYTES_A_ROW = 100
"""Of text files, to guess their rows by."""


def bucket_of(actor_id: str, num_buckets: int) -> int:
    """Number of the bucket that holds an actor: the same in every process, on every machine, in every version."""
    return zlib.crc32(actor_id.encode()) % num_buckets


def bucket_name(number: int) -> str:
    """Folder of a bucket."""
    return f"bucket={number:04d}"


def units(files: Sequence[File], *, rows: int) -> list[Item]:
    """Divide files into units of work: Parquet by row groups, about `rows` each, others whole."""
    found: list[Item] = []
    with ThreadPoolExecutor(16) as threads:
        for file, groups in zip(files, threads.map(lambda f: list(_row_groups(f, rows)), files), strict=True):
            found += [{"file": asdict(file), "row_groups": some, "rows": num} for some, num in groups]
    return found


def _row_groups(file: File, rows: int) -> Iterator[tuple[list[int] | None, int]]:
    guess = max(file.size, 0) // BYTES_A_ROW
    if file.suffix != ".parquet":
        yield None, guess
        return
    try:
        metadata = pq.ParquetFile(file.open_arrow()).metadata
    except (pa.ArrowException, OSError, ValueError):
        yield None, guess  # the task that reads it says what is wrong
        return
    groups: list[int] = []
    size = 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        size += metadata.row_group(group).num_rows
        if size >= rows:
            yield groups, size
            groups, size = [], 0
    if groups:
        yield groups, size


@dataclass(frozen=True, slots=True)
class Bucketing:
    """The work on one unit; answers with counts and with the names of the files that it left."""

    titles: Path
    prepared: Path
    run: int
    num_buckets: int
    piece_rows: int
    now: datetime
    deleted: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, item: Item) -> Item:
        """Read the rows of a unit and write them. Raises ValueError where a column that must be there is not."""
        journal = Journal(self.prepared)
        if (done := journal.found(item["key"])) is not None:
            return done | {"number": item["number"]}
        events, gone, bad, by_bucket = 0, 0, dict[str, int](), [0] * self.num_buckets
        staged = list[str]()
        aside = list[Item]()
        titles = _titles(self.titles)
        file = File(**item["file"])
        source = pieces(file, EVENTS, row_groups=item["row_groups"], piece_rows=self.piece_rows)
        for number, piece in enumerate(source):
            if piece.missing:
                raise ValueError(f"{piece.file}: missing columns {list(piece.missing)}; wanted {EVENTS.names}")
            events += piece.num_rows
            kept = _without(piece, self.deleted)
            gone += piece.num_rows - kept.num_rows
            findings = check_events(kept, now=self.now, titles=titles)
            for kind, count in findings.rows_by_reason().items():
                bad[kind] = bad.get(kind, 0) + count
            if findings.num_bad:
                name = f"{self.run:06d}-{item['number']:06d}-{number:04d}-{item['key']}"
                aside.append(self._aside(kept, findings, name))
            written = self._write(kept.table, findings.bad_N, journal.staging / f"{item['key']}-{number:04d}.arrow")
            staged.append(f"{item['key']}-{number:04d}.arrow")
            by_bucket = [a + b for a, b in zip(by_bucket, written, strict=True)]
        pa.default_memory_pool().release_unused()  # or the second pass would have it beside its own
        counts = {"events": events, "deleted": gone, "bad": bad, "by_bucket": by_bucket}
        names = [str((journal.staging / name).relative_to(self.prepared)) for name in staged]
        record = counts | {"staged": staged, "quarantine": aside, "number": item["number"]}
        return journal.note(item["key"], record, [*names, *(part["file"] for part in aside)])

    def _aside(self, piece: Read, findings: Findings, name: str) -> Item:
        file = f"quarantine/{name}.parquet"
        rows = quarantined(piece, findings)
        write_parquet(rows, self.prepared / file)
        return {"file": file, "run": self.run, "rows": rows.num_rows}

    def _write(self, table: pa.Table, bad_N: NDArray[np.bool_], target: Path) -> list[int]:
        actor = actor_ids(table)
        bucket_N = np.where(bad_N, self.num_buckets, _buckets(actor, self.num_buckets))
        order = pa.array(np.argsort(bucket_N.astype(np.uint16), kind="stable"))  # bad rows come last
        rows = table.add_column(0, ACTOR, actor)
        counts = np.bincount(bucket_N, minlength=self.num_buckets + 1)[: self.num_buckets]
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, STAGED, options=options) as writer:
            start = 0
            for count in counts.tolist():
                # Taken bucket by bucket: the whole piece would otherwise be held twice.
                some = rows.take(order.slice(start, count)).cast(STAGED).combine_chunks()
                batches = some.to_batches() if count else []
                writer.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], STAGED))
                start += count
        return [int(count) for count in counts]


def staged(journal: Journal, names: Sequence[str], bucket: int) -> pa.Table:
    """What the first pass left of one bucket, in order of the names."""
    batches = []
    for name in names:
        with pa.OSFile(str(journal.staging / name)) as source:
            batches.append(pa.ipc.open_file(source).get_batch(bucket))
    return pa.Table.from_batches(batches, STAGED)


def unit_key(item: Item, *about: object) -> str:
    """Key of a unit: the file as it is, the rows of it, and all that decides what becomes of them."""
    file = item["file"]
    return key(file["name"], file["size"], file["mtime_ns"], item["row_groups"], *about)


def actor_ids(events: pa.Table) -> pa.Array:
    """`contracts.events.actor_id` of every row."""
    actors = events["member_id"]
    if actors.null_count:
        actors = pc.coalesce(actors, pc.binary_join_element_wise(GUEST, events["session_id"], ""))
    return actors.combine_chunks() if isinstance(actors, pa.ChunkedArray) else actors


def _buckets(actors: pa.Array, num_buckets: int) -> NDArray[np.int64]:
    if not len(actors):
        return np.zeros(0, dtype=np.int64)
    if isinstance(actors, pa.ChunkedArray):
        actors = pa.concat_arrays(actors.chunks)
    coded = actors.dictionary_encode()
    crc = zlib.crc32
    number = np.array([crc(actor.encode()) for actor in coded.dictionary.to_pylist()] + [0], dtype=np.int64)
    return np.asarray((number % num_buckets)[coded.indices.fill_null(-1).to_numpy()])


def _without(piece: Read, deleted: Mapping[str, int]) -> Read:
    """A piece without the rows of deleted actors up to their deletion; a row without a time goes, too."""
    if not deleted:
        return piece
    place = pc.index_in(actor_ids(piece.table), value_set=pa.array(list(deleted), pa.string())).fill_null(-1)
    until_N = np.append(np.array(list(deleted.values()), dtype=np.int64), np.iinfo(np.int64).min)
    least = np.iinfo(np.int64).min + 1
    at_N = np.asarray(piece.table["at"].cast(pa.int64()).fill_null(least))
    index = np.flatnonzero(at_N > until_N[np.asarray(place, dtype=np.int64)])
    if len(index) == piece.table.num_rows:
        return piece
    return replace(
        piece,
        table=piece.table.take(pa.array(index)),
        row_N=piece.row_N[index],
        line_N=None if piece.line_N is None else piece.line_N[index],
        bad_N={name: bad[index] for name, bad in piece.bad_N.items()},
        original=lambda some: piece.original(index[some]),
    )


@lru_cache(maxsize=1)
def _titles(path: Path) -> Titles:
    # The name of the file changes with its content, so that a cached catalogue is never an old one.
    return Titles(read(path, TITLES).table)
