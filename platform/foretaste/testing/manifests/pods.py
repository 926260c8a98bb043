"""Every pod that comes of the manifests, as the cluster will see it: with what the operator adds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from foretaste.testing.manifests.objects import Manifests, called

PLAIN = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Pod": (),
}


@dataclass(frozen=True)
class Expanded:
    """A pod with the labels that it will carry."""

    where: str  # Kind/name and what of it
    role: str  # head, worker, submitter, or plain
    owner: str  # kind of the object
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def ray(self) -> bool:
        """Whether the operator makes it a node of Ray."""
        return self.role in ("head", "worker")

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All containers, those that run before others included."""
        return [*self.spec.get("initContainers", ()), *self.spec.get("containers", ())]


def pods(manifests: Manifests) -> list[Expanded]:
    """Every pod of every object."""
    return [*_plain(manifests), *_ray(manifests), *_submitters(manifests)]


def _plain(manifests: Manifests) -> Iterator[Expanded]:
    for one in manifests.of(*PLAIN):
        template: Any = one
        for key in PLAIN[one["kind"]]:
            template = template.get(key) or {}
        labels = dict((template.get("metadata") or {}).get("labels") or {})
        yield Expanded(called(one), "plain", one["kind"], labels, template.get("spec") or {})


def _ray(manifests: Manifests) -> Iterator[Expanded]:
    for where, one, cluster in manifests.clusters():
        head = cluster.get("headGroupSpec") or {}
        yield _node(f"{where} head", "head", one["kind"], head, cluster)
        for group in cluster.get("workerGroupSpecs") or ():
            yield _node(f"{where} {group.get('groupName')}", "worker", one["kind"], group, cluster)


def _node(where: str, role: str, owner: str, group: dict[str, Any], cluster: dict[str, Any]) -> Expanded:
    template = group.get("template") or {}
    labels = dict((template.get("metadata") or {}).get("labels") or {})
    labels |= {  # what KubeRay 1.7 sets; ray.io/originated-from-cr-name is not among them
        "ray.io/is-ray-node": "yes",
        "ray.io/node-type": role,
        "ray.io/group": group.get("groupName", "headgroup"),
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": "kuberay-operator",
    }
    if owner == "RayService":
        labels["ray.io/serve"] = "true" if role == "worker" else "false"
    spec = dict(template.get("spec") or {})
    if role == "head" and cluster.get("enableInTreeAutoscaling"):
        spec["containers"] = [*spec.get("containers", ()), _autoscaler(spec, cluster.get("autoscalerOptions") or {})]
    if role == "worker" and spec.get("containers"):
        first = spec["containers"][0]
        waits = {
            key: first[key] for key in ("image", "securityContext", "env", "envFrom", "volumeMounts") if key in first
        }
        small = {"cpu": "200m", "memory": "256Mi", "ephemeral-storage": "1Gi"}
        made = {"name": "wait-gcs-ready", "resources": {"requests": small, "limits": small}}
        spec["initContainers"] = [*spec.get("initContainers", ()), waits | made]
    return Expanded(where, role, owner, labels, spec)


def _autoscaler(spec: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    image = options.get("image") or spec.get("containers", [{}])[0].get("image")
    kept = ("securityContext", "resources", "env", "envFrom")
    logs = [{"name": "ray-logs", "mountPath": "/tmp/ray"}]
    return {"name": "autoscaler", "image": image, "volumeMounts": logs} | {k: options[k] for k in kept if k in options}


def _submitters(manifests: Manifests) -> Iterator[Expanded]:
    for one in manifests.of("RayJob", "RayCronJob"):
        spec = one["spec"] if one["kind"] == "RayJob" else one["spec"].get("jobTemplate") or {}
        if spec.get("submissionMode", "K8sJobMode") != "K8sJobMode":
            continue
        template = spec.get("submitterPodTemplate") or {}
        labels = dict((template.get("metadata") or {}).get("labels") or {})
        yield Expanded(f"{called(one)} submitter", "submitter", one["kind"], labels, template.get("spec") or {})


def mounted(pod: Expanded, path: str) -> bool:
    """Whether a path lies in a volume of the pod's first container."""
    mounts = (pod.spec.get("containers") or [{}])[0].get("volumeMounts") or ()
    return any(path == m["mountPath"] or path.startswith(m["mountPath"].rstrip("/") + "/") for m in mounts)


def variables(pod: Expanded) -> set[str]:
    """Names that the environment of the pod's first container sets one by one."""
    first = (pod.spec.get("containers") or [{}])[0]
    return {one["name"] for one in first.get("env") or ()}
