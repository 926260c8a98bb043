"""Who may speak with whom: policies are evaluated as the cluster would, against what has to work and what must not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from foretaste.testing.manifests.objects import Manifests, parse_one
from foretaste.testing.manifests.pods import pods
from foretaste.testing.manifests.rules_references import selects


@dataclass(frozen=True)
class Peer:
    """One end: a pod of ours by two labels, a namespace of others, or the world."""

    cluster: str = ""
    node: str = ""
    place: str = ""  # of deployment.yaml's places, or a namespace
    labels: Mapping[str, str] = field(default_factory=dict)
    world: bool = False


def _ours(cluster: str, node: str) -> Peer:
    return Peer(cluster=cluster, node=node)


_HEAD, _WORKER = _ours("serving", "head"), _ours("serving", "worker")
_BATCH_HEAD, _BATCH, _SUBMITTER = _ours("batch", "head"), _ours("batch", "worker"), _ours("batch", "submitter")
_NIGHT = _ours("schedule", "job")
_REDIS, _GCS = _ours("foretaste-redis", "store"), _ours("foretaste-gcs-redis", "store")
_MLFLOW, _POSTGRES = _ours("foretaste-mlflow", "store"), _ours("foretaste-postgres", "store")
_OPERATOR, _MONITORING = Peer(place="operator_namespace"), Peer(place="monitoring_namespace")
_INGRESS, _STRANGER = Peer(place="ingress_namespace"), Peer(place="somebody-else")
_DNS = Peer(place="kube-system", labels={"k8s-app": "kube-dns"})
_WORLD = Peer(world=True)

NEEDED = (
    (_OPERATOR, _HEAD, 8265), (_OPERATOR, _BATCH_HEAD, 8265), (_OPERATOR, _WORKER, 8000),
    (_HEAD, _WORKER, 10002), (_WORKER, _HEAD, 6379), (_WORKER, _WORKER, 10002),
    (_BATCH_HEAD, _BATCH, 10002), (_BATCH, _BATCH_HEAD, 6379), (_SUBMITTER, _BATCH_HEAD, 8265),
    (_WORKER, _REDIS, 6379), (_BATCH, _REDIS, 6379), (_NIGHT, _REDIS, 6379), (_HEAD, _GCS, 6379),
    (_BATCH, _MLFLOW, 5000), (_NIGHT, _MLFLOW, 5000), (_MLFLOW, _POSTGRES, 5432),
    (_WORKER, _POSTGRES, 5432), (_BATCH, _POSTGRES, 5432), (_NIGHT, _POSTGRES, 5432),
    (_MONITORING, _HEAD, 8080), (_MONITORING, _WORKER, 8080), (_MONITORING, _WORKER, 8000), (_MONITORING, _BATCH, 8080),
    (_INGRESS, _WORKER, 8000),
    (_HEAD, _DNS, 53), (_WORKER, _DNS, 53), (_BATCH, _DNS, 53), (_NIGHT, _DNS, 53), (_MLFLOW, _DNS, 53),
)  # fmt: skip
"""What has to work, where both ends are there."""
FORBIDDEN = (
    (_INGRESS, _HEAD, 8265), (_STRANGER, _HEAD, 8265), (_MONITORING, _HEAD, 8265), (_NIGHT, _HEAD, 8265),
    (_BATCH, _HEAD, 8265), (_SUBMITTER, _HEAD, 8265), (_STRANGER, _HEAD, 6379), (_INGRESS, _HEAD, 10001),
    (_STRANGER, _WORKER, 8000), (_STRANGER, _REDIS, 6379), (_INGRESS, _REDIS, 6379), (_OPERATOR, _REDIS, 6379),
    (_WORLD, _REDIS, 6379), (_WORLD, _HEAD, 8265), (_BATCH, _GCS, 6379), (_NIGHT, _GCS, 6379), (_REDIS, _WORLD, 443),
    (_HEAD, _POSTGRES, 5432), (_STRANGER, _POSTGRES, 5432), (_STRANGER, _MLFLOW, 5000), (_WORKER, _WORLD, 80),
)  # fmt: skip
"""What must not."""


def network(manifests: Manifests) -> Iterator[str]:
    """Deny by default, and every needed and forbidden way as the policies have it."""
    policies = [one["spec"] for one in manifests.of("NetworkPolicy")]
    closed = [
        p for p in policies if p.get("podSelector") == {} and set(p.get("policyTypes") or ()) == {"Ingress", "Egress"}
    ]
    if not any(not p.get("ingress") and not p.get("egress") for p in closed):
        yield "no policy denies all ways in and out of all pods by default"
    places = parse_one((manifests.deployment / "generated" / "values.yaml").read_text())["spec"]["places"]
    there = {
        (pod.labels.get("foretaste/cluster"), pod.labels.get("foretaste/node")): pod.labels for pod in pods(manifests)
    }
    taken = {
        place
        for place, kind in (("ingress_namespace", "Ingress"), ("monitoring_namespace", "PodMonitor"))
        if manifests.of(kind)
    }
    for ways, wanted in ((NEEDED, True), (FORBIDDEN, False)):
        for source, target, port in ways:
            ends = [end for end in (source, target) if end.cluster]
            missing = any((end.cluster, end.node) not in there for end in ends)
            unused = (
                wanted and source.place in ("ingress_namespace", "monitoring_namespace") and source.place not in taken
            )
            if missing or unused:
                continue
            if _may(policies, _known(source, there, places), _known(target, there, places), port) != wanted:
                yield f"{_say(source)} {'cannot' if wanted else 'can'} reach {_say(target)} on port {port}"


def _known(peer: Peer, there: Mapping[Any, Mapping[str, str]], places: Mapping[str, str]) -> Peer:
    if peer.cluster:
        return Peer(cluster=peer.cluster, node=peer.node, labels=there[(peer.cluster, peer.node)])
    return Peer(place=places.get(peer.place, peer.place), labels=peer.labels, world=peer.world)


def _say(peer: Peer) -> str:
    return f"{peer.cluster}/{peer.node}" if peer.cluster else "the world" if peer.world else peer.place


def _may(policies: list[dict[str, Any]], source: Peer, target: Peer, port: int) -> bool:
    out = not source.cluster or _side(policies, source, target, port, "Egress", "to")
    into = not target.cluster or _side(policies, target, source, port, "Ingress", "from")
    return out and into


def _side(policies: list[dict[str, Any]], own: Peer, other: Peer, port: int, way: str, key: str) -> bool:
    concerned = [p for p in policies if selects(p.get("podSelector"), own.labels) and way in _types(p)]
    if not concerned:
        return True
    rules = [rule for p in concerned for rule in p.get(way.lower()) or ()]
    return any(_port(rule, port) and _peer(rule.get(key), other) for rule in rules)


def _types(policy: dict[str, Any]) -> list[str]:
    return policy.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in policy else [])]


def _port(rule: dict[str, Any], port: int) -> bool:
    ports = rule.get("ports")
    return not ports or any(p.get("port") == port or "port" not in p for p in ports)


def _peer(allowed: list[dict[str, Any]] | None, other: Peer) -> bool:
    if not allowed:
        return True
    return any(_matches(one, other) for one in allowed)


def _matches(one: dict[str, Any], other: Peer) -> bool:
    if "ipBlock" in one:
        return other.world and one["ipBlock"]["cidr"] == "0.0.0.0/0"
    if other.world:
        return False
    if "namespaceSelector" in one:
        own = {"kubernetes.io/metadata.name": other.place} if other.place else {}
        if not selects(one["namespaceSelector"], own):
            return False
    elif not other.cluster:
        return False
    return "podSelector" not in one or selects(one["podSelector"], other.labels)
