"""Every stored event as a table: immutable Parquet parts, shipped from the session log at least once.

    events/
      00001767312000000000-5f2c9a10.parquet      LOGGED_EVENTS by (actor_id, sequence); the name begins with the
      00001767312020000000-91b3e7d4.parquet      smallest sequence of the part

A part appears whole. What was shipped twice, because a process died before it could report it, has two rows; readers
take the one with the smallest sequence, and compaction leaves only that.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from foretaste.contracts.columns import AT, LOGGED_EVENTS, conform
from foretaste.feedback.session_log import LoggedEvent, SessionLog
from foretaste.ops.files import PARTIAL, write_parquet

EVENTS_FOLDER = "events"
PARTS = "*.parquet"
SHIPPED_AT_ONCE = 20_000
ROWS_A_PART = 200_000
"""Rows from which compaction leaves a part as it is."""

_LOCK = ".lock"
_ATTEMPTS = 100
_NUMBERED_TIMES = pa.schema([pa.field(f.name, pa.int64()) if f.type == AT else f for f in LOGGED_EVENTS])


class EventLog:
    """The event log at a folder, which any number of processes share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ship(self, log: SessionLog, *, deleted: Mapping[str, int] | None = None) -> int:
        """Write what waits in the session log as parts, then report it shipped; returns how many rows were written.

        One process ships at a time, another one returns 0 at once. Rows of `deleted` actors (see `compact`) are left
        out. Raises OSError where the disk is full: what was not reported is shipped next time.
        """
        written = 0
        with self._alone() as held:
            while held and (events := log.pending(SHIPPED_AT_ONCE)):
                rows = _without(_table(events), deleted or {})
                self._write(rows)
                log.shipped(events)
                written += rows.num_rows
        return written

    def read(self, actors: Sequence[str] | None = None) -> pa.Table:
        """Give LOGGED_EVENTS of `actors`, or of all, each (actor_id, event_id) once, by (actor_id, sequence)."""
        for _ in range(_ATTEMPTS):
            parts = self._parts()
            try:
                return _distinct(parts, actors)
            except FileNotFoundError:  # compacted away meanwhile; the part that has its rows was there before
                continue
        raise FileNotFoundError(f"event log {self._folder}: parts went {_ATTEMPTS} times while they were read")

    def compact(self, *, deleted: Mapping[str, int] | None = None) -> int:
        """Join small parts, and rewrite those that have rows of `deleted` actors; returns how many rows went.

        A row goes that happened or arrived up to the actor's time (microseconds), and one that was shipped twice.
        One process at a time, another one returns 0 at once. Memory is bounded by `ROWS_A_PART`.
        """
        removed = 0
        with self._alone() as held:
            for parts in _groups(self._parts()) if held else []:
                if len(parts) > 1 or _concerned(parts[0], deleted or {}):
                    before = sum(pq.read_metadata(part).num_rows for part in parts)
                    rows = _without(_distinct(parts, None), deleted or {})
                    self._write(rows)
                    for part in parts:
                        part.unlink()
                    removed += before - rows.num_rows
        return removed

    def _write(self, rows: pa.Table) -> None:
        if rows.num_rows:
            first = min(rows["sequence"].to_pylist())
            write_parquet(rows, self._folder / f"{first:020d}-{uuid.uuid4().hex[:8]}.parquet")

    def _parts(self) -> list[Path]:
        """The parts of one instant: a listing that is read while parts are joined might miss both old and new."""
        seen = sorted(self._folder.glob(PARTS))
        for _ in range(_ATTEMPTS):
            again = sorted(self._folder.glob(PARTS))
            if again == seen:
                break
            seen = again
        return [part for part in seen if not part.name.startswith(PARTIAL)]

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether this process may write; whoever may first removes what a killed one left unfinished."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            for unfinished in self._folder.glob(f"{PARTIAL}*"):
                unfinished.unlink(missing_ok=True)
            yield True
        finally:
            os.close(descriptor)


def _table(events: Sequence[LoggedEvent]) -> pa.Table:
    rows: list[dict[str, Any]] = [
        {"actor_id": one.actor_id, "sequence": one.sequence, "received_at": one.received_at, **one.event}
        for one in events
    ]
    table = pa.Table.from_pylist(rows, schema=_NUMBERED_TIMES)
    return conform(table, LOGGED_EVENTS, what="event log").sort_by(
        [("actor_id", "ascending"), ("sequence", "ascending")]
    )


def _distinct(parts: list[Path], actors: Sequence[str] | None) -> pa.Table:
    if not parts:
        return LOGGED_EVENTS.empty_table()
    rows = pl.scan_parquet(parts, glob=False)
    if actors is not None:
        rows = rows.filter(pl.col("actor_id").is_in(list(actors)))
    first = rows.sort("sequence").unique(["actor_id", "event_id"], keep="first", maintain_order=True)
    return conform(first.sort("actor_id", "sequence").collect().to_arrow(), LOGGED_EVENTS, what="event log")


def _without(rows: pa.Table, deleted: Mapping[str, int]) -> pa.Table:
    if not deleted:
        return rows
    kept = pl.DataFrame(pl.from_arrow(rows)).filter(~_is_deleted(deleted)).to_arrow()
    return conform(kept, LOGGED_EVENTS, what="event log")


def _concerned(part: Path, deleted: Mapping[str, int]) -> bool:
    if not deleted:
        return False
    found = pl.scan_parquet(part, glob=False).filter(_is_deleted(deleted)).select(pl.len()).collect()
    return bool(found.item())


def _is_deleted(deleted: Mapping[str, int]) -> pl.Expr:
    """A client's clock may be ahead, so what had arrived by then goes whatever its time."""
    until = pl.col("actor_id").replace_strict(dict(deleted), default=-1, return_dtype=pl.Int64)
    return (pl.col("at").to_physical() <= until) | (pl.col("received_at").to_physical() <= until)


def _groups(parts: list[Path]) -> list[list[Path]]:
    """Neighbouring small parts together, up to `ROWS_A_PART` rows a group; a part that is large enough alone."""
    groups: list[list[Path]] = []
    rows = ROWS_A_PART
    for part in parts:
        more = pq.read_metadata(part).num_rows
        if rows + more > ROWS_A_PART:
            groups.append([])
            rows = 0
        groups[-1].append(part)
        rows += more
    return groups
