"""Who was deleted, and up to when: a file of JSON lines that deletion writes first and every table heeds later."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from foretaste.feedback.write_ahead import whole_lines

TOMBSTONES_FILE = "tombstones.jsonl"


class Tombstones:
    """The tombstones at a path; any number of processes share the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[tuple[int, int], dict[str, int]] = ((0, 0), {})

    def add(self, member_id: str, at: int) -> None:
        """Note that everything of a member (or of the guest `guest:SESSION`) up to `at` is to go; on disk on return.

        `at` is in microseconds since 1970.
        """
        add_line(self._path, {"member_id": member_id, "at": at})

    def read(self) -> dict[str, int]:
        """Time of the newest tombstone of each, in microseconds; empty where nobody was deleted.

        Raises ValueError naming the line of a file that is damaged.
        """
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return {}
        version = (status.st_size, status.st_mtime_ns)
        with self._lock:
            if self._seen[0] != version:
                self._seen = (version, self._parsed())
            return self._seen[1]

    def _parsed(self) -> dict[str, int]:
        found: dict[str, int] = {}
        lines, _ = whole_lines(self._path)
        for number, line in enumerate(lines, start=1):
            try:
                row = orjson.loads(line)
                member_id, at = str(row["member_id"]), int(row["at"])
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{self._path}, line {number}: wanted member_id and at, found {line!r:.100}"
                ) from error
            found[member_id] = max(at, found.get(member_id, 0))
        return found


def add_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add a JSON line to a file that any number of processes add to; on disk on return."""
    line = orjson.dumps(row) + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        end = os.lseek(descriptor, 0, os.SEEK_END)
        before = os.pread(descriptor, end, 0)
        whole = before.rfind(b"\n") + 1
        os.ftruncate(descriptor, whole)  # half a line of a process that died while it wrote
        os.pwrite(descriptor, line, whole)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
