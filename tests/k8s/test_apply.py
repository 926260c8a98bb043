"""What is a placeholder is never applied: zeros for digests, names of nobody, stale files, missing Secrets."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from foretaste.jobs.apply import apply, refusals
from foretaste.testing.manifests.objects import parse_one
from foretaste.testing.manifests.render import kubectl, rendered
from foretaste.testing.manifests.rules_pods import literals

ROOT = Path(__file__).parents[2]
SECRETS = [one["name"] for one in parse_one((ROOT / "k8s/secrets.yaml").read_text())["secrets"]]


class Cluster:
    """A kubectl that renders for real, and of a cluster knows the Secrets and what was applied."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self.secrets, self.applied = secrets, list[Sequence[str]]()

    def __call__(self, arguments: Sequence[str]) -> str:
        if arguments[0] == "kustomize":
            return rendered(Path(arguments[1]), kubectl())
        if "get" in arguments:
            return "".join(f"secret/{name}\n" for name in self.secrets)
        self.applied.append(arguments)
        return "applied"


@pytest.fixture
def prod(tmp_path: Path) -> Path:
    """A copy in which an operator has said everything."""
    for folder in ("k8s", "deployments"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    overlay = tmp_path / "k8s/overlays/prod/kustomization.yaml"
    overlay.write_text(re.sub("sha256:0{64}", f"sha256:{'a1' * 32}", overlay.read_text()))
    for path in (tmp_path / "deployments/prod").rglob("*.yaml"):
        path.write_text(path.read_text().replace("foretaste.example.org", "foretaste.acme.test"))
    return tmp_path


def test_the_repository_as_it_is_cannot_be_applied_to_production() -> None:
    cluster = Cluster(SECRETS)
    assert apply(ROOT, "prod", cluster) == 1
    assert cluster.applied == []
    found = "\n".join(refusals(ROOT, "prod", cluster))
    assert len(re.findall(r"the digest is a placeholder; .*kustomize edit set image", found)) == 4
    assert "host foretaste.example.org" in found


def test_what_an_operator_has_said_in_full_is_applied(prod: Path) -> None:
    cluster = Cluster(SECRETS)
    assert refusals(prod, "prod", cluster) == []
    assert apply(prod, "prod", cluster, selector="a!=b") == 0
    assert cluster.applied == [["apply", "-k", str(prod / "k8s/overlays/prod"), "-l", "a!=b"]]


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        (
            "k8s/overlays/prod/kustomization.yaml",
            (r'digest: "sha256:\w+"} # 7.4', "newTag: 7.4.2}"),
            "redis:7.4.2: in prod",
        ),
        ("deployments/prod/deployment.yaml", ("idle_seconds: 600", "idle_seconds: 601"), "values.yaml is stale"),
    ],
)
def test_one_thing_left_open_keeps_all_of_it(file: str, change: tuple[str, str], words: str, prod: Path) -> None:
    text = (prod / file).read_text()
    assert re.search(change[0], text)
    (prod / file).write_text(re.sub(*change, text))
    cluster = Cluster(SECRETS)
    (found,) = refusals(prod, "prod", cluster)
    assert words in found
    assert apply(prod, "prod", cluster) == 1
    assert cluster.applied == []


def test_a_secret_that_is_wanted_has_to_be_there_and_one_that_is_not_need_not(prod: Path) -> None:
    (found,) = refusals(prod, "prod", Cluster([name for name in SECRETS if name != "foretaste-redis"]))
    assert found.startswith("Secret/foretaste-redis is not in the namespace")
    local = Cluster(["foretaste-ray-token", "foretaste-redis"])
    assert refusals(prod, "local", local) == []


def test_no_file_of_the_deployment_holds_a_secret() -> None:
    files = [path for folder in ("k8s", "deployments") for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert len(files) > 60
    found = [
        (str(path.relative_to(ROOT)), said)
        for path in files
        if path.suffix in (".yaml", ".env", ".conf") or path.name == "Dockerfile"
        for said in literals(path.read_text() + "\n")
    ]
    assert found == []
