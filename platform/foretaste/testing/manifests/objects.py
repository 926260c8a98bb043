"""Rendered manifests as plain values, with what they were rendered from."""

from __future__ import annotations

import argparse
import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
RAY_KINDS = {
    "RayService": ("spec", "rayClusterConfig"),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayCronJob": ("spec", "jobTemplate", "rayClusterSpec"),
}
"""Where each of the operator's kinds keeps its cluster."""


class _Strict(yaml.CSafeLoader):
    """Refuses a key that stands twice: the last one would win in silence."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise ValueError(f"line {key_node.start_mark.line + 1}: key {key!r} stands twice")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse(text: str) -> list[Object]:
    """Every document of a YAML text. Raises ValueError naming the line of a key that stands twice."""
    return [one for one in yaml.load_all(text, Loader=_Strict) if one is not None]


def parse_one(text: str) -> Any:
    """The same of a text of one document."""
    return yaml.load(text, Loader=_Strict)


@dataclass(frozen=True)
class Manifests:
    """An overlay's objects, and the folder of the environment that their values come from."""

    objects: list[Object]
    environment: str
    deployment: Path  # deployments/NAME
    secrets: Mapping[str, Sequence[str]]  # that are made outside: name to keys
    gates: Mapping[str, bool]  # of the operator
    command_line: Callable[[], argparse.ArgumentParser]  # what entrypoints are words of: foretaste.cli.parser

    def of(self, *kinds: str) -> list[Object]:
        """The objects of some kinds."""
        return [one for one in self.objects if one["kind"] in kinds]

    def named(self, kind: str, name: str) -> Object:
        """One object. Raises ValueError where there is none, or more than one."""
        found = [one for one in self.of(kind) if one["metadata"]["name"] == name]
        if len(found) != 1:
            raise ValueError(f"wanted one {kind}/{name}, found {len(found)}")
        return found[0]

    def clusters(self) -> Iterator[tuple[str, Object, dict[str, Any]]]:
        """Where, object and specification of every Ray cluster."""
        for one in self.of(*RAY_KINDS):
            spec: Any = one
            for key in RAY_KINDS[one["kind"]]:
                spec = (spec or {}).get(key)
            if spec is not None:
                yield called(one), one, spec

    def copied(self) -> Manifests:
        """The same, to be changed."""
        return replace(self, objects=copy.deepcopy(self.objects))


def called(one: Object) -> str:
    """Kind and name, as messages say it."""
    return f"{one.get('kind')}/{one.get('metadata', {}).get('name')}"


def opened(
    text: str, *, environment: str, root: Path, command_line: Callable[[], argparse.ArgumentParser]
) -> Manifests:
    """Rendered text with what the repository at `root` says of it. Raises ValueError for what is no YAML."""
    outside = parse_one((root / "k8s" / "secrets.yaml").read_text())["secrets"]
    operator = parse_one((root / "k8s" / "operator-values.yaml").read_text())
    return Manifests(
        objects=parse(text),
        environment=environment,
        deployment=root / "deployments" / environment,
        secrets={one["name"]: one["keys"] for one in outside},
        gates={one["name"]: one["enabled"] for one in operator["featureGates"]},
        command_line=command_line,
    )


_QUANTITY = re.compile(r"^(\d+(?:\.\d+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")
_FACTORS = {None: 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_FACTORS |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def quantity(value: Any) -> float:
    """A quantity of Kubernetes as a number. Raises ValueError for what is none."""
    found = _QUANTITY.match(str(value))
    if found is None:
        raise ValueError(f"{value!r} is no quantity")
    return float(found[1]) * _FACTORS[found[2]]
