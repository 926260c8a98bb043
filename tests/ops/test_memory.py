"""The peak counts what the program and its children really hold."""

from __future__ import annotations

import platform
import subprocess
import sys

import psutil
import pytest

from foretaste.ops.memory import give_back, peak_memory


def test_a_child_that_holds_200_mib_is_counted() -> None:
    with peak_memory(every_seconds=0.02) as before:
        pass
    code = "import time; x = b'x' * (200 * 2**20); print('up', flush=True); time.sleep(1)"
    with peak_memory(every_seconds=0.05) as peak:
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        child.wait()
    assert peak.bytes - before.bytes > 190 * 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_is_free_in_pieces_goes_back_to_the_system() -> None:
    pieces = [bytes(2_000) for _ in range(100_000)]
    last = bytes(2_000)  # above them, so that the heap cannot shrink by itself
    del pieces
    before = psutil.Process().memory_info().rss
    give_back()
    assert before - psutil.Process().memory_info().rss > 150 * 2**20
    assert len(last) == 2_000
