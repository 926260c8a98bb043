"""The rows of an online store as Feast keeps them, read in one call and removed where Feast has no way to.

Feast writes; here is what it lacks: an order of writes in SQLite, deletion, and a read without its detours.

    SQLite  a table a view: entity_key, feature_name, value (protobuf), event_ts
    Redis   a hash an entity, at <entity key><project>: mmh3(view:feature) -> value, _ts:view -> time
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

_AT_ONCE = 500


class OnlineRows(Protocol):
    """An online store, by table (a view of one project) and serialised entity key."""

    def prepare(self, table: str) -> None:
        """Make a table ready for reads beside writes and for writes out of order."""
        ...

    def read(self, table: str, fields: Mapping[str, str], keys: Sequence[bytes]) -> list[dict[str, Any] | None]:
        """Read rows; `fields` says by column where its protobuf keeps the value."""
        ...

    def remove(self, table: str, keys: Sequence[bytes]) -> None:
        """Remove rows."""
        ...

    def remove_others(self, table: str, join_key: str, keys: Sequence[bytes]) -> None:
        """Remove every row of the table but these."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class SqliteRows:
    """Feast's tables in SQLite; a connection a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []

    def prepare(self, table: str) -> None:
        """Let reads go on while rows are written; let no older row take the place of a newer one."""
        with contextlib.closing(sqlite3.connect(self._path, timeout=60)) as connection, connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(
                f'CREATE TRIGGER IF NOT EXISTS "{table}_order" BEFORE UPDATE ON "{table}" '
                "WHEN NEW.event_ts < OLD.event_ts BEGIN SELECT RAISE(IGNORE); END"
            )

    def read(self, table: str, fields: Mapping[str, str], keys: Sequence[bytes]) -> list[dict[str, Any] | None]:
        """Read rows, `_AT_ONCE` a statement."""
        rows: dict[bytes, dict[str, Any]] = {}
        connection = self._connection()
        for first in range(0, len(keys), _AT_ONCE):
            part = keys[first : first + _AT_ONCE]
            places = ",".join("?" * len(part))
            sql = f'SELECT entity_key, feature_name, value FROM "{table}" WHERE entity_key IN ({places})'
            for key, name, value in connection.execute(sql, part):
                rows.setdefault(key, {})[name] = value
        return [_values(rows.get(key), fields) for key in keys]

    def remove(self, table: str, keys: Sequence[bytes]) -> None:
        """Remove rows."""
        with contextlib.closing(sqlite3.connect(self._path, timeout=60)) as connection, connection:
            connection.executemany(f'DELETE FROM "{table}" WHERE entity_key = ?', [(key,) for key in keys])

    def remove_others(self, table: str, join_key: str, keys: Sequence[bytes]) -> None:
        """Remove every row but these, in one transaction."""
        with contextlib.closing(sqlite3.connect(self._path, timeout=60)) as connection, connection:
            connection.execute("CREATE TEMP TABLE kept (entity_key BLOB PRIMARY KEY) WITHOUT ROWID")
            connection.executemany("INSERT OR IGNORE INTO kept VALUES (?)", [(key,) for key in keys])
            connection.execute(f'DELETE FROM "{table}" WHERE entity_key NOT IN (SELECT entity_key FROM kept)')

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._open:
            connection.close()
        self._open.clear()
        self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = sqlite3.connect(
                f"file:{quote(str(self._path))}?mode=ro", uri=True, timeout=60, check_same_thread=False
            )
            self._local.connection = found
            self._open.append(found)
        return found


class RedisRows:
    """Feast's hashes in Redis, through the client that Feast opened."""

    def __init__(self, client: Any, project: str) -> None:
        self._client, self._project = client, project.encode()

    def prepare(self, table: str) -> None:
        """Nothing to do: Feast compares times before it writes, and a hash is written at once."""

    def read(self, table: str, fields: Mapping[str, str], keys: Sequence[bytes]) -> list[dict[str, Any] | None]:
        """Read rows in one round trip."""
        names = list(fields)
        hashed = [*(_field_key(table, name) for name in names), f"_ts:{table}".encode()]
        with self._client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hmget(key + self._project, hashed)
            found = pipe.execute()
        return [_values(dict(zip(names, row[:-1], strict=True)) if row[-1] else None, fields) for row in found]

    def remove(self, table: str, keys: Sequence[bytes]) -> None:
        """Remove entities; one has the rows of one view only."""
        for first in range(0, len(keys), _AT_ONCE):
            self._client.delete(*(key + self._project for key in keys[first : first + _AT_ONCE]))

    def remove_others(self, table: str, join_key: str, keys: Sequence[bytes]) -> None:
        """Remove every entity but these; goes through all keys of the project."""
        from feast.infra.online_stores.helpers import _redis_key_prefix

        kept = {key + self._project for key in keys}
        prefix = _redis_key_prefix([join_key])
        every = self._client.scan_iter(_escaped(prefix) + b"*" + self._project, count=10_000)
        others = [key for key in every if key not in kept]
        for first in range(0, len(others), _AT_ONCE):
            self._client.delete(*others[first : first + _AT_ONCE])

    def close(self) -> None:
        """Close the client."""
        self._client.close()


def _values(row: Mapping[str, bytes | None] | None, fields: Mapping[str, str]) -> dict[str, Any] | None:
    """Read a row; one that lacks a column is as good as absent, since it was never written whole."""
    if row is None or any(row.get(name) is None for name in fields):
        return None
    parsed = _value_class()
    found = {}
    for name, kept in fields.items():
        value = getattr(parsed.FromString(row[name]), kept)
        found[name] = value.val if kept == "float_list_val" else value
    return found


def _value_class() -> Any:
    from feast.protos.feast.types.Value_pb2 import Value

    return Value


def _field_key(table: str, name: str) -> bytes:
    from feast.infra.online_stores.helpers import _mmh3

    key: bytes = _mmh3(f"{table}:{name}")
    return key


def _escaped(prefix: bytes) -> bytes:
    r"""Write a prefix so that `*`, `?`, `[` and `\` in it mean themselves."""
    return b"".join(b"\\" + bytes([one]) if one in b"*?[]\\" else bytes([one]) for one in prefix)
