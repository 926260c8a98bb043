"""Strict schemas: those of Kubernetes by minor version, KubeRay's own with their CEL, and what else is used."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import cel
import jsonschema
import referencing

from foretaste.testing.manifests.objects import Manifests, Object, called

MINORS = ("1.30", "1.37")
"""Oldest and newest minor version of Kubernetes that is supported."""
RAY_GROUP = "ray.io/"
MONITORING = "monitoring.coreos.com/v1"
_MONITORS = {
    "PodMonitor": {"spec": {"selector", "podMetricsEndpoints", "namespaceSelector", "jobLabel"}},
    "PrometheusRule": {"spec": {"groups"}},
}
_ENDPOINT = {"port", "path", "interval", "scrapeTimeout", "relabelings", "metricRelabelings", "scheme", "honorLabels"}
_RULE = {"alert", "record", "expr", "for", "labels", "annotations", "keep_firing_for"}


def kubernetes(manifests: Manifests) -> Iterator[str]:
    """What a strict API server of the oldest and the newest minor version would refuse."""
    for one in manifests.objects:
        version = str(one.get("apiVersion", ""))
        if version.startswith(RAY_GROUP):
            continue
        if version == MONITORING:
            yield from _monitoring(one)
            continue
        for minor in MINORS:
            validator = _builtin(minor, str(one.get("kind", "")), version)
            if validator is None:
                yield f"{called(one)}: Kubernetes {minor} knows no {version} {one.get('kind')}"
                continue
            yield from (f"{called(one)}: {minor}: {said}" for said in _said(validator, one))


def ray(manifests: Manifests, folder: Path) -> Iterator[str]:
    """What KubeRay's schemas in `folder` would refuse, unknown fields and CEL included."""
    for one in manifests.objects:
        if not str(one.get("apiVersion", "")).startswith(RAY_GROUP):
            continue
        found = _custom(folder, str(one.get("kind")))
        if found is None or one["apiVersion"] != "ray.io/v1":
            yield f"{called(one)}: KubeRay knows no {one['apiVersion']} {one.get('kind')}"
            continue
        schema, validator = found
        yield from (f"{called(one)}: {said}" for said in _said(validator, one))
        yield from (f"{called(one)}: {said}" for said in _cel(schema, one, ""))


def _said(validator: Any, one: Object) -> Iterator[str]:
    for error in validator.iter_errors(one):
        yield f"{'.'.join(map(str, error.absolute_path)) or '.'}: {error.message[:200]}"


@lru_cache(maxsize=2)
def _definitions(minor: str) -> Any:
    return referencing.Resource.from_contents(_contents(minor, "_definitions.json"))


def _contents(minor: str, name: str) -> Any:
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{minor}.0-local-strict"
    return json.loads((folder / name).read_text())


@lru_cache(maxsize=128)
def _builtin(minor: str, kind: str, version: str) -> Any:
    short = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", version)
    try:
        schema = _contents(minor, f"{kind.lower()}-{short}.json")
    except FileNotFoundError:
        return None
    definitions = _definitions(minor)
    registry: Any = referencing.Resource.from_contents(schema) @ referencing.Registry()
    return jsonschema.Draft202012Validator(schema, registry=definitions @ registry)


@lru_cache(maxsize=8)
def _custom(folder: Path, kind: str) -> tuple[dict[str, Any], Any] | None:
    path = folder / f"ray.io_{kind.lower()}s.json.gz"
    if not path.is_file():
        return None
    versions = json.loads(gzip.decompress(path.read_bytes()))["spec"]["versions"]
    schema = next(one for one in versions if one["name"] == "v1")["schema"]["openAPIV3Schema"]
    strict = _closed(schema, top=True)
    return strict, jsonschema.Draft202012Validator(strict)


def _closed(schema: Any, *, top: bool = False) -> Any:
    """The schema with every object closed that does not say that it is open."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: _closed(value) if key != "properties" else value for key, value in schema.items()}
    if "properties" in schema:
        result["properties"] = {name: _closed(value) for name, value in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    if top:
        result["properties"]["metadata"] = {"type": "object"}
        result["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
    return result


def _cel(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"] and cel.evaluate(rule["rule"], {"self": value}) is not True:
            yield f"{path}: {rule.get('message', rule['rule'])}"
    if isinstance(value, dict):
        for name, child in value.items():
            inner = schema.get("properties", {}).get(name)
            more = schema.get("additionalProperties")
            inner = inner if inner is not None else more if isinstance(more, dict) else None
            if inner is not None:
                yield from _cel(inner, child, f"{path}.{name}")
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, child in enumerate(value):
            yield from _cel(schema["items"], child, f"{path}.{index}")


def _monitoring(one: Object) -> Iterator[str]:
    """Prometheus' operator publishes no schema that could be had here: the keys that we use, and no other."""
    known = _MONITORS.get(one.get("kind", ""))
    if known is None:
        yield f"{called(one)}: kind is not among {sorted(_MONITORS)}"
        return
    spec = one.get("spec") or {}
    yield from (f"{called(one)}: spec.{key} is not known" for key in spec.keys() - known["spec"])
    for endpoint in spec.get("podMetricsEndpoints", ()):
        yield from (f"{called(one)}: endpoint key {key} is not known" for key in endpoint.keys() - _ENDPOINT)
    for group in spec.get("groups", ()):
        for rule in group.get("rules", ()):
            yield from (f"{called(one)}: rule key {key} is not known" for key in rule.keys() - _RULE)
            if "expr" not in rule or not {"alert", "record"} & rule.keys():
                yield f"{called(one)}: a rule has no expr, or neither alert nor record"
