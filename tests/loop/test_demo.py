"""The demonstration, run as a newcomer runs it: as a program of its own that leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
SMALL = ("world.num_members=900", "training.epochs=4", "ranker_training.epochs=6", "serving.port=0")

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def _start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "foretaste", "demo", "--config", str(ROOT / "deployments/local/foretaste.yaml")]
    for setting in (*SMALL, f"workspace={json.dumps(str(folder))}"):
        command += ["--set", setting]
    with (folder / "err.txt").open("w") as told:
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=told, text=True, env=_environment())


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}


def _gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=20)
    return not [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_the_demo_ends_well_and_shows_that_the_list_followed_the_member(tmp_path: Path) -> None:
    demo = _start(tmp_path)
    out, _ = demo.communicate(timeout=500)
    told = (tmp_path / "err.txt").read_text()
    assert demo.returncode == 0, told
    result = json.loads(out.strip().splitlines()[-1])
    assert result["demo"] == "ok"
    assert result["slate_overlap_after_click"] <= 0.7
    assert result["genre_share"]["after"] > result["genre_share"]["before"]
    assert result["peak_memory_gib"] <= 6
    assert set(result["hr@10"]) == {
        "ranker",
        "intent",
        "popularity",
        "recent_popularity",
        "markov",
        "session_knn",
        "vstan",
    }
    assert "predicted intent" in told
    assert "curl -s http://127.0.0.1:" in told
    assert (tmp_path / "evaluation" / "report.html").is_file()
    assert list((tmp_path / "serving" / "decisions").iterdir())


def test_an_interrupted_demo_stops_everything_that_it_started(tmp_path: Path) -> None:
    demo = _start(tmp_path)
    deadline = time.monotonic() + 200
    while "[3/7]" not in (tmp_path / "err.txt").read_text():
        assert time.monotonic() < deadline, (tmp_path / "err.txt").read_text()
        assert demo.poll() is None, (tmp_path / "err.txt").read_text()
        time.sleep(0.2)
    started = psutil.Process(demo.pid).children(recursive=True)
    assert any("raylet" in " ".join(one.cmdline()[:1]) for one in started)
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert _gone(started)
