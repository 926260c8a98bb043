"""Rows that clients tell of decisions, durable before they are acknowledged, each once by its key.

    acks.db                                      rows of the last days, by any number of processes
    acks/00001767312000000000-5f2c9a10.parquet   the same rows, shipped; the name begins with their newest arrival

A part appears whole. What was shipped twice, because a process died before it took note, readers find once.
"""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foretaste.contracts.columns import AT, conform
from foretaste.contracts.events import GUEST
from foretaste.feedback.forgotten import DELETING_US, actors_of, alone_in
from foretaste.feedback.session_log import DAY_US, microseconds
from foretaste.ops.files import PARTIAL, write_parquet

KEPT_US = 30 * DAY_US
"""How long a shipped row is known as a repetition."""

_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Kind:
    """What rows there are: their table, its schema, and the columns that name a row.

    The schema has member_id, session_id, decided_at and received_at.
    """

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    order: tuple[str, ...]  # in which all rows are read

    @property
    def numbered(self) -> pa.Schema:
        """The schema with times in microseconds."""
        return pa.schema([pa.field(f.name, pa.int64()) if f.type == AT else f for f in self.schema])

    @property
    def listed(self) -> str:
        """Names of the columns."""
        return ", ".join(self.schema.names)

    @property
    def make(self) -> str:
        """SQL that makes the table."""
        columns = ", ".join(f"{f.name} {'TEXT' if f.type == pa.string() else 'NUMERIC'}" for f in self.schema)
        return f"""
        CREATE TABLE IF NOT EXISTS {self.name} ({columns}, shipped INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY ({", ".join(self.key)})) WITHOUT ROWID;
        CREATE INDEX IF NOT EXISTS {self.name}_to_ship ON {self.name} (received_at) WHERE shipped = 0;
        CREATE INDEX IF NOT EXISTS {self.name}_of_member ON {self.name} (member_id, session_id);
        """


class RowLog:
    """The rows of one kind of one workspace, in `folder`."""

    def __init__(self, folder: Path, kind: Kind, *, durable: bool = True, busy_seconds: float = 10.0) -> None:
        """`durable`: survive a power failure, one fsync a call; else only the death of the process."""
        self._kind = kind
        self._path, self._parts = folder / f"{kind.name}.db", folder / kind.name
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._open = sqlite3.connect(self._path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
        self._open.execute("PRAGMA journal_mode = WAL")
        self._open.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._open.executescript(kind.make)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Store rows (times in microseconds); what is known changes nothing. Says of each whether it was new."""
        names = self._kind.schema.names
        places = ", ".join("?" * len(names))
        insert = f"INSERT INTO {self._kind.name} ({self._kind.listed}) VALUES ({places}) ON CONFLICT DO NOTHING"
        with self._transaction() as connection:
            return [connection.execute(insert, [row[name] for name in names]).rowcount > 0 for row in rows]

    def ship(self, *, now: datetime) -> int:
        """Write what is not in the parts as a part, and let go of old rows that are; returns how many were written.

        One process at a time, another one returns 0 at once. Raises OSError where the disk is full.
        """
        written = 0
        self._parts.mkdir(parents=True, exist_ok=True)
        with alone_in(self._parts) as held:
            while held and (rows := self._unshipped()):
                newest = rows[-1]["received_at"]
                write_parquet(self._table(rows), self._parts / f"{newest:020d}-{uuid.uuid4().hex[:8]}.parquet")
                where = " AND ".join(f"{name} = ?" for name in self._kind.key)
                keys = [[row[name] for name in self._kind.key] for row in rows]
                with self._transaction() as connection:
                    connection.executemany(f"UPDATE {self._kind.name} SET shipped = 1 WHERE {where}", keys)
                written += len(rows)
            if held:
                with self._transaction() as connection:
                    old = microseconds(now) - KEPT_US
                    query = f"DELETE FROM {self._kind.name} WHERE shipped = 1 AND received_at < ?"
                    connection.execute(query, (old,))
        return written

    def read(self) -> pa.Table:
        """Give all rows, each once: the one that arrived first."""
        rows = self._rows("")
        name, schema = self._kind.name, self._kind.schema
        parts = [conform(pq.read_table(path, partitioning=None), schema, what=path.name) for path in self._files()]
        every = pl.DataFrame(pl.from_arrow(pa.concat_tables([*parts, self._table(rows)])))
        once = every.sort("received_at").unique(list(self._kind.key), keep="first").sort(self._kind.order)
        return conform(once.to_arrow(), schema, what=name)

    def forget(self, deleted: Mapping[str, int]) -> int:
        """Remove what is of deleted actors (up to which time, in microseconds, by actor); returns how many.

        Goes what was decided until their deletion was through. Rows in the parts go with `forget_parts`.
        """
        removed = 0
        with self._transaction() as connection:
            for actor, until in deleted.items():
                session_id = actor.removeprefix(GUEST)
                whose = "member_id = ?" if session_id == actor else "member_id IS NULL AND session_id = ?"
                query = f"DELETE FROM {self._kind.name} WHERE {whose} AND decided_at <= ?"
                removed += connection.execute(query, (session_id, until + DELETING_US)).rowcount
        return removed

    def forget_parts(self, deleted: Mapping[str, int]) -> int:
        """Rewrite the parts without what is of deleted actors; one process at a time, another returns 0."""
        if not deleted or not self._parts.is_dir():
            return 0
        with alone_in(self._parts) as held:
            return sum(_forget(path, deleted) for path in self._files()) if held else 0

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        with self._lock:
            self._open.close()

    def _unshipped(self) -> list[dict[str, Any]]:
        return self._rows(f"WHERE shipped = 0 ORDER BY received_at LIMIT {_AT_ONCE}")

    def _rows(self, which: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        names = self._kind.schema.names
        with self._transaction() as connection:
            found = connection.execute(f"SELECT {self._kind.listed} FROM {self._kind.name} {which}", values)
            return [dict(zip(names, row, strict=True)) for row in found]

    def _table(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        table = pa.Table.from_pylist(list(rows), schema=self._kind.numbered)
        return conform(table, self._kind.schema, what=self._kind.name)

    def _files(self) -> list[Path]:
        return [path for path in sorted(self._parts.glob("*.parquet")) if not path.name.startswith(PARTIAL)]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._open.execute("BEGIN IMMEDIATE")
            try:
                yield self._open
                self._open.execute("COMMIT")
            except BaseException:
                if self._open.in_transaction:
                    self._open.execute("ROLLBACK")
                raise


def _forget(path: Path, deleted: Mapping[str, int]) -> int:
    table = pq.read_table(path, partitioning=None)
    actors = actors_of(table).to_pylist()
    decided = table["decided_at"].cast(pa.int64()).to_pylist()
    gone = pa.array([at <= deleted.get(one, -1 << 62) + DELETING_US for one, at in zip(actors, decided, strict=True)])
    removed = int(pc.sum(gone).as_py() or 0)
    if removed == table.num_rows:
        path.unlink()
    elif removed:
        write_parquet(table.filter(pc.invert(gone)), path)
    return removed
