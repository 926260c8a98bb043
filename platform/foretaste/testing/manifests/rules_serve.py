"""The Serve application of a RayService: the environment's own file, no key misspelt, and a place for every replica."""

from __future__ import annotations

import importlib
import math
import typing
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from foretaste.testing.manifests.objects import Manifests, called, parse_one, quantity
from foretaste.testing.manifests.pods import Expanded, mounted, pods, variables

REPLICA_CPUS = 1.0


def application(manifests: Manifests) -> Iterator[str]:
    """Every RayService's serveConfigV2."""
    path = manifests.deployment / "generated" / "serve.yaml"
    for one in manifests.of("RayService"):
        text = one["spec"].get("serveConfigV2", "")
        if text != path.read_text():
            yield f"{called(one)}: serveConfigV2 is not {path.parent.parent.name}/generated/serve.yaml"
        try:
            found = parse_one(text)
        except ValueError as error:
            yield f"{called(one)}: serveConfigV2: {error}"
            continue
        nodes = [pod for pod in pods(manifests) if pod.ray and pod.where.startswith(called(one) + " ")]
        yield from (f"{called(one)}: serveConfigV2: {said}" for said in served(found))
        yield from (f"{called(one)}: serveConfigV2: {said}" for said in _placed(found, one, nodes))


def served(found: Any) -> Iterator[str]:
    """What Ray's schema refuses, and what it would swallow: keys that it does not know."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.serve.schema import ServeDeploySchema

        yield from unknown_keys(found, ServeDeploySchema, "")
        try:
            ServeDeploySchema.model_validate(found)
        except ValidationError as error:
            yield from (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            return
    for each in found.get("applications", ()):
        yield from (f"{each['name']}: {said}" for said in _one(each))


def unknown_keys(value: Any, model: type[BaseModel], path: str) -> Iterator[str]:
    """Keys that are no field of the model, at any depth: Ray ignores them in silence."""
    if not isinstance(value, Mapping):
        return
    fields = {alias: one for name, one in model.model_fields.items() for alias in {name, one.alias or name}}
    for key, child in value.items():
        if key not in fields:
            yield f"{path}{key} is no key of {model.__name__}; it would be ignored"
            continue
        for inner in _models(fields[key].annotation):
            for index, element in enumerate(child if isinstance(child, list) else [child]):
                place = f"{path}{key}.{index}." if isinstance(child, list) else f"{path}{key}."
                yield from unknown_keys(element, inner, place)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models(inner)


def _one(each: dict[str, Any]) -> Iterator[str]:
    from foretaste.serving.config import ServiceConfig

    module, _, name = each["import_path"].partition(":")
    try:
        if not callable(getattr(importlib.import_module(module), name)):
            yield f"{each['import_path']} cannot be called with args"
    except (ImportError, AttributeError) as error:
        yield f"{each['import_path']}: {error}"
    if "runtime_env" in each:
        yield "runtime_env: code travels in the image"
    try:
        config = ServiceConfig.model_validate(each.get("args", {}))
    except ValidationError as error:
        yield from (f"args.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return
    if not config.workspace.is_absolute() or not config.features_repo.is_absolute():
        yield "args: paths have to be absolute"
    there = {"foretaste"} | ({"intent", "ranker"} if config.serving.topology == "composed" else set())
    for deployment in each.get("deployments", ()):
        if deployment["name"] not in there:
            yield f"deployment {deployment['name']} is not among {sorted(there)}"


def _placed(found: dict[str, Any], one: dict[str, Any], nodes: list[Expanded]) -> Iterator[str]:
    workers = [pod for pod in nodes if pod.role == "worker"]
    http = found.get("http_options") or {}
    if http.get("host") != "0.0.0.0":
        yield "http_options.host: wanted 0.0.0.0, else nobody outside the pod is heard"
    if found.get("proxy_location") != "EveryNode":
        yield "proxy_location: wanted EveryNode, as the head takes no requests"
    for pod in workers:
        ports = {p.get("name"): p.get("containerPort") for p in pod.spec["containers"][0].get("ports") or ()}
        if ports.get("serve") != http.get("port"):
            yield f"http_options.port is {http.get('port')}, {pod.where} has {ports.get('serve')}"
    groups = one["spec"]["rayClusterConfig"].get("workerGroupSpecs") or ()
    for each in found.get("applications", ()):
        yield from _fits(each, groups, workers)
        yield from _finds(each, workers)


def _fits(each: dict[str, Any], groups: Any, workers: list[Expanded]) -> Iterator[str]:
    for deployment in each.get("deployments", ()):
        scaling = deployment.get("autoscaling_config") or {}
        fixed = deployment.get("num_replicas", 1)
        fewest = scaling.get("min_replicas", fixed if isinstance(fixed, int) else 1)
        most = scaling.get("max_replicas", fewest)
        cpus = (deployment.get("ray_actor_options") or {}).get("num_cpus", REPLICA_CPUS)
        if fewest > most:
            yield f"{deployment['name']}: min_replicas {fewest} is above max_replicas {most}"
        if fewest < 2:
            yield f"{deployment['name']}: fewer than two replicas"
        for what, wanted in (("minReplicas", fewest), ("maxReplicas", most)):
            room = 0
            for group, pod in zip(groups, workers, strict=True):
                limit = quantity(pod.spec["containers"][0]["resources"]["limits"]["cpu"])
                each_node = min(math.floor(limit / cpus), deployment.get("max_replicas_per_node") or math.inf)
                room += int(each_node) * group.get(what, 0)
            if wanted > room:
                yield f"{deployment['name']}: {wanted} replicas do not fit on the workers of {what}, room for {room}"


def _finds(each: dict[str, Any], workers: list[Expanded]) -> Iterator[str]:
    from foretaste.testing.manifests.rules_references import paths_of, variables_of

    arguments = each.get("args", {})
    for pod in workers:
        for path in (str(arguments.get("workspace")), *paths_of(arguments)):
            if not mounted(pod, str(Path(path))):
                yield f"{path} is not mounted in {pod.where}"
        for name in variables_of(arguments) - variables(pod):
            yield f"${{{name}}} is not set in {pod.where}"
