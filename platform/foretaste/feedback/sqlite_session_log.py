"""The session log on one machine: SQLite with a write-ahead log, shared by any number of processes.

Writers take turns at the file, so one counter gives every sequence, commits are in its order, and what waits to be
shipped is what lies above a second counter.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from foretaste.contracts.events import GUEST
from foretaste.feedback.session_log import (
    MARGIN_US,
    Appended,
    Event,
    LoggedEvent,
    SessionLogConfig,
    microseconds,
)
from foretaste.feedback.stored_row import StoredRow, stored_row

VERSION = 2
READ, PASSIVE, SHIP_ONLY = 0, 1, 2
"""Shelves: what reads give, impressions, and what is too old for either."""

_SCHEMA = """
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY, actor TEXT NOT NULL, event_id TEXT NOT NULL, at INTEGER NOT NULL,
    shelf INTEGER NOT NULL, received_at INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (actor, event_id)
);
CREATE INDEX events_to_read ON events (actor, at, event_id) WHERE shelf = 0;
CREATE INDEX events_passive ON events (actor, at, event_id) WHERE shelf = 1;
CREATE INDEX events_too_old ON events (sequence) WHERE shelf = 2;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES ('last', 0), ('shipped', 0);
CREATE TABLE merges (member TEXT NOT NULL, session TEXT NOT NULL, PRIMARY KEY (member, session)) WITHOUT ROWID;
"""
_COUNTER = "SELECT value FROM counters WHERE name = ?"
_SET_COUNTER = "UPDATE counters SET value = max(value, ?) WHERE name = ?"
_INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (actor, event_id) DO NOTHING"
_FIRST = "SELECT sequence FROM events WHERE actor = ? AND event_id = ?"
_NEWEST = (
    "SELECT body, sequence, at FROM events WHERE actor = ? AND shelf = 0{} ORDER BY at DESC, event_id DESC LIMIT ?"
)
_TRIM = (
    "DELETE FROM events WHERE sequence IN (SELECT sequence FROM events WHERE actor = ? AND shelf = {} "
    "ORDER BY at DESC, event_id DESC LIMIT -1 OFFSET ?) AND sequence <= ?"
)
_EXPIRED = (
    "SELECT sequence FROM events INDEXED BY {} WHERE shelf = {} AND "
    "(actor >= '{guest}' AND actor < '{after}') = ? AND at < ? AND sequence <= ?"
)
_INDEX = {READ: "events_to_read", PASSIVE: "events_passive"}
_AFTER_GUEST = GUEST[:-1] + chr(ord(GUEST[-1]) + 1)
_REMOVED_AT_ONCE = 500  # rows in a transaction of housekeeping, so that writers get their turns
_TRIMMED_AT_ONCE = 50  # actors in one


class SqliteSessionLog:
    """See `session_log.SessionLog`; one connection a thread and process."""

    def __init__(self, path: Path, config: SessionLogConfig | None = None) -> None:
        """Open or make the log at `path`.

        Raises ValueError where less is stored than read, and where the file is of another version of the log.
        """
        self.config = (config or SessionLogConfig()).checked()
        self._path = path
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        self._closed = False
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._transaction("IMMEDIATE") as connection:
            self._make(connection)

    def append(self, events: Sequence[Event], *, received_at: datetime) -> list[Appended]:
        """See `SessionLog.append`. A batch is stored whole or not at all.

        Raises sqlite3.OperationalError when the file stays locked for `busy_seconds`.
        """
        rows = [stored_row(event) for event in events]
        with self._transaction("IMMEDIATE") as connection:
            return self._append(connection, rows, microseconds(received_at))

    def read(
        self, actor_id: str, *, limit: int, before_us: int | None = None, mark: int | None = None
    ) -> tuple[list[dict[str, Any]], int]:
        """See `SessionLog.read`."""
        with self._transaction("DEFERRED") as connection:
            highest = connection.execute(_COUNTER, ("last",)).fetchone()[0]
            seen = highest if mark is None else min(mark, highest)
            query = _NEWEST.format("" if seen == highest else f" AND sequence <= {seen:d}")
            found = connection.execute(query, (actor_id, min(limit, self.config.stored_events))).fetchall()
        if before_us is not None:
            window = self.config.window_us(actor_id)
            since = 0 if window is None else before_us - window
            found = [row for row in found if since <= row[2] < before_us]
        return [orjson.loads(body) | {"sequence": sequence} for body, sequence, _ in reversed(found)], seen

    def delete(self, actor_id: str, *, until_us: int, merged: Sequence[str] = ()) -> int:
        """See `SessionLog.delete`."""
        links = [(actor_id, session) for session in merged]
        with self._transaction("IMMEDIATE") as connection:
            connection.executemany("DELETE FROM merges WHERE member = ? AND session = ?", links)
            gone = connection.execute("DELETE FROM events WHERE actor = ? AND at <= ?", (actor_id, until_us))
            return gone.rowcount

    def delete_until(self, actor_id: str, until_us: int) -> int:
        """See `SessionLog.delete_until`; what waits to be shipped stays, on the shelf of what is only shipped."""
        acts = "WHERE actor = ? AND shelf = 0 AND at <= ?"
        with self._transaction("IMMEDIATE") as connection:
            (through,) = connection.execute(_COUNTER, ("shipped",)).fetchone()
            hidden = connection.execute(
                f"UPDATE events SET shelf = 2 {acts} AND sequence > ?", (actor_id, until_us, through)
            )
            gone = connection.execute(f"DELETE FROM events {acts}", (actor_id, until_us))
            return hidden.rowcount + gone.rowcount

    def merge(self, session_id: str, member_id: str, *, received_at: datetime, after_us: int = -1) -> int:
        """See `SessionLog.merge`."""
        query = "SELECT body FROM events WHERE actor = ? AND shelf = 0 AND at > ? ORDER BY sequence"
        with self._transaction("IMMEDIATE") as connection:
            found = connection.execute(query, (GUEST + session_id, after_us)).fetchall()
            if not found:
                return 0
            rows = [stored_row(orjson.loads(body) | {"member_id": member_id}) for (body,) in found]
            connection.execute("INSERT INTO merges VALUES (?, ?) ON CONFLICT DO NOTHING", (member_id, session_id))
            results = self._append(connection, rows, microseconds(received_at))
        return sum(not result.duplicate for result in results)

    def merged(self, member_id: str) -> list[str]:
        """See `SessionLog.merged`."""
        query = "SELECT session FROM merges WHERE member = ? ORDER BY session"
        with self._transaction("DEFERRED") as connection:
            return [session for (session,) in connection.execute(query, (member_id,))]

    def expire(self, *, now: datetime) -> int:
        """See `SessionLog.expire`."""
        removed = 0
        for days, guests in ((self.config.window_days, 0), (self.config.guest_days, 1)):
            if days is None:
                continue
            cut = microseconds(now) - round(days * MARGIN_US) - MARGIN_US
            for shelf in (READ, PASSIVE):
                removed += self._remove_expired(shelf, guests, cut)
        with self._transaction("IMMEDIATE") as connection:
            connection.execute(
                "DELETE FROM merges WHERE NOT EXISTS (SELECT 1 FROM events WHERE actor = ? || session)", (GUEST,)
            )
        return removed

    def pending(self, limit: int) -> list[LoggedEvent]:
        """See `SessionLog.pending`."""
        query = (
            "SELECT actor, sequence, received_at, body FROM events "
            "WHERE sequence > (SELECT value FROM counters WHERE name = 'shipped') ORDER BY sequence LIMIT ?"
        )
        with self._transaction("DEFERRED") as connection:
            found = connection.execute(query, (limit,)).fetchall()
        return [LoggedEvent(actor, sequence, at, orjson.loads(body)) for actor, sequence, at, body in found]

    def shipped(self, events: Sequence[LoggedEvent]) -> None:
        """See `SessionLog.shipped`; what is shipped and beyond what is stored goes now."""
        if not events:
            return
        with self._transaction("IMMEDIATE") as connection:
            connection.execute(_SET_COUNTER, (max(event.sequence for event in events), "shipped"))
            (through,) = connection.execute(_COUNTER, ("shipped",)).fetchone()
            connection.execute("DELETE FROM events WHERE shelf = 2 AND sequence <= ?", (through,))
        actors = sorted({event.actor_id for event in events})
        for first in range(0, len(actors), _TRIMMED_AT_ONCE):
            with self._transaction("IMMEDIATE") as connection:
                for actor in actors[first : first + _TRIMMED_AT_ONCE]:
                    connection.execute(_TRIM.format(READ), (actor, self.config.stored_events, through))
                    connection.execute(_TRIM.format(PASSIVE), (actor, self.config.stored_impressions, through))

    def close(self) -> None:
        """See `SessionLog.close`; also closes the connections of other threads."""
        with self._lock:
            self._closed = True
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    def _append(self, connection: sqlite3.Connection, rows: list[StoredRow], arrived: int) -> list[Appended]:
        before = connection.execute(_COUNTER, ("last",)).fetchone()[0]
        last, results = max(before, arrived - 1), []
        for row in rows:
            done = connection.execute(
                _INSERT, (last + 1, row.actor, row.event_id, row.at, self._shelf(row, arrived), arrived, row.body)
            )
            if done.rowcount == 1:
                last += 1
                results.append(Appended(last, duplicate=False))
            else:
                first = connection.execute(_FIRST, (row.actor, row.event_id)).fetchone()
                results.append(Appended(first[0], duplicate=True))
        connection.execute(_SET_COUNTER, (last, "last"))
        return results

    def _shelf(self, row: StoredRow, arrived: int) -> int:
        window = self.config.window_us(row.actor)
        if window is not None and row.at < arrived - window - MARGIN_US:
            return SHIP_ONLY
        return PASSIVE if row.passive else READ

    def _remove_expired(self, shelf: int, guests: int, cut: int) -> int:
        """Look for what is expired without holding up writers, then remove it a little at a time."""
        query = _EXPIRED.format(_INDEX[shelf], shelf, guest=GUEST, after=_AFTER_GUEST)
        with self._transaction("DEFERRED") as connection:
            (through,) = connection.execute(_COUNTER, ("shipped",)).fetchone()
            gone = connection.execute(query, (guests, cut, through)).fetchall()
        for first in range(0, len(gone), _REMOVED_AT_ONCE):
            with self._transaction("IMMEDIATE") as connection:
                connection.executemany("DELETE FROM events WHERE sequence = ?", gone[first : first + _REMOVED_AT_ONCE])
        return len(gone)

    def _make(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == VERSION:
            return
        if version or connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchone():
            raise ValueError(
                f"session log {self._path}: is of version {version or 1}, wanted {VERSION}; move the file away (with "
                f"its -wal and -shm), a new one is filled from the prepared events by `foretaste features`"
            )
        for statement in filter(str.strip, _SCHEMA.split(";")):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")

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
