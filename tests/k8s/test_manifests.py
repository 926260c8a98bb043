"""Every overlay renders, and every check holds for every object of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from foretaste.cli import parser
from foretaste.testing.manifests.checks import CHECKS, KUBERAY, findings
from foretaste.testing.manifests.objects import Manifests, opened, parse, parse_one
from foretaste.testing.manifests.render import kubectl, rendered

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20", "ignore::DeprecationWarning")

OVERLAYS = ("local", "staging", "prod")
Overlay = Callable[[str], Manifests]


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("check", CHECKS)
def test_an_overlay_keeps_every_rule(name: str, check: str, overlay: Overlay) -> None:
    assert findings(overlay(name), check) == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_keeps_the_strict_schemas_of_kuberay(name: str, overlay: Overlay, kuberay: Path) -> None:
    assert findings(overlay(name), KUBERAY, schemas_folder=kuberay) == []


@pytest.mark.parametrize("check", [*CHECKS, KUBERAY])
def test_components_that_no_overlay_takes_keep_every_rule_once_their_gates_are_on(
    check: str, root: Path, kuberay: Path
) -> None:
    text = rendered(root / "tests/k8s/overlays/everything", kubectl())
    found = opened(text, environment="prod", root=root, command_line=parser)
    assert {"RayCronJob"} <= {one["kind"] for one in found.objects}
    assert {one["metadata"]["name"] for one in found.of("CronJob")} == set()
    on = replace(found, gates=dict.fromkeys(found.gates, True))
    assert findings(on, check, schemas_folder=kuberay) == []
    if check == "gates":
        off = findings(found, check)
        assert len(off) == 4, off  # three scheduled jobs, one upgrade


def test_a_second_kubectl_renders_the_same(root: Path) -> None:
    places = [Path(one) for one in ("/usr/local/bin/kubectl", "/usr/bin/kubectl")]
    other = next((one for one in places if one.is_file()), None)
    if other is None or shutil.which("git") is None:
        pytest.skip("no second kubectl is installed")
    said = [_version(str(program)) for program in (kubectl(), other)]
    if said[0] == said[1] or said[1] < (1, 27):
        pytest.skip(f"the other kubectl is {said[1]}: wanted another version, 1.27 or newer")
    for name in OVERLAYS:
        ours, theirs = (parse(rendered(root / "k8s/overlays" / name, str(one))) for one in (kubectl(), other))
        assert ours == theirs


def test_every_component_is_taken_by_an_overlay_and_says_what_it_is_for(root: Path) -> None:
    taken = set()
    for path in [*(root / "k8s/overlays").glob("*/kustomization.yaml"), *root.glob("tests/k8s/overlays/*/*.yaml")]:
        taken |= {one.split("/")[-1] for one in parse_one(path.read_text())["components"]}
    there = {path.parent.name for path in (root / "k8s/components").glob("*/kustomization.yaml")}
    assert taken == there
    silent = [path for path in (root / "k8s").rglob("kustomization.yaml") if not path.read_text().startswith("# ")]
    assert silent == []


def test_every_knob_reaches_the_manifests(root: Path, tmp_path: Path) -> None:
    """Another value of each place in an environment's values, and the rendered text has it."""
    for folder in ("k8s", "deployments"):
        shutil.copytree(root / folder, tmp_path / folder)
    path = tmp_path / "deployments/prod/generated/values.yaml"
    found = parse_one(path.read_text())
    spec = found["spec"]
    marks = {("places", key): f"mark-{index}" for index, key in enumerate(sorted(spec["places"]))}
    marks |= {("storage", "class"): "mark-class", ("storage", "redisClass"): "mark-redis", ("storage", "redis"): "77Gi"}
    marks |= {
        ("storage", "workspace"): "78Gi",
        ("storage", "redisMemory"): "79gb",
        ("storage", "redisPodMemory"): "80Gi",
    }
    marks |= {(group, "memory"): f"{81 + i}Gi" for i, group in enumerate(("head", "workers", "batchHead"))}
    text = path.read_text()
    for (group, key), mark in marks.items():
        text = re.sub(rf"(^  {group}:\n(?:    .*\n)*?    {key}: ).*$", rf"\g<1>{mark}", text, flags=re.MULTILINE)
    for key, number in {"idleSeconds": 911, "graceSeconds": 912, "fewestThroughDisruption": 913, "port": 914}.items():
        text = re.sub(rf"^  {key}: .*$", f"  {key}: {number}", text, flags=re.MULTILINE)
    path.write_text(text)
    seen = rendered(tmp_path / "k8s/overlays/prod", kubectl())
    wanted = [*marks.values(), "idleTimeoutSeconds: 911", "terminationGracePeriodSeconds: 912", "minAvailable: 913"]
    assert [mark for mark in [*wanted, "containerPort: 914"] if str(mark) not in seen] == []


def _version(program: str) -> tuple[int, int]:
    done = subprocess.run([program, "version", "--client"], capture_output=True, text=True, check=True)
    found = re.search(r"Client Version: v(\d+)\.(\d+)", done.stdout)
    assert found is not None, done.stdout
    return int(found[1]), int(found[2])
