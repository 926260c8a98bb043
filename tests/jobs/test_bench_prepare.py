"""The benchmark of preparation at a size for tests: both programs write the same tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretaste.jobs import bench_prepare
from foretaste.jobs.settings import Settings


@pytest.mark.cluster
def test_both_programs_write_the_same_tables_and_every_bar_has_its_figure(
    tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_prepare, "QUICK_EVENTS", 30_000)
    found = bench_prepare.prepare_bench(Settings(workspace=tmp_path), quick=True)
    assert found["bench"] == "prepare"
    assert found["figures"]["equal"] == dict.fromkeys(("interactions", "acts", "impressions", "sessions"), True)
    assert found["figures"]["incremental"]["mode"] == "incremental"
    assert all(bar["holds"] for bar in found["bars"].values())
    assert set(found["skipped"]) == {"bars"}
    assert not (tmp_path / "bench" / "prepare").exists()


def test_a_changed_cell_changes_the_checksum() -> None:
    import polars as pl

    rows = pl.DataFrame({"a": ["x", "y"], "b": [1.0, 2.0]})
    swapped = pl.DataFrame({"a": ["x", "y"], "b": [2.0, 1.0]})
    assert bench_prepare._checksum(rows) == bench_prepare._checksum(rows.reverse())
    assert bench_prepare._checksum(rows) != bench_prepare._checksum(swapped)
