"""The benchmark of the slow views runs small, and its bars that are no times hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretaste.jobs import bench_features
from foretaste.jobs.bench_features import feature_figures
from foretaste.jobs.settings import Settings

REPO = Path(__file__).parents[2] / "features"


def test_quick_figures_are_complete_and_the_join_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_features, "READS", 50)
    monkeypatch.setattr(bench_features, "MEMBERS_QUICK", 200)
    found = feature_figures(Settings(workspace=tmp_path, features_repo=REPO), quick=True)
    assert found["figures"].keys() == {"publish", "join", "read"}
    join = found["figures"]["join"]
    assert (join["cells_different"], join["answers"]) == (0, join["questions"])
    assert 0 < join["with_a_row"] < join["questions"]
    assert found["figures"]["publish"]["incremental"]["rows"] < found["figures"]["publish"]["full"]["rows"]
    exact = [bar for name, bar in found["bars"].items() if "median" not in name]
    assert len(exact) == 2
    assert all(bar["holds"] for bar in exact)
    assert not list(tmp_path.rglob("*.parquet"))
