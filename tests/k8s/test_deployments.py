"""One source: the files that Serve, the verbs and the manifests take are what deployment.yaml says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from foretaste.jobs.deployment_config import Deployment
from foretaste.jobs.deployments import ENVIRONMENTS, main, read, stale
from foretaste.jobs.settings import load
from foretaste.testing.manifests.rules_serve import served

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20", "ignore::DeprecationWarning")

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = ROOT / "deployments"
SECRET = {"FORETASTE_REDIS_PASSWORD": "s3cret", "FORETASTE_REGISTRY_PASSWORD": "s3cret"}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_generated_files_are_what_their_source_says(name: str) -> None:
    assert stale(DEPLOYMENTS / name) == [], "run `make deployments`"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_serve_and_verbs_take_the_generated_files(name: str) -> None:
    folder = DEPLOYMENTS / name / "generated"
    assert list(served(yaml.safe_load((folder / "serve.yaml").read_text()))) == []
    settings = load(folder / "foretaste.yaml", environment=SECRET)
    assert "s3cret" in settings.serving.session_log.url
    with pytest.raises(ValueError, match="FORETASTE_REDIS_PASSWORD"):
        load(folder / "foretaste.yaml", environment={})


def test_a_changed_source_makes_its_files_stale_until_they_are_made_again(tmp_path: Path) -> None:
    shutil.copytree(DEPLOYMENTS, tmp_path / "deployments")
    source = tmp_path / "deployments/prod/deployment.yaml"
    source.write_text(source.read_text().replace("target_ongoing_requests: 8}", "target_ongoing_requests: 9}"))
    assert main([str(tmp_path / "deployments"), "--check"]) == 1
    assert stale(source.parent) == ["generated/serve.yaml"]
    (source.parent / "generated/left-over.yaml").write_text("")
    assert stale(source.parent) == ["generated/left-over.yaml", "generated/serve.yaml"]
    (source.parent / "generated/left-over.yaml").unlink()
    assert main([str(tmp_path / "deployments")]) == 0
    assert main([str(tmp_path / "deployments"), "--check"]) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"service": {"replicas": {"fewest": 9, "most": 9}}}, "replicas.fewest: 9 do not fit"),
        ({"service": {"grace_seconds": 30}}, "service.grace_seconds"),
        ({"variables": {"RAY_SERVE_ENABLE_HA_PROXY": "1"}}, "service.replicas.drain_seconds: wanted at least 35"),
        ({"service": {"head": {"cpus": 1, "memory_gib": 2}}}, "head.memory_gib: wanted at least 4"),
        ({"service": {"workers": {"cpus": 1, "memory_gib": 2, "fewest": 3, "most": 2}}}, "most: 2 is below fewest, 3"),
        ({"jobs": {"x": {"arguments": ["train", "&&", "date"]}}}, "wanted plain words"),
        ({"jobs": {"x" * 40: {"arguments": ["train"]}}}, "at most 47 characters"),
        ({"storage": {"redis_gib": 3, "redis_memory_gib": 2}}, "at least twice redis_memory_gib"),
        ({"sevice": {}}, "sevice"),
    ],
)
def test_a_deployment_that_could_not_stand_is_refused_by_its_key(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    values = read(DEPLOYMENTS / "local/deployment.yaml").model_dump(mode="json", exclude_unset=True)
    for key, value in change.items():
        both = isinstance(values.get(key), dict) and isinstance(value, dict)
        values[key] = values[key] | value if both else value
    path = tmp_path / "deployment.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=re.escape(words)):
        read(path)


def test_every_value_of_a_deployment_says_what_it_is() -> None:
    silent = [name for name, field in Deployment.model_fields.items() if not field.description and field.is_required()]
    assert [name for name in silent if name not in ("storage", "places")] == []


def test_the_image_is_linted_and_is_of_the_same_ray_and_python() -> None:
    program = Path(sys.executable).parent / "hadolint"
    path = DEPLOYMENTS / "image/Dockerfile"
    done = subprocess.run([program, "--config", ROOT / ".hadolint.yaml", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert {read(DEPLOYMENTS / name / "deployment.yaml").ray_version for name in ENVIRONMENTS} == {pinned["ray"]}
    said = re.search(r"^ARG BASE=python:(3\.\d+)\.", path.read_text(), flags=re.MULTILINE)
    assert said is not None
    assert said[1] == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_the_image_installs_what_the_package_and_a_cluster_want() -> None:
    program = DEPLOYMENTS / "image/requirements.py"
    said = subprocess.run(
        [sys.executable, program, ROOT / "pyproject.toml"], capture_output=True, text=True, check=True
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert said.stdout.split("\n")[:-1] == [*project["dependencies"], *project["optional-dependencies"]["cluster"]]


def test_what_the_image_copies_is_not_kept_from_it() -> None:
    text = (DEPLOYMENTS / "image/Dockerfile").read_text()
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        one for line in re.findall(r"^COPY (?!--from)(.*)$", text, flags=re.MULTILINE) for one in line.split()[:-1]
    ]
    assert copied
    for one in copied:
        assert (ROOT / one).exists()
        assert any(one == there or there.startswith(one + "/") for there in let_in), one
