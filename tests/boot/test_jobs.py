"""Verbs as jobs: the rendered RayJob's entrypoint, uploaded code, and what stops is taken up again."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from foretaste import __version__
from foretaste.testing.boot import operator
from foretaste.testing.boot.booted import Booted, Secrets
from foretaste.testing.boot.jobs import SUBMITTED_SECONDS, WORKSPACE, Jobs, epochs, result
from foretaste.testing.boot.laptop import IMAGE_ENVIRONMENT, WAITS
from foretaste.testing.boot.machine import Machine, Pod, PodSpec
from foretaste.testing.manifests.objects import Manifests
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.generate import generate

pytestmark = [pytest.mark.long, pytest.mark.cluster, pytest.mark.timeout(1_800)]

ROOT = Path(__file__).parents[2]
WORLD = WorldConfig(num_members=150, num_movies=60, num_shows=20, days=21)
SETTINGS = {
    "workspace": WORKSPACE,
    "intent": {"width": 16, "feedforward": 32, "max_length": 30},
    "training": {"epochs": 400, "patience": 999, "num_workers": 1, "batch_size": 256},
    "tracking": {"enabled": False},
}
TRAIN = ["python", "-m", "foretaste", "train", "intent", "--config", f"{WORKSPACE}/small.yaml", "--json"]
OTHER_VERSION = "9.9.9+uploaded"


@pytest.fixture(scope="module")
def cluster(
    boot: Callable[[str], Booted], overlay: Callable[[str], Manifests], workspace: Path
) -> tuple[Booted, dict[str, Any]]:
    """The cluster of prod's RayJob for preparation, and something to prepare; the package is installed there."""
    generate(WORLD, workspace / "raw", advance=lambda _: None)
    (workspace / "small.yaml").write_text(yaml.safe_dump(SETTINGS))
    one, booted = overlay("prod").named("RayJob", "foretaste-prepare"), boot("prod")
    booted.ray(one)
    return booted, one


@pytest.fixture
def jobs(cluster: tuple[Booted, dict[str, Any]]) -> Jobs:
    """The job API of that cluster."""
    booted, one = cluster
    return Jobs(booted.head, f"http://{operator.head_service(one)}:{operator.DASHBOARD_PORT}", booted.token(one))


@pytest.fixture(scope="module")
def bare(machine: Machine, workspace: Path, scratch: Path, secrets: Secrets) -> Iterator[Jobs]:
    """The job API of a cluster of one node on which the package is not installed."""
    nothing, token = scratch / "nothing", secrets["foretaste-ray-token"]["auth_token"]
    nothing.mkdir()
    (nothing / "file").touch()
    home = scratch / "home"
    home.mkdir()
    hidden = [(str(path), nothing if path.is_dir() else nothing / "file") for path in installed()]
    environment = {name: value for name, value in IMAGE_ENVIRONMENT.items() if name != "PYTHONPATH"}
    environment |= WAITS | {
        "HOME": str(home),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_worker_niceness": "0",
    }
    ray = scratch / "ray"
    ray.mkdir()
    spec = PodSpec(
        "bare",
        ["ray", "start", "--head", "--block", "--num-cpus=3", "--dashboard-host=0.0.0.0", "--disable-usage-stats",
         "--object-store-memory=200000000", "--dashboard-agent-listen-port=52365"],
        environment,
        [*hidden, (WORKSPACE, workspace), ("/tmp/ray", ray)],
        [("/dev/shm", 1 << 30)],
    )  # fmt: skip
    pod = machine.start(spec)
    deadline = time.monotonic() + SUBMITTED_SECONDS
    while pod.run(["/bin/bash", "-c", operator.HEAD_PROBE]).returncode != 0:
        assert pod.runs, pod.log
        assert time.monotonic() < deadline, pod.log
        time.sleep(0.5)
    yield Jobs(pod, "http://bare:8265", token)
    pod.kill()


def installed() -> list[Path]:
    """Where this environment finds the package: a folder, or the file that says where its checkout is."""
    files = importlib.metadata.files("foretaste") or []
    found = {Path(str(one.locate())) for one in files if str(one).endswith(".pth")}
    return sorted(found | {Path(str(one.locate())).parent for one in files if str(one) == "foretaste/__init__.py"})


@pytest.fixture(scope="module")
def changed(scratch: Path) -> Path:
    """A checkout in which two constants differ: one that the driver tells, one that workers compute with."""
    copy = scratch / "checkout"
    for name in ("platform", "features", "deployments"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path, pattern, text in (
        ("__init__.py", r'__version__ = ".*"', f'__version__ = "{OTHER_VERSION}"'),
        ("training/intent_task.py", r"^NDCG_AT = 10$", "NDCG_AT = 1"),
    ):
        file = copy / "platform" / "foretaste" / path
        text, count = re.subn(pattern, text, file.read_text(), flags=re.MULTILINE)
        assert count == 1, path
        file.write_text(text)
    return copy


def test_the_rendered_rayjobs_entrypoint_ends_well_on_a_worker(
    cluster: tuple[Booted, dict[str, Any]], jobs: Jobs, workspace: Path
) -> None:
    booted, one = cluster
    submitter = booted.submitted(one, "prepare-1")
    assert submitter.wait(SUBMITTED_SECONDS) == 0, submitter.log
    about = jobs.about("prepare-1")
    assert (about["status"], about["driver_exit_code"]) == ("SUCCEEDED", 0)
    assert about["entrypoint"] == one["spec"]["entrypoint"]
    assert booted.workers[0].address in about["driver_agent_http_address"]  # the head has no processors
    told = result(submitter.log)
    assert told["run"]["mode"] == "full"
    assert "prepare: full run" in submitter.log  # progress, beside the result
    assert (workspace / "prepared" / "manifest.json").is_file()


def test_submission_without_the_token_is_refused(jobs: Jobs) -> None:
    before = jobs.names()
    for token in ("", "another"):
        code, said = jobs.submit(["python", "-m", "foretaste", "--version"], token=token)
        assert code != 0
        assert re.search(r"401|403|[Uu]nauthorized|[Ff]orbidden|authentication", said), said
    assert jobs.names() == before


def test_a_cluster_with_the_package_runs_the_uploaded_code(jobs: Jobs, changed: Path) -> None:
    code, said = jobs.submit(["python", "-m", "foretaste", "--version"])
    assert (code, f"foretaste {__version__}" in said) == (0, True), said
    runs_uploaded(jobs, changed)


def test_a_cluster_without_the_package_runs_the_uploaded_code(bare: Jobs, changed: Path) -> None:
    code, said = bare.submit(["python", "-m", "foretaste", "--version"])
    assert code != 0
    assert "No module named foretaste" in said
    runs_uploaded(bare, changed)
    shown = "python -m foretaste rewards --json --config deployments/local/foretaste.yaml"
    words = ["sh", "-c", f"python -m foretaste --version && {shown}"]
    stated = yaml.safe_load((ROOT / "deployments" / "runtime-env.yaml").read_text())
    stated |= {"working_dir": str(changed), "py_modules": [str(changed / one) for one in stated["py_modules"]]}
    (changed / "absolute.yaml").write_text(yaml.safe_dump(stated))  # as if it were submitted from there
    code, said = bare.submit(words, runtime_env=changed / "absolute.yaml")
    assert code == 0, said
    assert f"foretaste {OTHER_VERSION}" in said
    assert "plays" in said  # of deployments/rewards.yaml, which came along


def runs_uploaded(jobs: Jobs, changed: Path) -> None:
    words = ["sh", "-c", f"python -m foretaste --version && {' '.join(TRAIN)} --set training.epochs=1"]
    code, said = jobs.submit(words, working_dir=changed / "platform", entrypoint_num_cpus="1")
    assert code == 0, said
    assert f"foretaste {OTHER_VERSION}" in said  # the driver
    metrics = result(said)["intent"]["metrics"]
    assert metrics["ndcg"] == metrics["hit_rate"]  # the workers: of one place both are the same
    assert epochs(said) == [1]


def test_what_is_stopped_keeps_its_epochs_and_the_next_submission_goes_on(
    cluster: tuple[Booted, dict[str, Any]], jobs: Jobs
) -> None:
    booted, _ = cluster
    words, platform = TRAIN, ROOT / "platform"
    code, said = jobs.submit(words, wait=False, working_dir=platform, submission_id="train-1", entrypoint_num_cpus="1")
    assert code == 0, said
    booted.until(lambda: max(epochs(jobs.log("train-1")), default=0) >= 2, seconds=SUBMITTED_SECONDS)
    jobs.stop("train-1")
    assert jobs.about("train-1")["status"] == "STOPPED"
    log = jobs.log("train-1")
    assert "foretaste train: stopped (SIGTERM)" in log
    assert "Traceback" not in log
    reached = [max(epochs(log))]

    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        code, log = stopped(booted.workers[0], words, number)
        assert code == status, log
        assert f"foretaste train: stopped ({number.name})" in log
        assert min(epochs(log)) >= reached[-1]  # at most the epoch whose checkpoint was under way is done again
        reached.append(max(epochs(log)))

    code, said = jobs.submit(words, working_dir=platform, entrypoint_num_cpus="1")
    assert code == 0, said
    assert min(epochs(said)) >= reached[-1] > reached[0]
    assert max(epochs(said)) == SETTINGS["training"]["epochs"]  # type: ignore[index]
    metrics = result(said)["intent"]["metrics"]
    assert metrics["ndcg"] < metrics["hit_rate"]  # the checkout's own constant: of ten places they differ


def stopped(pod: Pod, words: list[str], number: signal.Signals) -> tuple[int, str]:
    """Run a verb in a pod, joined to its cluster, and signal it after its first epoch; exit status and output."""
    said = []
    with pod.started(words) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if epochs(line):
                psutil.Process(process.pid).children()[0].send_signal(number)
                break
        said.append(process.stdout.read())
        return process.wait(timeout=SUBMITTED_SECONDS), "".join(said)
