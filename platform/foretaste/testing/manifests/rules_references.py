"""Every selector and reference leads somewhere, with the labels that pods really carry."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from foretaste.testing.manifests.objects import Manifests, called, parse_one
from foretaste.testing.manifests.pods import Expanded, mounted, pods, variables

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NAMES = re.compile(r"\$[{(]\w+[})]")
_URL = re.compile(r"[a-z0-9+]+://[^\s\"']+")
_DERIVED = {"foretaste-serve-svc": {8000}, "foretaste-head-svc": {6379, 8265, 10001, 8080}}
"""Services that the operator makes of the RayService: name to ports."""
ENCRYPTED = ("staging", "prod")
"""Environments in which nothing goes to a Redis in the clear."""
CA_OF_RAY = "RAY_REDIS_CA_CERT"


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector chooses these labels; an empty one chooses all, none chooses nothing."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for rule in selector.get("matchExpressions") or ():
        there, values = labels.get(rule["key"]), rule.get("values") or ()
        held = {
            "In": there in values,
            "NotIn": there not in values,
            "Exists": there is not None,
            "DoesNotExist": there is None,
        }
        if not held.get(rule["operator"], False):
            return False
    return True


def references(manifests: Manifests) -> Iterator[str]:
    """All that one object says of another."""
    every = pods(manifests)
    for pod in every:
        yield from (f"{pod.where}: {said}" for said in _of_pod(pod, manifests))
    yield from _services(manifests, every)
    yield from _choosers(manifests, every)
    yield from _ingresses(manifests)
    yield from _roles(manifests)
    for where, _, cluster in manifests.clusters():
        name = (cluster.get("authOptions") or {}).get("secretName")
        yield from (f"{where}: {said}" for said in _secret(manifests, name, "auth_token"))
        password = ((cluster.get("gcsFaultToleranceOptions") or {}).get("redisPassword") or {}).get("valueFrom") or {}
        if ref := password.get("secretKeyRef"):
            yield from (f"{where}: {said}" for said in _secret(manifests, ref["name"], ref["key"]))
    yield from _addresses(manifests)
    namespaces = {one["metadata"].get("namespace") for one in manifests.objects if one["kind"] != "Namespace"}
    wanted = parse_one((manifests.deployment / "deployment.yaml").read_text())["namespace"]
    if namespaces != {wanted} or [one["metadata"]["name"] for one in manifests.of("Namespace")] != [wanted]:
        yield f"namespaces are {sorted(map(str, namespaces))}, deployment.yaml says {wanted}"


def variables_of(value: Any) -> set[str]:
    """Names of the `${NAME}` in a tree of values."""
    return {name for text in _texts(value) for name in _VARIABLE.findall(text)}


def paths_of(value: Any) -> set[str]:
    """Files that URLs in a tree of values name in their query, such as ssl_ca_certs."""
    queries = [urlsplit(url).query for text in _texts(value) for url in _URL.findall(text)]
    return {said for query in queries for _, said in parse_qsl(query) if said.startswith("/")}


def _trusted(url: str) -> Iterator[str]:
    """Whether a client of ours holds the server to who signed it."""
    parts = urlsplit(_NAMES.sub("x", url))
    said = dict(parse_qsl(parts.query))
    if parts.scheme != "rediss":
        return
    if not said.get("ssl_ca_certs", "").startswith("/"):
        yield f"rediss://{parts.hostname}: wanted ?ssl_ca_certs=/path/of/ca.crt"
    if said.get("ssl_cert_reqs", "required") != "required" or said.get("ssl_check_hostname", "true").lower() != "true":
        yield f"rediss://{parts.hostname}: any server would be believed"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _names(manifests: Manifests, kind: str) -> set[str]:
    return {one["metadata"]["name"] for one in manifests.of(kind)}


def _of_pod(pod: Expanded, manifests: Manifests) -> Iterator[str]:
    account = pod.spec.get("serviceAccountName")
    if account and account not in _names(manifests, "ServiceAccount"):
        yield f"ServiceAccount/{account} is not there"
    volumes = {one["name"] for one in pod.spec.get("volumes") or ()}
    claims = manifests.of("StatefulSet")
    own = [one for one in claims if called(one) == pod.where]
    volumes |= {claim["metadata"]["name"] for one in own for claim in one["spec"].get("volumeClaimTemplates") or ()}
    for container in pod.containers:
        yield from (f"{container['name']}: {said}" for said in _of_container(container, manifests))
        mounts = container.get("volumeMounts") or ()
        yield from (f"{container['name']}: volume {m['name']} is not there" for m in mounts if m["name"] not in volumes)
        places = [m["mountPath"].rstrip("/") for m in mounts]
        nested = [p for p in places for q in places if p != q and p.startswith(q + "/")]
        yield from (f"{container['name']}: {p} is mounted inside another mount" for p in nested)
    for volume in pod.spec.get("volumes") or ():
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim is not None and claim not in _names(manifests, "PersistentVolumeClaim"):
            yield f"PersistentVolumeClaim/{claim} is not there"
        if (config := volume.get("configMap")) and config["name"] not in _names(manifests, "ConfigMap"):
            yield f"ConfigMap/{config['name']} is not there"
        if secret := volume.get("secret"):
            keys = [item["key"] for item in secret.get("items") or ()] or [None]
            for key in keys:
                yield from _secret(manifests, secret["secretName"], key)


def _of_container(container: dict[str, Any], manifests: Manifests) -> Iterator[str]:
    for source in container.get("envFrom") or ():
        if (config := source.get("configMapRef")) and config["name"] not in _names(manifests, "ConfigMap"):
            yield f"ConfigMap/{config['name']} is not there"
        if secret := source.get("secretRef"):
            yield from _secret(manifests, secret["name"], None)
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        if ref := source.get("secretKeyRef"):
            yield from _secret(manifests, ref["name"], ref["key"])
        if ref := source.get("configMapKeyRef"):
            found = [one for one in manifests.of("ConfigMap") if one["metadata"]["name"] == ref["name"]]
            if not found or ref["key"] not in (found[0].get("data") or {}):
                yield f"ConfigMap/{ref['name']} has no {ref['key']}"
    ports = {port.get("name") for port in container.get("ports") or ()}
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        for how in ("tcpSocket", "httpGet"):
            port = ((container.get(probe) or {}).get(how) or {}).get("port")
            if isinstance(port, str) and port not in ports:
                yield f"{probe} asks port {port}, which is not there"


def _secret(manifests: Manifests, name: Any, key: str | None) -> Iterator[str]:
    if name not in manifests.secrets:
        yield f"Secret/{name} is not among those of k8s/secrets.yaml"
    elif key is not None and key not in manifests.secrets[name]:
        yield f"Secret/{name} has no key {key} in k8s/secrets.yaml"


def _services(manifests: Manifests, every: list[Expanded]) -> Iterator[str]:
    for one in manifests.of("Service"):
        chosen = [pod for pod in every if selects({"matchLabels": one["spec"].get("selector") or {}}, pod.labels)]
        if not one["spec"].get("selector") or not chosen:
            yield f"{called(one)}: selects no pod"
        for pod in chosen:
            ports = [p for c in pod.containers for p in c.get("ports") or ()]
            open_ports = {p.get("name") for p in ports} | {p.get("containerPort") for p in ports}
            for port in one["spec"].get("ports") or ():
                if port.get("targetPort", port["port"]) not in open_ports:
                    yield f"{called(one)}: {pod.where} has no port {port.get('targetPort', port['port'])}"
    for one in manifests.of("StatefulSet"):
        if one["spec"].get("serviceName") not in _names(manifests, "Service"):
            yield f"{called(one)}: Service/{one['spec'].get('serviceName')} is not there"
    for one in manifests.of("StatefulSet", "Deployment"):
        labels = (one["spec"]["template"].get("metadata") or {}).get("labels") or {}
        if not selects(one["spec"].get("selector"), labels):
            yield f"{called(one)}: does not select its own pods"
        for container in one["spec"]["template"]["spec"].get("containers") or ():
            for probe in ("livenessProbe", "readinessProbe"):
                if probe not in container:
                    yield f"{called(one)} {container['name']}: wanted a {probe}"


def _choosers(manifests: Manifests, every: list[Expanded]) -> Iterator[str]:
    for one in manifests.of("PodDisruptionBudget"):
        if not any(selects(one["spec"].get("selector"), pod.labels) for pod in every):
            yield f"{called(one)}: selects no pod"
    for one in manifests.of("NetworkPolicy"):
        if not any(selects(one["spec"].get("podSelector"), pod.labels) for pod in every):
            yield f"{called(one)}: selects no pod"
    for pod in every:
        for rule in pod.spec.get("topologySpreadConstraints") or ():
            if not selects(rule.get("labelSelector"), pod.labels):
                yield f"{pod.where}: a topologySpreadConstraint does not select its own pod"
    for one in manifests.of("PodMonitor"):
        chosen = [pod for pod in every if selects(one["spec"].get("selector"), pod.labels)]
        for endpoint in one["spec"].get("podMetricsEndpoints") or ():
            names = {p.get("name") for pod in chosen for c in pod.containers for p in c.get("ports") or ()}
            if endpoint.get("port") not in names:
                yield f"{called(one)}: no pod that it selects has a port {endpoint.get('port')}"


def _ingresses(manifests: Manifests) -> Iterator[str]:
    own = {one["metadata"]["name"]: {p["port"] for p in one["spec"]["ports"]} for one in manifests.of("Service")}
    for one in manifests.of("Ingress"):
        for tls in one["spec"].get("tls") or ():
            yield from (f"{called(one)}: {said}" for said in _secret(manifests, tls.get("secretName"), "tls.crt"))
        if not one["spec"].get("tls"):
            yield f"{called(one)}: wanted tls: keys travel in headers"
        for rule in one["spec"].get("rules") or ():
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                if backend["port"].get("number") not in (own | _DERIVED).get(backend["name"], ()):
                    yield f"{called(one)}: Service/{backend['name']} has no port {backend['port']}"
                if path["path"] in ("/", "/metrics", "/docs"):
                    yield f"{called(one)}: {path['path']} would show /metrics and the documentation to everybody"


def _roles(manifests: Manifests) -> Iterator[str]:
    for one in manifests.of("RoleBinding"):
        if one["roleRef"]["name"] not in _names(manifests, one["roleRef"]["kind"]):
            yield f"{called(one)}: {one['roleRef']['kind']}/{one['roleRef']['name']} is not there"
    for one in manifests.of("Role"):
        for rule in one.get("rules") or ():
            if {"*"} & {*rule.get("verbs", ()), *rule.get("resources", ()), *rule.get("apiGroups", ())}:
                yield f"{called(one)}: a star gives rights that nobody thought of"
            if "secrets" in rule.get("resources", ()):
                yield f"{called(one)}: may read Secrets"


def _addresses(manifests: Manifests) -> Iterator[str]:
    """Addresses in settings and in the environment lead to services that are there, in the way that they speak."""
    settings = parse_one((manifests.deployment / "generated" / "foretaste.yaml").read_text())
    own = {one["metadata"]["name"]: {p["port"] for p in one["spec"]["ports"]} for one in manifests.of("Service")}
    spoken = [("settings", text) for text in _texts(settings)]
    spoken += [(called(one), one["spec"].get("serveConfigV2", "")) for one in manifests.of("RayService")]
    for where, text in spoken:
        yield from (f"{where}: {said}" for url in _URL.findall(text) for said in _trusted(url))
    for where, one, cluster in manifests.clusters():
        address = str((cluster.get("gcsFaultToleranceOptions") or {}).get("redisAddress", ""))
        spoken.append((where, address))
        if address.startswith("rediss:"):
            yield from _of_head(where, one, manifests)
    for pod in pods(manifests):
        spoken += [(pod.where, str(v.get("value") or "")) for c in pod.containers for v in c.get("env") or ()]
    for where, text in spoken:
        for url in _URL.findall(text):
            yield from (f"{where}: {said}" for said in _address(url, own, manifests))
    jobs = [pod for pod in pods(manifests) if (pod.ray and pod.owner != "RayService") or pod.owner == "CronJob"]
    for pod in jobs:
        for name in variables_of(settings) - variables(pod):
            yield f"{pod.where}: settings want ${{{name}}}, which is not set"
        for path in (*paths_of(settings), str(settings["workspace"])):
            if not mounted(pod, path):
                yield f"{pod.where}: settings want {path}, which is not mounted"


def _of_head(where: str, one: Mapping[str, Any], manifests: Manifests) -> Iterator[str]:
    """Whether the heads of an object's cluster know who signed the certificate of their Redis."""
    for pod in (pod for pod in pods(manifests) if pod.role == "head" and pod.where.startswith(called(dict(one)))):
        told = {v["name"]: str(v.get("value", "")) for v in pod.spec["containers"][0].get("env") or ()}
        if not mounted(pod, told.get(CA_OF_RAY) or "nowhere"):
            yield f"{where} head: rediss wants {CA_OF_RAY} with a file that is mounted"


def _address(url: str, own: Mapping[str, set[int]], manifests: Manifests) -> Iterator[str]:
    parts = urlsplit(_NAMES.sub("x", url))
    host = parts.hostname or ""
    if "." in host or parts.scheme in ("s3", "gs", "file"):
        return
    default = {"redis": 6379, "rediss": 6379, "http": 80, "https": 443}.get(parts.scheme)
    if (parts.port or default) not in own.get(host, ()):
        yield f"{parts.scheme}://{host}:{parts.port or default}: no Service of this name and port"
    elif parts.scheme in ("redis", "rediss"):
        encrypted = any(
            "--tls-port" in str(v.get("value") or "")
            for one in manifests.of("StatefulSet")
            if one["metadata"]["name"] == host
            for v in one["spec"]["template"]["spec"]["containers"][0].get("env") or ()
        )
        if encrypted != (parts.scheme == "rediss"):
            yield f"{parts.scheme}://{host}: the server speaks {'TLS' if encrypted else 'no TLS'}"
        if not encrypted and manifests.environment in ENCRYPTED:
            yield f"{parts.scheme}://{host}: in {manifests.environment} wanted TLS to every Redis"
