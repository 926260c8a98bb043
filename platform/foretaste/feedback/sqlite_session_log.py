"""The session log on one machine: SQLite with a write-ahead log, shared by any number of processes."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from foretaste.contracts.events import actor_id
from foretaste.feedback.session_log import Appended, Event, SessionLogConfig, microseconds

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    actor TEXT NOT NULL, event_id TEXT NOT NULL, at INTEGER NOT NULL, sequence INTEGER NOT NULL,
    received_at INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (actor, event_id)
);
CREATE INDEX IF NOT EXISTS events_by_time ON events (actor, at, event_id);
CREATE INDEX IF NOT EXISTS events_by_arrival ON events (received_at);
CREATE TABLE IF NOT EXISTS actors (
    actor TEXT PRIMARY KEY, sequence INTEGER NOT NULL, stored INTEGER NOT NULL
) WITHOUT ROWID;
"""
_NEWEST = "SELECT body, sequence, at FROM events WHERE actor = ?{} ORDER BY at DESC, event_id DESC LIMIT ?"


class SqliteSessionLog:
    """See `session_log.SessionLog`; one connection a thread and process, writers take turns at the file."""

    def __init__(self, path: Path, config: SessionLogConfig | None = None) -> None:
        """Open or make the log at `path`. Raises ValueError where less is stored than read."""
        self.config = config or SessionLogConfig()
        if self.config.stored_events < self.config.read_events:
            raise ValueError(
                f"session log: stored_events {self.config.stored_events} is below read_events {self.config.read_events}"
            )
        self._path = path
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        self._closed = False
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._transaction("IMMEDIATE") as connection:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)

    def append(self, events: Sequence[Event], *, received_at: datetime) -> list[Appended]:
        """See `SessionLog.append`. Raises sqlite3.OperationalError when the file stays locked for `busy_seconds`."""
        rows = [_row(event) for event in events]
        arrived = microseconds(received_at)
        with self._transaction("IMMEDIATE") as connection:
            counters: dict[str, list[int]] = {}
            results = [self._insert(connection, row, arrived, counters) for row in rows]
            for actor, (sequence, stored) in counters.items():
                stored -= self._trim(connection, actor, stored)
                connection.execute("INSERT OR REPLACE INTO actors VALUES (?, ?, ?)", (actor, sequence, stored))
        return results

    def read(
        self, actor_id: str, *, limit: int, before_us: int | None = None, mark: int | None = None
    ) -> tuple[list[dict[str, Any]], int]:
        """See `SessionLog.read`."""
        with self._transaction("DEFERRED") as connection:
            counter = connection.execute("SELECT sequence FROM actors WHERE actor = ?", (actor_id,)).fetchone()
            highest = counter[0] if counter is not None else 0
            seen = highest if mark is None else min(mark, highest)
            query = _NEWEST.format("" if seen == highest else f" AND sequence <= {seen:d}")
            found = connection.execute(query, (actor_id, limit)).fetchall()
        return [
            orjson.loads(body) | {"sequence": sequence}
            for body, sequence, at in reversed(found)
            if before_us is None or at < before_us
        ], seen

    def expire(self, *, now: datetime) -> int:
        """See `SessionLog.expire`."""
        cut = microseconds(now - timedelta(days=self.config.keep_days))
        with self._transaction("IMMEDIATE") as connection:
            gone = connection.execute(
                "SELECT actor, count(*) FROM events WHERE received_at < ? GROUP BY actor", (cut,)
            ).fetchall()
            connection.executemany("UPDATE actors SET stored = stored - ?2 WHERE actor = ?1", gone)
            return connection.execute("DELETE FROM events WHERE received_at < ?", (cut,)).rowcount

    def close(self) -> None:
        """See `SessionLog.close`; also closes the connections of other threads."""
        with self._lock:
            self._closed = True
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    def _insert(
        self, connection: sqlite3.Connection, row: _Row, arrived: int, counters: dict[str, list[int]]
    ) -> Appended:
        actor, event_id, at, body = row
        if actor not in counters:
            found = connection.execute("SELECT sequence, stored FROM actors WHERE actor = ?", (actor,)).fetchone()
            counters[actor] = list(found) if found is not None else [0, 0]
        counter = counters[actor]
        done = connection.execute(
            "INSERT INTO events (actor, event_id, at, sequence, received_at, body) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            (actor, event_id, at, counter[0] + 1, arrived, body),
        )
        if done.rowcount == 1:
            counter[0] += 1
            counter[1] += 1
            return Appended(counter[0], duplicate=False)
        first = connection.execute(
            "SELECT sequence FROM events WHERE actor = ? AND event_id = ?", (actor, event_id)
        ).fetchone()
        return Appended(first[0], duplicate=True)

    def _trim(self, connection: sqlite3.Connection, actor: str, stored: int) -> int:
        over = stored - self.config.stored_events
        if over <= 0:
            return 0
        return connection.execute(
            "DELETE FROM events WHERE rowid IN "
            "(SELECT rowid FROM events WHERE actor = ? ORDER BY at, event_id LIMIT ?)",
            (actor, over),
        ).rowcount

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        connection.execute(f"BEGIN {kind}")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection; a forked child opens its own, as SQLite demands."""
        if self._closed:
            raise ValueError(f"session log {self._path}: is closed")
        held = getattr(self._local, "held", None)
        if held is not None and held[0] == os.getpid():
            return held[1]  # type: ignore[no-any-return]
        connection = sqlite3.connect(
            self._path, timeout=self.config.busy_seconds, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self.config.durable else 'NORMAL'}")
        self._local.held = (os.getpid(), connection)
        with self._lock:
            self._connections.append(connection)
        return connection


_Row = tuple[str, str, int, bytes]


def _row(event: Event) -> _Row:
    event_id, at = event.get("event_id"), event.get("at")
    if not isinstance(event_id, str) or not event_id:
        raise ValueError(f"session log: event_id is {event_id!r}, wanted a name")
    if not isinstance(at, int) or isinstance(at, bool):
        raise ValueError(f"session log: at of event {event_id} is {at!r}, wanted microseconds since 1970")
    body = {name: value for name, value in event.items() if value is not None and name != "sequence"}
    return actor_id(event.get("member_id"), event.get("session_id")), event_id, at, orjson.dumps(body)
