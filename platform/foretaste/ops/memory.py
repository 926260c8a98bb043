"""How much memory a program and everything it started use together."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pyarrow as pa


def give_back() -> None:
    """Give memory that is free in this process back to the system: after large things that come and go.

    Allocators keep it, in pieces, so that a process grows for hours; where the C library is not glibc they go on so.
    """
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def tree_bytes(process: psutil.Process) -> int:
    """Proportional set size of a process and its descendants: shared pages are counted once, in bytes."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += one.memory_full_info().pss
    return total


@dataclass(slots=True)
class Peak:
    """The largest sum seen."""

    bytes: int = 0

    @property
    def gib(self) -> float:
        """In GiB."""
        return self.bytes / 2**30


@contextlib.contextmanager
def peak_memory(*, every_seconds: float = 1.0) -> Iterator[Peak]:
    """Watch this process and its descendants while the block runs."""
    peak, done, me = Peak(), threading.Event(), psutil.Process()

    def watch() -> None:
        while not done.is_set():
            peak.bytes = max(peak.bytes, tree_bytes(me))
            done.wait(every_seconds)

    thread = threading.Thread(target=watch, name="peak-memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
