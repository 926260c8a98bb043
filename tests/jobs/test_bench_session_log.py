"""The benchmark of the session log measures what it says, on a few operations."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from foretaste.jobs import bench_session_log
from foretaste.jobs.bench_session_log import session_log_figures


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_session_log, "MEMBERS", 3)
    monkeypatch.setattr(bench_session_log, "STORED", 5)
    monkeypatch.setattr(bench_session_log, "QUICK_TIMES", 20)


@pytest.mark.usefixtures("few")
def test_every_log_is_measured_beside_its_raw_client(tmp_path: Path) -> None:
    found = session_log_figures(quick=True, folder=tmp_path)
    names = {"sqlite", "sqlite_durable"}
    if shutil.which("redis-server") is not None:
        names |= {"redis", "redis_durable"}
    figures = found["figures"]["session_log"]
    assert figures.pop("operations") == 20
    assert figures.keys() == names
    for one in figures.values():
        assert all(value > 0 for value in one.values()), one
        assert one["append_ratio"] == pytest.approx(one["append_ms"] / one["raw_append_ms"], abs=0.05, rel=0.05)
    assert len(found["bars"]) == len(names & {"sqlite", "redis"})
    assert all(isinstance(bar["holds"], bool) for bar in found["bars"].values())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("few")
def test_without_redis_it_says_what_was_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = session_log_figures(quick=True, folder=tmp_path)
    assert found["skipped"] == {"redis": "redis-server is not installed"}
    assert list(found["bars"]) == ["append of an event in sqlite, ms"]
