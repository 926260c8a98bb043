"""What clients said that they really showed: a row a title, durable before it is acknowledged, each once.

    acks.db                                      ACKS rows of the last days, by any number of processes
    acks/00001767312000000000-5f2c9a10.parquet   the same rows, shipped; the name begins with their newest arrival

A part appears whole. What was shipped twice, because a process died before it took note, readers find once.
"""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foretaste.contracts.columns import ACKS, AT, conform
from foretaste.contracts.events import GUEST
from foretaste.feedback.forgotten import DELETING_US, actors_of, alone_in
from foretaste.feedback.session_log import DAY_US, microseconds
from foretaste.ops.files import PARTIAL, write_parquet

ACKS_FILE, ACKS_FOLDER = "acks.db", "acks"
KEPT_US = 30 * DAY_US
"""How long a shipped row is known as a repetition."""

_AT_ONCE = 20_000
_NAMES = ACKS.names
_LISTED = ", ".join(_NAMES)
_NUMBERED = pa.schema([pa.field(f.name, pa.int64()) if f.type == AT else f for f in ACKS])
_COLUMNS = ", ".join(f"{f.name} {'TEXT' if f.type == pa.string() else 'NUMERIC'}" for f in ACKS)
_MAKE = f"""
CREATE TABLE IF NOT EXISTS acks ({_COLUMNS}, shipped INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (decision_id, title_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS acks_to_ship ON acks (received_at) WHERE shipped = 0;
CREATE INDEX IF NOT EXISTS acks_of_member ON acks (member_id, session_id);
"""
_INSERT = f"INSERT INTO acks ({_LISTED}) VALUES ({', '.join('?' * len(_NAMES))}) ON CONFLICT DO NOTHING"


class AckLog:
    """The acks of one workspace, in `folder`."""

    def __init__(self, folder: Path, *, durable: bool = True, busy_seconds: float = 10.0) -> None:
        """`durable`: survive a power failure, one fsync a call; else only the death of the process."""
        self._path, self._parts = folder / ACKS_FILE, folder / ACKS_FOLDER
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._open = sqlite3.connect(self._path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
        self._open.execute("PRAGMA journal_mode = WAL")
        self._open.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._open.executescript(_MAKE)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Store ACKS rows (times in microseconds); what is known changes nothing. Returns how many were new."""
        with self._transaction() as connection:
            before = connection.total_changes
            connection.executemany(_INSERT, [[row[name] for name in _NAMES] for row in rows])
            return connection.total_changes - before

    def of(self, decision_id: str) -> list[str]:
        """Titles of a decision that are known as shown, in order of their places."""
        query = "SELECT title_id FROM acks WHERE decision_id = ? ORDER BY position"
        with self._transaction() as connection:
            return [title for (title,) in connection.execute(query, (decision_id,))]

    def ship(self, *, now: datetime) -> int:
        """Write what is not in the parts as a part, and let go of old rows that are; returns how many were written.

        One process at a time, another one returns 0 at once. Raises OSError where the disk is full.
        """
        written = 0
        self._parts.mkdir(parents=True, exist_ok=True)
        with alone_in(self._parts) as held:
            while held and (rows := self._unshipped()):
                newest = rows[-1]["received_at"]
                write_parquet(_table(rows), self._parts / f"{newest:020d}-{uuid.uuid4().hex[:8]}.parquet")
                with self._transaction() as connection:
                    keys = [(row["decision_id"], row["title_id"]) for row in rows]
                    connection.executemany("UPDATE acks SET shipped = 1 WHERE decision_id = ? AND title_id = ?", keys)
                written += len(rows)
            if held:
                with self._transaction() as connection:
                    old = microseconds(now) - KEPT_US
                    connection.execute("DELETE FROM acks WHERE shipped = 1 AND received_at < ?", (old,))
        return written

    def read(self) -> pa.Table:
        """Give all ACKS, each (decision_id, title_id) once, in order of decision and place."""
        with self._transaction() as connection:
            rows = [dict(zip(_NAMES, row, strict=True)) for row in connection.execute(f"SELECT {_LISTED} FROM acks")]
        parts = [conform(pq.read_table(path, partitioning=None), ACKS, what=path.name) for path in self._files()]
        every = pl.DataFrame(pl.from_arrow(pa.concat_tables([*parts, _table(rows)])))
        once = every.sort("received_at").unique(["decision_id", "title_id"], keep="first")
        once = once.sort("decision_id", "position")
        return conform(once.to_arrow(), ACKS, what="acks")

    def forget(self, deleted: Mapping[str, int]) -> int:
        """Remove what was shown to deleted actors (up to which time, in microseconds, by actor); returns how many.

        Goes what was decided until their deletion was through. Rows in the parts go with `forget_parts`.
        """
        removed = 0
        with self._transaction() as connection:
            for actor, until in deleted.items():
                session_id = actor.removeprefix(GUEST)
                whose = "member_id = ?" if session_id == actor else "member_id IS NULL AND session_id = ?"
                query = f"DELETE FROM acks WHERE {whose} AND decided_at <= ?"
                removed += connection.execute(query, (session_id, until + DELETING_US)).rowcount
        return removed

    def forget_parts(self, deleted: Mapping[str, int]) -> int:
        """Rewrite the parts without what was shown to deleted actors; one process at a time, another returns 0."""
        if not deleted or not self._parts.is_dir():
            return 0
        with alone_in(self._parts) as held:
            return sum(_forget(path, deleted) for path in self._files()) if held else 0

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        with self._lock:
            self._open.close()

    def _unshipped(self) -> list[dict[str, Any]]:
        query = f"SELECT {_LISTED} FROM acks WHERE shipped = 0 ORDER BY received_at LIMIT {_AT_ONCE}"
        with self._transaction() as connection:
            return [dict(zip(_NAMES, row, strict=True)) for row in connection.execute(query)]

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


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return conform(pa.Table.from_pylist(list(rows), schema=_NUMBERED), ACKS, what="acks")


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
