"""The same training on Ray Train workers, and with one of them killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from foretaste.models.bodies import HierarchyConfig
from foretaste.models.intent import IntentModelConfig
from foretaste.testing.builders import prepared_folder, random_interactions, titles_table
from foretaste.training.config import TrackingConfig, TrainingConfig
from foretaste.training.intent import TrainResult, train_intent
from foretaste.training.loop import Epoch

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray Data trips over its own on copying a context
]

NOW = datetime(2026, 2, 1, tzinfo=UTC)
MODEL = IntentModelConfig(width=32, feedforward=64, body=HierarchyConfig(item_blocks=1), max_length=32)
TRAINING = TrainingConfig(epochs=3, batch_size=512, split="last", patience=99, cpus_per_worker=0.5)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    titles = titles_table(30)
    table = random_interactions(titles, actors=120, per_actor=25)
    return prepared_folder(tmp_path_factory.mktemp("prepared"), table, titles, num_buckets=3)


def run(prepared: Path, root: Path, training: TrainingConfig, on_progress: list[Epoch] | None = None) -> TrainResult:
    seen = [] if on_progress is None else on_progress
    return train_intent(
        prepared, root / "registry", model=MODEL, training=training, storage=root / "runs",
        tracking=TrackingConfig(enabled=False), now=NOW, on_progress=seen.append,
    )  # fmt: skip


def losses(result: TrainResult) -> list[float]:
    return [epoch["loss"] for epoch in result.epochs]


def test_one_ray_worker_trains_as_this_process_does(local_ray: None, prepared: Path, tmp_path: Path) -> None:
    alone = TRAINING.model_copy(update={"num_workers": 1})
    on_ray = run(prepared, tmp_path / "ray", alone)
    plain = run(prepared, tmp_path / "plain", alone.model_copy(update={"executor": "plain"}))
    assert losses(on_ray) == pytest.approx(losses(plain), rel=1e-5)
    assert on_ray.metrics == pytest.approx(plain.metrics, rel=1e-5)


def test_two_workers_share_the_histories_and_learn(local_ray: None, prepared: Path, tmp_path: Path) -> None:
    seen: list[Epoch] = []
    two = run(prepared, tmp_path / "two", TRAINING, seen)
    one = run(prepared, tmp_path / "one", TRAINING.model_copy(update={"executor": "plain"}))
    assert [epoch.number for epoch in seen] == [1, 2, 3]
    assert {epoch["predictions"] for epoch in two.epochs} == {epoch["predictions"] for epoch in one.epochs}
    assert losses(two)[-1] < losses(two)[0]
    assert losses(two)[-1] == pytest.approx(losses(one)[-1], rel=0.05)


def worker_pids() -> list[int]:
    """Processes of Ray Train workers that this test's Ray started."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(child.cmdline()):
                found.append(child.pid)
        except psutil.Error:
            continue
    return found


def test_a_killed_worker_is_replaced_and_the_run_ends_as_if_undisturbed(
    local_ray: None, prepared: Path, tmp_path: Path
) -> None:
    training = TRAINING.model_copy(update={"epochs": 12})
    calm = run(prepared, tmp_path / "calm", training)
    killed: list[int] = []
    seen: list[Epoch] = []

    def kill_once_under_way() -> None:
        while not any(epoch.number >= 3 for epoch in seen):
            time.sleep(0.02)
        killed.append(worker_pids()[-1])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_once_under_way, daemon=True)
    killer.start()
    stormy = run(prepared, tmp_path / "stormy", training, seen)
    killer.join(timeout=5)
    assert killed
    assert not psutil.pid_exists(killed[0])
    again = [epoch.number for epoch in seen]
    assert again.index(12) == len(again) - 1
    assert len(stormy.epochs) == 12
    assert losses(stormy)[-1] == pytest.approx(losses(calm)[-1], rel=0.01)
    assert losses(stormy) == pytest.approx(losses(calm), rel=1e-4)  # not only within 1%: the same dice


def test_a_run_of_two_workers_goes_on_with_one_from_their_shards(
    local_ray: None, prepared: Path, tmp_path: Path
) -> None:
    two = run(prepared, tmp_path, TRAINING.model_copy(update={"epochs": 2}))
    (last,) = {path.parent for path in (tmp_path / "runs").rglob("epoch-00002-*.safetensors")}
    sizes = [path.stat().st_size for path in sorted(last.glob("*.safetensors"))]
    assert len(sizes) == 2
    assert max(sizes) < 1.1 * min(sizes)  # divided evenly
    (tmp_path / "registry").rename(tmp_path / "before")
    seen: list[Epoch] = []
    one = run(prepared, tmp_path, TRAINING.model_copy(update={"epochs": 4, "num_workers": 1}), seen)
    assert [epoch.number for epoch in seen] == [3, 4]
    assert losses(one)[:2] == losses(two)
    assert losses(one)[3] < losses(one)[2] < losses(one)[1]
