"""What k8s/README.md says to type and to expect is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from foretaste.cli import parser
from foretaste.contracts.wire import RecommendRequest
from foretaste.serving.shaping import SURFACES
from foretaste.testing.manifests.objects import parse_one
from foretaste.testing.manifests.render import kubectl, rendered

ROOT = Path(__file__).parents[2]
README = (ROOT / "k8s/README.md").read_text()
OVERLAYS = ("local", "staging", "prod")


def test_the_first_hour_names_only_what_is_there() -> None:
    block = re.search(r"^```sh\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    assert block is not None
    commands = block[1]
    for path in re.findall(r"(?:k8s|deployments)/[\w./-]+\w", commands):
        assert (ROOT / path).exists(), path
    objects = parse_one_each(rendered(ROOT / "k8s/overlays/local", kubectl()))
    for kind, name in re.findall(r"\b(statefulset|cronjob|rayservice)/([a-z-]+)", commands):
        assert (kind, name) in objects
    (jobs,) = re.findall(r"for job in ([a-z ]+);", commands)
    assert {("rayjob", f"foretaste-{one}") for one in jobs.split()} <= objects
    made = set(re.findall(r"create secret generic ([a-z-]+) --from-literal=(\w+)=", commands))
    wanted = {("foretaste-ray-token", "auth_token"), ("foretaste-redis", "password")}
    assert made == wanted
    for line in re.findall(r"foretaste (keys create [^|)]*|import world|prepare)", commands):
        parser().parse_args(shlex.split(line))
    (body,) = re.findall(r"-d '(\{.*\})'", commands)
    assert RecommendRequest.model_validate_json(body).surface in SURFACES


def test_the_number_of_faults_that_is_told_is_that_of_the_table() -> None:
    told = re.search(r"against (\d+) planted faults", README)
    assert told is not None
    assert int(told[1]) == len(parse_one((Path(__file__).parent / "mutations.yaml").read_text()))


def test_the_table_of_components_is_what_overlays_take() -> None:
    taken = {
        name: {one.split("/")[-1] for one in parse_one((ROOT / path).read_text())["components"]}
        for name in OVERLAYS
        for path in [f"k8s/overlays/{name}/kustomization.yaml"]
    }
    rows = re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \|([x ]*)\|([x ]*)\|([x ]*)\|", README, flags=re.MULTILINE)
    said: dict[str, set[str]] = {name: set() for name in OVERLAYS}
    seen = set()
    for names, *marks in rows:
        for name in re.findall(r"[a-z-]+", names):
            seen.add(name)
            for overlay, mark in zip(OVERLAYS, marks, strict=True):
                said[overlay] |= {name} if "x" in mark else set()
    assert said == taken
    assert seen == {path.parent.name for path in (ROOT / "k8s/components").glob("*/kustomization.yaml")}


def test_every_secret_is_wanted_by_something_and_documented() -> None:
    text = rendered(ROOT / "k8s/overlays/prod", kubectl())
    for one in parse_one((ROOT / "k8s/secrets.yaml").read_text())["secrets"]:
        assert one["about"]
        assert one["name"] in text


def parse_one_each(text: str) -> set[tuple[str, str]]:
    """Kind, in small letters, and name of every object of a rendered text."""
    found = [parse_one(one) for one in text.split("\n---\n")]
    return {(one["kind"].lower(), one["metadata"]["name"]) for one in found}
