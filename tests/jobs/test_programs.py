"""Programs that run beside ours tell of their progress, and nothing of them is left behind."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from foretaste.jobs.programs import run_program


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def left_behind(marker: str) -> list[int]:
    """Ids of processes, those that they started too, whose command names the marker."""
    return [
        one.pid
        for one in psutil.process_iter(["cmdline", "status"])
        if marker in " ".join(one.info["cmdline"] or []) and one.info["status"] != psutil.STATUS_ZOMBIE
    ]


def sleeping_child(marker: str) -> str:
    """Code of a program that starts another one, whose command names the marker."""
    child = f"import time; time.sleep(60) # {marker}"
    return f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}])"


def test_its_lines_of_json_come_one_by_one_and_other_lines_are_skipped() -> None:
    seen: list[dict[str, Any]] = []
    run_program(python('print("hello"); print(\'{"number": 1}\'); print(\'{"number": 2}\')'), 60, 1, seen.append)
    assert seen == [{"number": 1}, {"number": 2}]


def test_it_gets_no_more_threads_than_it_is_given() -> None:
    seen: list[dict[str, Any]] = []
    run_program(python("import json, os; print(json.dumps(dict(os.environ)))"), 60, 3, seen.append)
    assert seen[0]["OMP_NUM_THREADS"] == seen[0]["MKL_NUM_THREADS"] == "3"


def test_one_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"ended with 3: .*no such model"):
        run_program(python("import sys; print('no such model', file=sys.stderr); sys.exit(3)"), 60, 1, print)


def test_one_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    marker = tmp_path.name
    with pytest.raises(RuntimeError, match="was ended after 1 s"):
        run_program(python(f"{sleeping_child(marker)}; time.sleep(60)"), 1, 1, print)
    assert gone(marker)


def test_an_interrupt_leaves_nothing_running(tmp_path: Path) -> None:
    marker = tmp_path.name

    def interrupt(line: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_program(python(f"{sleeping_child(marker)}; print('{{}}', flush=True); time.sleep(60)"), 60, 1, interrupt)
    assert gone(marker)


def gone(marker: str) -> bool:
    """Whether nothing of it is left, once the system has had time to reap it."""
    deadline = time.monotonic() + 10
    while left_behind(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not left_behind(marker)
