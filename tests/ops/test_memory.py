"""The peak counts what the program and its children really hold."""

from __future__ import annotations

import subprocess
import sys

from foretaste.ops.memory import peak_memory


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
