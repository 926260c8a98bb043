"""A small service on a head and workers of one machine, hurt and changed under load."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foretaste.jobs.bench_cluster import on_one_cluster
from foretaste.jobs.bench_cluster_config import ClusterBenchConfig, sized
from foretaste.jobs.machines import impossible

PARTS_OF_SUITE = ("token", "head", "worker", "redis")
"""The others make replicas anew, which takes minutes: `foretaste bench cluster --part upgrade`, `--part scale`."""
DEPLOYMENT = Path(__file__).parents[2] / "deployments" / "prod"


@pytest.mark.long
@pytest.mark.cluster
def test_a_cluster_keeps_its_bars_whatever_comes_over_it(make: Callable[..., Any], tmp_path: Path) -> None:
    why = impossible() or (None if shutil.which("redis-server") else "redis-server is not installed")
    if why is not None:
        pytest.skip(why)
    log = {"durable": False, "window_days": None, "guest_days": None}
    made = make(tmp_path, audit_share=0.0, api_keys=True, session_log=log)
    config = sized(ClusterBenchConfig(deployment=DEPLOYMENT), quick=True)
    found = on_one_cluster(made.settings, config, PARTS_OF_SUITE)
    assert tuple(found) == PARTS_OF_SUITE
    bars = {what: one for part in found.values() for what, one in part.bars.items()}
    assert {what: one for what, one in bars.items() if not one["holds"]} == {}, {
        name: part.figures for name, part in found.items()
    }
    for name in PARTS_OF_SUITE[1:]:
        assert found[name].figures["stored_events"] > 10, name
        assert found[name].figures["stored_decisions"] > 10, name
