"""Faults that are made to come, and mended: processes killed, files locked, disks filled."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from foretaste.feedback.session_log import SESSIONS_FILE
from foretaste.jobs.faulty import Fault, Faults
from foretaste.jobs.serve import APPLICATION
from foretaste.ops.telemetry import say

DISK_MIB = 512
REPLICA = f"ServeReplica:{APPLICATION}:{APPLICATION}"
"""In the title of the process of a replica of the chain."""


def _nothing() -> None:
    """Nobody mends it but the service itself."""


@dataclass(slots=True)
class Injected:
    """One fault; it is mended once, however often that is asked for."""

    name: str
    start: Callable[[], object]
    stop: Callable[[], object] = _nothing
    seconds: float | None = None  # that it lasts, where that is its own
    how: str = ""
    _on: bool = field(default=False, init=False)

    def begin(self) -> None:
        """Let it come."""
        self._on = True
        self.start()

    def mend(self) -> None:
        """End it, where it is there."""
        if self._on:
            self._on = False
            self.stop()


def locked(serving: Path, name: str) -> Injected:
    """Another program holds the session log in SQLite for writing: reads go on, appends wait."""
    held: list[sqlite3.Connection] = []

    def lock() -> None:
        connection = sqlite3.connect(serving / SESSIONS_FILE, timeout=30, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN EXCLUSIVE")
        held.append(connection)

    def release() -> None:
        while held:
            connection = held.pop()
            connection.execute("ROLLBACK")
            connection.close()

    return Injected(name, lock, release)


def kill_a_replica() -> int:
    """Kill one replica that this process' Ray runs, by its id. Raises ProcessLookupError where there is none."""
    found = replicas()
    if not found:
        raise ProcessLookupError("there is no replica to kill")
    os.kill(found[0], signal.SIGKILL)
    say(f"killed replica {found[0]} of {len(found)}")
    return found[0]


def replicas() -> list[int]:
    """Process ids of the replicas that were started by this process."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if REPLICA in " ".join(child.cmdline()):
                found.append(child.pid)
    return sorted(found)


@contextlib.contextmanager
def decision_disk(folder: Path, switches: Faults) -> Iterator[Injected]:
    """Put the decision log on a disk of its own that can be filled; without leave to mount, have its writes fail.

    What it holds is gone when the block ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={DISK_MIB}m"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True)
    name = "disk of the decision log is full"
    if mounted.returncode != 0:
        begin, end = switches.switch(Fault.DISK_FULL)
        yield Injected(name, begin, end, how="writes are made to fail as on a full disk; mounting is not allowed here")
        return
    filler = folder / "filler.tmp"

    def fill() -> None:
        """Leave next to nothing; what is written meanwhile takes of the room that was free a moment ago."""
        with filler.open("wb") as file:
            for left_free in range(1, DISK_MIB):
                about = os.statvfs(folder)
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, about.f_bavail * about.f_frsize - left_free * 2**20)
                    return

    try:
        yield Injected(name, fill, lambda: filler.unlink(missing_ok=True), how=f"tmpfs of {DISK_MIB} MiB, filled")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
