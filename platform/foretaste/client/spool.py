"""What still has to be told, on the local disk: bounded, so that a long outage costs the oldest and not the device."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any, NamedTuple

_MAKE = "CREATE TABLE IF NOT EXISTS waiting (number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, body TEXT)"


class Waiting(NamedTuple):
    """One thing to tell."""

    number: int
    kind: str
    body: dict[str, Any]


class Spool:
    """A queue of JSON objects, in a SQLite file or in memory; threads may share it."""

    def __init__(self, path: Path | None, *, most: int) -> None:
        """At most `most` objects wait; what is too many goes, the oldest first, and is counted."""
        self.num_dropped = 0
        self._most = most
        self._lock = threading.Lock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._open = sqlite3.connect(":memory:" if path is None else path, check_same_thread=False)
        with self._lock, self._open:
            self._open.execute(_MAKE)

    def __len__(self) -> int:
        with self._lock:
            return int(self._open.execute("SELECT count(*) FROM waiting").fetchone()[0])

    def add(self, kind: str, body: dict[str, Any]) -> int:
        """Put something at the end; returns its number. Raises ValueError for what is no JSON."""
        text = json.dumps(body, allow_nan=False, ensure_ascii=False)
        text.encode()  # half of a surrogate pair is no text
        with self._lock, self._open:
            number = self._open.execute("INSERT INTO waiting (kind, body) VALUES (?, ?)", (kind, text)).lastrowid
            oldest = "SELECT number FROM waiting ORDER BY number DESC LIMIT -1 OFFSET ?"
            self.num_dropped += self._open.execute(
                f"DELETE FROM waiting WHERE number IN ({oldest})", (self._most,)
            ).rowcount
        assert number is not None
        return number

    def first(self, limit: int) -> list[Waiting]:
        """The oldest ones of one kind, at most `limit`: those before the first of another kind."""
        query = "SELECT number, kind, body FROM waiting ORDER BY number LIMIT ?"
        with self._lock:
            rows = self._open.execute(query, (limit,)).fetchall()
        found = [Waiting(number, kind, json.loads(body)) for number, kind, body in rows]
        other = next((place for place, one in enumerate(found) if one.kind != found[0].kind), len(found))
        return found[:other]

    def remove(self, waiting: list[Waiting]) -> None:
        """Forget what was told."""
        with self._lock, self._open:
            self._open.executemany("DELETE FROM waiting WHERE number = ?", [(one.number,) for one in waiting])

    def close(self) -> None:
        """Close the file; what waits in it is told by the next one."""
        with self._lock:
            self._open.close()
