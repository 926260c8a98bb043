"""Restricted Pod Security for every container, and no secret where one can read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from foretaste.testing.manifests.objects import Manifests, called
from foretaste.testing.manifests.pods import Expanded, pods

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
"""Kinds of volume that the restricted profile lets in."""
_SECRET_NAME = re.compile(r"PASSWORD|TOKEN|SECRET|ACCESS_KEY|_AUTH$", re.IGNORECASE)
_LITERAL = re.compile(r"://[^/\s:@]*:(?!\$[{(])[^/\s@]+@")
_PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|AKIA[0-9A-Z]{16}")
_SECRET_KEY = re.compile(r"(^|[_.-])(password|passwd|token|secret|api_?key|access_?key|private_?key)$", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_REFERENCE = re.compile(r"\$[{(][A-Za-z_]\w*[)}]")
_SAID = re.compile(r"^\s*(?:- )?[\"']?([\w.-]+)[\"']?[ \t]*[:=][ \t]*[\"']?([^\s\"'#{\[]+)", re.MULTILINE)
_FLAG = re.compile(r"--?(?:requirepass|masterauth|redis-password|password|token)[ =]+(?![%$])[^\s\"']+")


def restricted(manifests: Manifests) -> Iterator[str]:
    """What the restricted profile refuses, in every container of every pod that will be."""
    for one in manifests.of("Namespace"):
        labels = one["metadata"].get("labels") or {}
        if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{called(one)}: wanted the label pod-security.kubernetes.io/enforce: restricted"
    if not manifests.of("Namespace"):
        yield "no Namespace: nothing enforces the restricted profile"
    for pod in pods(manifests):
        yield from (f"{pod.where}: {said}" for said in _pod(pod))
        for container in pod.containers:
            yield from (f"{pod.where} {container.get('name')}: {said}" for said in _container(container, pod))


def _pod(pod: Expanded) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(key):
            yield f"{key} is not restricted"
    for volume in pod.spec.get("volumes") or ():
        for kind in volume.keys() - VOLUMES - {"name"}:
            yield f"volume {volume['name']}: {kind} is not restricted"
    if not pod.spec.get("serviceAccountName"):
        yield "wanted a serviceAccountName of its own"
    if pod.role not in ("head",) and pod.spec.get("automountServiceAccountToken") is not False:
        yield "wanted automountServiceAccountToken: false"


def _container(container: dict[str, Any], pod: Expanded) -> Iterator[str]:
    own, of_pod = container.get("securityContext") or {}, pod.spec.get("securityContext") or {}
    if own.get("allowPrivilegeEscalation") is not False:
        yield "wanted allowPrivilegeEscalation: false"
    if own.get("privileged"):
        yield "privileged is not restricted"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()) or set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
        yield "wanted capabilities to drop ALL and add none"
    if own.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True:
        yield "wanted runAsNonRoot: true"
    if 0 in (own.get("runAsUser"), of_pod.get("runAsUser")):
        yield "runs as root"
    profile = (own.get("seccompProfile") or of_pod.get("seccompProfile") or {}).get("type")
    if profile not in ("RuntimeDefault", "Localhost"):
        yield "wanted seccompProfile RuntimeDefault"
    if any("hostPort" in port for port in container.get("ports") or ()):
        yield "hostPort is not restricted"


def secrets(manifests: Manifests) -> Iterator[str]:
    """Tokens asked for everywhere, and made outside; nothing secret in any object."""
    for one in manifests.of("Secret"):
        yield f"{called(one)}: a Secret is made outside, never in git"
    for where, _, cluster in manifests.clusters():
        options = cluster.get("authOptions") or {}
        if options.get("mode") != "token" or not options.get("secretName"):
            yield f"{where}: wanted authOptions with mode token and a secretName"
    for pod in pods(manifests):
        for container in pod.containers:
            for variable in container.get("env") or ():
                value = str(variable.get("value") or "")
                if _SECRET_NAME.search(variable["name"]) and value:
                    yield f"{pod.where} {container['name']}: {variable['name']} stands in the open"
                if variable["name"] == "RAY_AUTH_MODE":
                    yield f"{pod.where} {container['name']}: RAY_AUTH_MODE is set by the operator, from authOptions"
            if "REDIS_PASSWORD" in {v["name"] for v in container.get("env") or ()} and pod.ray:
                yield f"{pod.where}: REDIS_PASSWORD is set by the operator, from gcsFaultToleranceOptions"
    for one in manifests.objects:
        yield from (f"{called(one)}: {said}" for said in literals(one))


def literals(value: Any) -> Iterator[str]:
    """Secrets that stand in a tree of values: keys that say so with a text, addresses and flags with a password, keys.

    What stands for one (`${NAME}`, `$(NAME)`) is none, nor is a reference to a Secret, which is no text. Texts that are
    files (settings, environments) are looked through line by line.
    """
    if isinstance(value, dict):
        for key, one in value.items():
            if isinstance(one, str) and _named(str(key)) and _told(one):
                yield f"{key} stands in the open"
            yield from literals(one)
    elif isinstance(value, list):
        for one in value:
            yield from literals(one)
    elif isinstance(value, str):
        if _LITERAL.search(value) or _PRIVATE.search(value) or _FLAG.search(value):
            yield "holds a password or a key in the open"
        if "\n" in value:
            yield from (f"{k} stands in the open" for k, said in _SAID.findall(value) if _named(k) and _told(said))


def _named(key: str) -> bool:
    return _SECRET_KEY.search(_CAMEL.sub("_", key)) is not None


def _told(said: str) -> bool:
    return bool(said) and said.lower() not in ("null", "true", "false") and not _REFERENCE.fullmatch(said)
