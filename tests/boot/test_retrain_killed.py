"""`foretaste retrain` under SIGKILL: nothing half-written is read, what was done stays done, the rerun completes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file

from foretaste.ops.bundles import fetch_bundle
from foretaste.ops.files import PARTIAL, read_json
from foretaste.ops.releases import current_release, releases
from foretaste.ops.tables import prepared_files
from foretaste.testing.boot.jobs import SUBMITTED_SECONDS, WORKSPACE, epochs, result
from foretaste.testing.boot.laptop import IMAGE, IMAGE_ENVIRONMENT, IMAGE_FOLDER
from foretaste.testing.boot.machine import Machine, Pod, PodSpec
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.generate import generate

pytestmark = [pytest.mark.long, pytest.mark.cluster, pytest.mark.timeout(1_800)]

WORLD = WorldConfig(num_members=150, num_movies=60, num_shows=20, days=28)
SETTINGS: dict[str, Any] = {
    "workspace": WORKSPACE,
    "cluster": {"object_store_mib": 200},
    "intent": {"width": 16, "feedforward": 32, "max_length": 30},
    "training": {"epochs": 4, "num_workers": 1},
    "ranker_training": {"epochs": 1, "num_workers": 1},
    "tracking": {"enabled": False},
    "retrain": {"program": "plays", "evaluate_cases": 100},
    "policy_evaluation": {"gate": {"ranking_margin": 0.99}},  # the first release answers
}


@pytest.fixture
def retrain(machine: Machine, workspace: Path, scratch: Path) -> Callable[[], Pod]:
    """Start `foretaste retrain` as a pod of its own, whose death takes all that it started with it."""
    generate(WORLD, workspace / "raw", advance=lambda _: None)
    (workspace / "small.yaml").write_text(yaml.safe_dump(SETTINGS))
    environment = IMAGE_ENVIRONMENT | {"HOME": str(scratch)}
    words = ["python", "-m", "foretaste", "retrain", "--config", f"{WORKSPACE}/small.yaml", "--json"]
    mounts = [*IMAGE, (WORKSPACE, workspace)]
    return lambda: machine.start(PodSpec("retrain", words, environment, mounts, folder=IMAGE_FOLDER))


def until(holds: Callable[[], bool], pod: Pod) -> None:
    deadline = time.monotonic() + SUBMITTED_SECONDS
    while not holds():
        assert pod.runs, pod.log
        assert time.monotonic() < deadline, pod.log
        time.sleep(0.05)


def steps(workspace: Path) -> dict[str, bytes]:
    """What was written down of each step that is done."""
    return {path.name: path.read_bytes() for path in workspace.glob("retrain/*/[0-9]*.json")}


def assert_all_is_whole(workspace: Path) -> None:
    """Whatever a reader would open can be read to its end; nobody answers yet."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".parquet": pq.read_table,
        ".json": read_json,
        ".safetensors": load_file,
    }
    files = [
        path for path in workspace.rglob("*") if path.is_file() and PARTIAL not in str(path.relative_to(workspace))
    ]
    assert files
    for path in files:
        readers.get(path.suffix, Path.read_bytes)(path)
    for path in prepared_files(workspace / "prepared", "interactions"):
        assert path.is_file()
    assert current_release(workspace / "registry") is None


def test_a_loop_that_is_killed_twice_ends_as_one(retrain: Callable[[], Pod], workspace: Path) -> None:
    pod = retrain()
    until(lambda: "retrain: 11-features" in pod.log, pod)
    time.sleep(0.7)  # in the middle of it
    pod.kill()
    assert_all_is_whole(workspace)
    first = steps(workspace)
    assert sorted(first) == ["10-prepare.json"]

    pod = retrain()
    until(lambda: len(epochs(pod.log)) >= 2, pod)  # of the intent model
    pod.kill()
    told = epochs(pod.log)
    assert_all_is_whole(workspace)
    second = steps(workspace)
    assert {"10-prepare.json", "11-features.json", "12-outcomes.json"} == second.keys()
    assert not list((workspace / "registry").glob("intent/*"))

    pod = retrain()
    assert pod.wait(SUBMITTED_SECONDS) == 0, pod.log
    last = pod.log.rpartition("retrain: goes on with ")[2]
    assert min(epochs(last)) >= max(told)  # the run of before went on
    done = steps(workspace)
    assert {name: done[name] for name in second} == second
    (run,) = workspace.glob("retrain/*")
    assert result(last)["run"] == run.name
    assert json.loads((run / "decision.json").read_text())["live"] is True
    (release,) = releases(workspace / "registry")
    answering = current_release(workspace / "registry")
    assert answering is not None
    assert answering.name == release.name
    assert {name: fetch_bundle(workspace / "registry", name).version for name in ("intent", "ranker")}.items() <= dict(
        release.models
    ).items()
