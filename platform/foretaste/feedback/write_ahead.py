"""One write-ahead file: lines that survive the death of the process, with a lock that does not."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
from pathlib import Path
from typing import Self

LINES = ".jsonl"


class WriteAhead:
    """A file of lines that this process holds; the system releases it when the process ends, however it ends."""

    def __init__(self, path: Path, file: io.FileIO) -> None:
        self.path = path
        self.num_lines = self.num_bytes = 0
        self.broken = False  # whether half a line is left in it: the next one would be spoilt
        self._file = file

    @classmethod
    def create(cls, path: Path) -> Self | None:
        """Make the file and hold it; None where another log took it for a dead one's before it was held."""
        held = cls(path, io.FileIO(path, "xb"))
        return held if held._hold() else None

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Hold a file that no living process holds; None where one does, or where it is gone."""
        with contextlib.suppress(FileNotFoundError):
            held = cls(path, io.FileIO(path, "rb"))
            return held if held._hold() else None
        return None

    def write(self, line: bytes) -> None:
        """Hand one line to the operating system whole. Raises OSError with nothing of it left, or `broken`."""
        before = self._file.tell()
        try:
            written = self._file.write(line + b"\n")
            if written != len(line) + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError:
            self.broken = True
            self._file.truncate(before)
            self._file.seek(before)
            self.broken = False
            raise
        self.num_lines += 1
        self.num_bytes += written

    def release(self) -> None:
        """Let go of the file and leave it."""
        self._file.close()

    def remove(self) -> None:
        """Delete the file, then let go of it: in this order nobody takes it in between."""
        self.path.unlink()
        self._file.close()

    def _hold(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            return False
        if os.fstat(self._file.fileno()).st_nlink == 0:  # rolled and removed between open and lock
            self._file.close()
            return False
        return True


def whole_lines(path: Path) -> tuple[list[bytes], int]:
    """Read the lines of a file that may be being written; returns them and 1 where the last one is torn, else 0."""
    *lines, rest = path.read_bytes().split(b"\n")
    return lines, 1 if rest else 0
