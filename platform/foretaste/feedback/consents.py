"""Who refuses that anything of them is stored: a file of JSON lines, the newest of a member counts."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import orjson

from foretaste.feedback.tombstones import add_line
from foretaste.feedback.write_ahead import whole_lines

CONSENTS_FILE = "consents.jsonl"


class Consents:
    """The consents at a path; any number of processes share the file. Who is not in it, consents."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[tuple[int, int], frozenset[str]] = ((0, 0), frozenset())

    def note(self, member_id: str, consent: bool, *, at: int) -> None:
        """Note what a member said at `at` (microseconds since 1970); on disk on return."""
        add_line(self._path, {"member_id": member_id, "consent": consent, "at": at})

    def refused(self) -> frozenset[str]:
        """Members who refuse. Raises ValueError naming the line of a file that is damaged."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return frozenset()
        version = (status.st_size, status.st_mtime_ns)
        with self._lock:
            if self._seen[0] != version:
                self._seen = (version, self._parsed())
            return self._seen[1]

    def _parsed(self) -> frozenset[str]:
        said: dict[str, bool] = {}
        for number, line in enumerate(whole_lines(self._path)[0], start=1):
            try:
                row = orjson.loads(line)
                said[str(row["member_id"])] = bool(row["consent"])
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{self._path}, line {number}: wanted member_id and consent, found {line!r:.100}"
                ) from error
        return frozenset(member_id for member_id, consent in said.items() if not consent)
