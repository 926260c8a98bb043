"""A job that prepares and one that trains share a cluster of two processors, and both end."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import ray
import ray.data

from foretaste.jobs.cluster import ClusterConfig, cluster
from foretaste.jobs.imports import import_log
from foretaste.jobs.prepare import prepare
from foretaste.jobs.settings import Settings
from foretaste.models.bodies import HierarchyConfig
from foretaste.models.intent import IntentModelConfig
from foretaste.sessions.prepare import PrepareConfig
from foretaste.training.config import TrackingConfig, TrainingConfig
from foretaste.training.intent import train_intent
from foretaste.training.loop import Epoch
from foretaste.worlds.config import WorldConfig

PROGRAM = Path(__file__).parent / "prepare_beside.py"
MODEL = IntentModelConfig(width=16, feedforward=32, body=HierarchyConfig(item_blocks=1), max_length=32)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "num_workers",
    [pytest.param(1, id="beside it"), pytest.param(2, marks=pytest.mark.long, id="with all processors")],
)
def test_a_job_that_prepares_and_one_that_trains_both_end(local_ray: None, tmp_path: Path, num_workers: int) -> None:
    world = WorldConfig(num_members=200, days=21)
    alone = Settings(workspace=tmp_path / "alone", world=world, prepare=PrepareConfig(num_buckets=8))
    beside = alone.model_copy(update={"workspace": tmp_path / "beside"})
    import_log(alone, "world")
    import_log(beside, "world")
    counts = prepare(alone)["counts"]
    words = [str(beside.workspace), ray.get_runtime_context().gcs_address, "1"]
    seen: list[Epoch] = []
    with subprocess.Popen([sys.executable, str(PROGRAM), *words], stdout=subprocess.PIPE, text=True) as preparing:
        train_intent(
            alone.tables.prepared, tmp_path / "registry", model=MODEL, storage=tmp_path / "runs",
            training=TrainingConfig(epochs=5, patience=5, num_workers=num_workers),
            tracking=TrackingConfig(enabled=False), now=datetime(2026, 2, 1, tzinfo=UTC), on_progress=seen.append,
        )  # fmt: skip
        told, _ = preparing.communicate(timeout=300)
    assert preparing.returncode == 0
    assert json.loads(told) == counts
    assert [epoch.number for epoch in seen] == [1, 2, 3, 4, 5]


@pytest.mark.cluster
def test_what_ray_data_takes_is_bounded_for_as_long_as_the_job_lasts(local_ray: None) -> None:
    options = ray.data.DataContext.get_current().execution_options
    before = options.resource_limits
    with cluster(ClusterConfig(data_cpus=1.5, data_store_mib=64)):
        assert (options.resource_limits.cpu, options.resource_limits.object_store_memory) == (1.5, 64 * 2**20)
    assert options.resource_limits == before
    with cluster(ClusterConfig()):
        assert options.resource_limits == before
