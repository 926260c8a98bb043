"""Programs that run beside ours, tell of their progress in lines of JSON and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any


def run_program(
    command: list[str], timeout_seconds: float, threads: int, on_line: Callable[[dict[str, Any]], None]
) -> None:
    """Run a program that prints lines of JSON, and leave nothing of it behind, however this ends.

    Raises RuntimeError with the end of its standard error where it does not return 0 in time.
    """
    limits = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
    with tempfile.TemporaryFile("w+") as errors, _group(command, os.environ | limits, errors) as process:
        late = threading.Event()

        def end() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(timeout_seconds, end)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    on_line(json.loads(line))
            code = process.wait()
        finally:
            timer.cancel()
        if late.is_set():
            raise RuntimeError(f"{' '.join(command[:2])} was ended after {timeout_seconds:.0f} s")
        if code != 0:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command[:2])} ended with {code}: {errors.read()[-2000:].strip()}")


@contextlib.contextmanager
def _group(command: list[str], environment: dict[str, str], errors: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        _kill(process)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _kill(process: subprocess.Popen[str]) -> None:
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
