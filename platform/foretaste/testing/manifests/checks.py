"""All checks by name. A finding is a sentence that says where, what was wanted and what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from foretaste.testing.manifests import schemas
from foretaste.testing.manifests.objects import Manifests
from foretaste.testing.manifests.rules_cluster import gates, head, names, service, sizes, versions
from foretaste.testing.manifests.rules_jobs import jobs
from foretaste.testing.manifests.rules_network import network
from foretaste.testing.manifests.rules_pods import restricted, secrets
from foretaste.testing.manifests.rules_references import references
from foretaste.testing.manifests.rules_serve import application

Check = Callable[[Manifests], Iterator[str]]

KUBERAY = "kuberay-schema"
CHECKS: dict[str, Check] = {
    "kubernetes-schema": schemas.kubernetes,
    "names": names,
    "gates": gates,
    "versions": versions,
    "head": head,
    "sizes": sizes,
    "application": application,
    "service": service,
    "jobs": jobs,
    "secrets": secrets,
    "pod-security": restricted,
    "network": network,
    "references": references,
}


def findings(manifests: Manifests, name: str, *, schemas_folder: Path | None = None) -> list[str]:
    """What one check says; KUBERAY needs the folder of its schemas. Raises KeyError for a name that is none."""
    if name == KUBERAY:
        if schemas_folder is None:
            raise ValueError("KubeRay's schemas: wanted their folder")
        return list(schemas.ray(manifests, schemas_folder))
    return list(CHECKS[name](manifests))
