"""The same training on Ray Train workers, and with one of them killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
import ray
import torch
from ray.train import TrainingFailedError
from safetensors.torch import load_file

from foretaste.models.bodies import HierarchyConfig
from foretaste.models.intent import IntentModelConfig
from foretaste.testing.builders import prepared_folder, random_interactions, titles_table
from foretaste.testing.object_store import s3_server
from foretaste.training.config import TrackingConfig, TrainingConfig
from foretaste.training.intent import TrainResult, train_intent
from foretaste.training.loop import Epoch

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray Data trips over its own on copying a context
]

DRIVER = Path(__file__).parent / "driver_to_kill.py"
NOW = datetime(2026, 2, 1, tzinfo=UTC)
MODEL = IntentModelConfig(width=32, feedforward=64, body=HierarchyConfig(item_blocks=1), max_length=32)
TRAINING = TrainingConfig(epochs=3, batch_size=512, split="last", patience=99, cpus_per_worker=0.5)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    titles = titles_table(30)
    table = random_interactions(titles, actors=120, per_actor=25)
    return prepared_folder(tmp_path_factory.mktemp("prepared"), table, titles, num_buckets=3)


def run(
    prepared: Path,
    root: Path,
    training: TrainingConfig,
    on_progress: list[Epoch] | None = None,
    runs: str | None = None,
) -> TrainResult:
    seen = [] if on_progress is None else on_progress
    return train_intent(
        prepared, root / "registry", model=MODEL, training=training, storage=root / "runs", runs=runs,
        tracking=TrackingConfig(enabled=False), now=NOW, on_progress=seen.append,
    )  # fmt: skip


def same_weights(one: TrainResult, other: TrainResult) -> bool:
    first, second = (load_file(result.bundle.path / "weights.safetensors") for result in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


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


def killing(seen: list[Epoch], *, after: int) -> threading.Thread:
    """Kill a worker once an epoch is over, in the midst of the next."""

    def kill_once_under_way() -> None:
        while not any(epoch.number >= after for epoch in seen):
            time.sleep(0.02)
        os.kill(worker_pids()[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill_once_under_way, daemon=True)
    killer.start()
    return killer


def test_a_killed_worker_is_replaced_and_the_run_ends_as_if_undisturbed(
    local_ray: None, prepared: Path, tmp_path: Path
) -> None:
    training = TRAINING.model_copy(update={"epochs": 12})
    calm = run(prepared, tmp_path / "calm", training)
    seen: list[Epoch] = []
    killer = killing(seen, after=3)
    stormy = run(prepared, tmp_path / "stormy", training, seen)
    killer.join(timeout=5)
    assert not killer.is_alive()
    again = [epoch.number for epoch in seen]
    assert again.index(12) == len(again) - 1
    assert len(stormy.epochs) == 12
    assert losses(stormy) == losses(calm)  # the same dice
    assert same_weights(stormy, calm)
    assert list((tmp_path / "stormy" / "runs").iterdir()) == [], "filed: nothing to go on from"


def test_a_run_of_two_workers_that_was_given_up_goes_on_with_one_from_their_shards(
    local_ray: None, prepared: Path, tmp_path: Path
) -> None:
    training = TRAINING.model_copy(update={"epochs": 12, "max_failures": 0})
    seen: list[Epoch] = []
    killing(seen, after=4)
    with pytest.raises(TrainingFailedError):
        run(prepared, tmp_path, training, seen)
    (*_, last) = sorted((path.parent for path in (tmp_path / "runs").rglob("loop.json")), key=lambda path: path.name)
    sizes = [path.stat().st_size for path in sorted(last.glob("*.safetensors"))]
    assert len(sizes) == 2
    assert max(sizes) < 1.1 * min(sizes)  # divided evenly
    before = {epoch.number: epoch.loss for epoch in seen}
    resumed: list[Epoch] = []
    one = run(prepared, tmp_path, training.model_copy(update={"num_workers": 1}), resumed)
    numbers = [epoch.number for epoch in resumed]
    assert 2 <= numbers[0] <= max(before) + 1
    assert numbers == list(range(numbers[0], 13))
    assert [epoch.workers for epoch in resumed] == [1] * len(numbers)
    assert losses(one)[: numbers[0] - 1] == [before[number] for number in range(1, numbers[0])]
    assert losses(one)[-1] < losses(one)[0]


def test_a_killed_driver_s_run_goes_on_from_the_object_store_where_nothing_else_is_left(
    local_ray: None, prepared: Path, tmp_path: Path
) -> None:
    pytest.importorskip("moto")
    training = TRAINING.model_copy(update={"epochs": 12})
    calm = run(prepared, tmp_path / "calm", training)
    address = ray.get_runtime_context().gcs_address
    with s3_server() as query:
        runs = f"s3://testing:testing@bucket/runs?{query}"
        words = [str(prepared), str(tmp_path / "first"), runs, training.model_dump_json(), address]
        with subprocess.Popen([sys.executable, str(DRIVER), *words], stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            reached = next(number for number in map(int, driver.stdout) if number >= 3)
            driver.kill()
        assert not (tmp_path / "first").exists()
        moved = shutil.copytree(prepared, tmp_path / "elsewhere")
        seen: list[Epoch] = []
        again = run(moved, tmp_path / "second", training, seen, runs)
    assert 1 < seen[0].number <= reached + 2
    assert [epoch.number for epoch in seen] == list(range(seen[0].number, 13))
    assert same_weights(again, calm)
