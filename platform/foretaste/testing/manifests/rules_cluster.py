"""What the operator and Ray ask of a cluster beyond its schema."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from foretaste.jobs.deployment_config import SHARED_SHARE
from foretaste.testing.manifests.objects import Manifests, called, parse_one, quantity
from foretaste.testing.manifests.pods import Expanded, pods

LONGEST_NAME = 47
LEAST_HEAD = 4 * 2.0**30
DRAIN_SECONDS = 30
UPGRADES = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
UNGATED = ("tlsOptions", "networkPolicy", "historyServerOptions")
"""Alpha parts of a cluster that nothing of ours uses."""
_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_FLAGSHIP = ("staging", "prod")


def names(manifests: Manifests) -> Iterator[str]:
    """Names that are free, short enough for what is made of them, and bounds in order."""
    seen: set[tuple[str, ...]] = set()
    for one in manifests.objects:
        meta = one.get("metadata") or {}
        key = (one.get("apiVersion", ""), one.get("kind", ""), meta.get("namespace", ""), meta.get("name", ""))
        if key in seen:
            yield f"{called(one)}: stands twice"
        seen.add(key)
        if not _LABEL.match(str(meta.get("name", ""))) and one["kind"] not in ("Role", "RoleBinding"):
            yield f"{called(one)}: a name has small letters, digits and dashes"
        if one["kind"].startswith("Ray") and len(str(meta.get("name", ""))) > LONGEST_NAME:
            yield f"{called(one)}: the name is longer than {LONGEST_NAME}, of which the operator makes others"
    for where, _, cluster in manifests.clusters():
        groups = cluster.get("workerGroupSpecs") or []
        called_twice = len({group.get("groupName") for group in groups}) != len(groups)
        if called_twice:
            yield f"{where}: two groups of workers have one name"
        for group in groups:
            low, now, high = (group.get(key, 0) for key in ("minReplicas", "replicas", "maxReplicas"))
            which = f"{where} {group.get('groupName')}"
            if not low <= now <= high:
                yield f"{which}: wanted minReplicas <= replicas <= maxReplicas, got {low}, {now}, {high}"
            if low < high and not cluster.get("enableInTreeAutoscaling"):
                yield f"{which}: scales from {low} to {high} only with enableInTreeAutoscaling"


def gates(manifests: Manifests) -> Iterator[str]:
    """Alpha parts only where the operator's gate is on; without it a field is ignored, in silence."""
    for one in manifests.of("RayCronJob"):
        if not manifests.gates.get("RayCronJob"):
            yield f"{called(one)}: the operator's gate RayCronJob is off in operator-values.yaml"
    for one in manifests.of("RayService"):
        strategy = (one["spec"].get("upgradeStrategy") or {}).get("type")
        if strategy == "NewClusterWithIncrementalUpgrade" and not manifests.gates.get("RayServiceIncrementalUpgrade"):
            yield f"{called(one)}: the operator's gate RayServiceIncrementalUpgrade is off in operator-values.yaml"
    for where, _, cluster in manifests.clusters():
        for key in UNGATED:
            if key in cluster:
                yield f"{where}: {key} is alpha and off in the operator"
        if (cluster.get("gcsFaultToleranceOptions") or {}).get("backend") == "rocksdb":
            yield f"{where}: the rocksdb backend is alpha and off in the operator"


def versions(manifests: Manifests) -> Iterator[str]:
    """One Ray everywhere, and in production images that nobody can exchange."""
    import ray

    said = parse_one((manifests.deployment / "deployment.yaml").read_text())["ray_version"]
    if said != ray.__version__:
        yield f"deployment.yaml: ray_version is {said}, installed is {ray.__version__}"
    images: dict[str, set[str]] = {}
    for where, _, cluster in manifests.clusters():
        if cluster.get("rayVersion") != said:
            yield f"{where}: rayVersion is {cluster.get('rayVersion')}, deployment.yaml says {said}"
    for pod in pods(manifests):
        for container in pod.containers:
            image = str(container.get("image", ""))
            name, _, digest = image.partition("@")
            if manifests.environment == "prod" and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
                yield f"{pod.where} {container['name']}: {image}: in production an image is named by digest"
            if not digest and (":" not in name.split("/")[-1] or name.endswith(":latest")):
                yield f"{pod.where} {container['name']}: {image}: wanted a tag, and not latest"
            if pod.ray or pod.role == "submitter":
                images.setdefault(re.split(r"[:@]", name.split("/")[-1])[0], set()).add(image)
    yield from (f"{name}: several of one image: {sorted(found)}" for name, found in images.items() if len(found) > 1)


def head(manifests: Manifests) -> Iterator[str]:
    """A head that runs no work and has room to grow; start parameters that `ray start` knows."""
    known = _options()
    for where, _, cluster in manifests.clusters():
        group = cluster.get("headGroupSpec") or {}
        if (group.get("rayStartParams") or {}).get("num-cpus") != "0":
            yield f'{where} head: wanted rayStartParams num-cpus: "0", so that no work lands there'
        for every in (group, *(cluster.get("workerGroupSpecs") or ())):
            for key in every.get("rayStartParams") or {}:
                if key not in known:
                    yield f"{where}: rayStartParams {key} is no option of ray start"
        spec = (group.get("template") or {}).get("spec") or {}
        if cluster.get("enableInTreeAutoscaling"):
            if spec.get("automountServiceAccountToken") is not True:
                yield f"{where} head: the autoscaler needs automountServiceAccountToken: true"
            if spec.get("restartPolicy", "Never") != "Never":
                yield f"{where} head: the autoscaler, v2, wants restartPolicy Never or none said"
        elif spec.get("automountServiceAccountToken") is not False:
            yield f"{where} head: without an autoscaler wanted automountServiceAccountToken: false"
    for pod in pods(manifests):
        if pod.role == "head" and quantity(_limit(pod, "memory")) < LEAST_HEAD:
            yield f"{pod.where}: a head wants at least 4Gi, has {_limit(pod, 'memory')}"


@lru_cache(maxsize=1)
def _options() -> frozenset[str]:
    from ray.scripts.scripts import start

    options = {one.removeprefix("--") for param in start.params for one in param.opts}
    return frozenset(options - {"head", "address", "block"})  # the operator's own


def _limit(pod: Expanded, what: str) -> Any:
    return ((pod.spec.get("containers") or [{}])[0].get("resources") or {}).get("limits", {}).get(what, "0")


def sizes(manifests: Manifests) -> Iterator[str]:
    """Whole processors, memory that is requested as it is limited, disk that is bounded, shared memory that fits."""
    for pod in pods(manifests):
        for container in pod.containers:
            yield from (f"{pod.where} {container.get('name')}: {said}" for said in _sized(container))
        if not pod.ray:
            continue
        cpus = quantity(_limit(pod, "cpu"))
        if cpus != math.floor(cpus) or cpus < 1:
            yield f"{pod.where}: limits.cpu {_limit(pod, 'cpu')}: Ray rounds up, so wanted whole processors"
        shared = [v for v in pod.spec.get("volumes") or () if (v.get("emptyDir") or {}).get("medium") == "Memory"]
        mounts = {m["name"]: m["mountPath"] for m in pod.spec["containers"][0].get("volumeMounts") or ()}
        shm = next((v for v in shared if mounts.get(v["name"]) == "/dev/shm"), None)
        if shm is None or "sizeLimit" not in shm["emptyDir"]:
            yield f"{pod.where}: wanted a bounded emptyDir in memory at /dev/shm"
        elif quantity(shm["emptyDir"]["sizeLimit"]) >= quantity(_limit(pod, "memory")):
            yield f"{pod.where}: /dev/shm takes all of the memory"
        elif quantity(shm["emptyDir"]["sizeLimit"]) < SHARED_SHARE * quantity(_limit(pod, "memory")) - 1.0:
            yield f"{pod.where}: /dev/shm has less than Ray's objects take, {SHARED_SHARE:.0%} of the memory"
        if mounts.get("ray-logs") != "/tmp/ray":
            yield f"{pod.where}: wanted the volume ray-logs, which the autoscaler mounts, at /tmp/ray"


def _sized(container: dict[str, Any]) -> Iterator[str]:
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for what in ("cpu", "memory", "ephemeral-storage"):
        if what not in requests or what not in limits:
            yield f"wanted requests and limits of {what}"
    if "memory" in requests and "memory" in limits and quantity(requests["memory"]) != quantity(limits["memory"]):
        yield f"requests {requests['memory']} of memory and limits it to {limits['memory']}: Ray plans by the limit"
    for what in requests.keys() & limits.keys():
        if quantity(requests[what]) > quantity(limits[what]):
            yield f"requests more {what} than its limit"


def service(manifests: Manifests) -> Iterator[str]:
    """A service that survives a node, a head, a drain and an upgrade."""
    from foretaste.testing.manifests.rules_references import selects

    budgets = manifests.of("PodDisruptionBudget")
    for one in manifests.of("RayService"):
        where, spec = called(one), one["spec"]
        if spec.get("excludeHeadPodFromServeSvc") is not True:
            yield f"{where}: wanted excludeHeadPodFromServeSvc: true"
        if (spec.get("upgradeStrategy") or {}).get("type") not in UPGRADES:
            yield f"{where}: wanted upgradeStrategy.type, one of {', '.join(UPGRADES)}"
        options = spec["rayClusterConfig"].get("gcsFaultToleranceOptions")
        if manifests.environment in _FLAGSHIP and not (options and options.get("redisPassword")):
            yield f"{where}: wanted gcsFaultToleranceOptions with a redisPassword"
        if options and "externalStorageNamespace" in options:
            yield f"{where}: externalStorageNamespace is the operator's: a new cluster would read the old one's state"
        for pod in (found for found in pods(manifests) if found.owner == "RayService" and found.ray):
            yield from (f"{pod.where}: {said}" for said in _serves(pod))
            if pod.role != "worker":
                continue
            if not any(selects(budget["spec"].get("selector"), pod.labels) for budget in budgets):
                yield f"{pod.where}: no PodDisruptionBudget selects it; the operator makes none"
            spread = pod.spec.get("topologySpreadConstraints") or ()
            if not any(selects(rule.get("labelSelector"), pod.labels) for rule in spread):
                yield f"{pod.where}: no topologySpreadConstraint of its own labels"
        if sum(group.get("minReplicas", 0) for group in spec["rayClusterConfig"].get("workerGroupSpecs") or ()) < 2:
            yield f"{where}: fewer than two workers: the loss of a node is an outage"
    yield from _budgets(manifests)


def _serves(pod: Expanded) -> Iterator[str]:
    first = pod.spec["containers"][0]
    if pod.role == "worker" and "readinessProbe" in first:
        yield "a readinessProbe takes the place of the operator's, which asks Serve's proxy"
    if (pod.spec.get("terminationGracePeriodSeconds") or 0) <= DRAIN_SECONDS:
        yield f"wanted terminationGracePeriodSeconds above {DRAIN_SECONDS}, for which Ray drains on SIGTERM"
    if "preStop" in (first.get("lifecycle") or {}):
        yield "preStop would stop Ray before it drains"
    if "command" in first or "args" in first:
        yield "the command is the operator's"


def _budgets(manifests: Manifests) -> Iterator[str]:
    from foretaste.testing.manifests.rules_references import selects

    for budget in manifests.of("PodDisruptionBudget"):
        spec = budget["spec"]
        chosen = [pod for pod in pods(manifests) if pod.ray and selects(spec.get("selector"), pod.labels)]
        fewest = spec.get("minAvailable")
        if chosen and (not isinstance(fewest, int) or "maxUnavailable" in spec):
            yield f"{called(budget)}: of custom resources only a whole minAvailable counts, got {fewest!r}"
        elif chosen:
            least = sum(
                group.get("minReplicas", 0)
                for _, one, cluster in manifests.clusters()
                if one["kind"] == "RayService"
                for group in cluster.get("workerGroupSpecs") or ()
            )
            if fewest is not None and fewest >= least:
                yield f"{called(budget)}: minAvailable {fewest} of {least} workers forbids every drain"
        if any(pod.role == "head" for pod in chosen):
            yield f"{called(budget)}: selects the head, of which there is one: it could only forbid every drain"
