"""What overlays render to, once a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from foretaste.cli import parser
from foretaste.testing.manifests.objects import Manifests, opened
from foretaste.testing.manifests.render import kubectl, rendered

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def overlay() -> Callable[[str], Manifests]:
    """The objects of an overlay, by name."""

    def found(name: str) -> Manifests:
        text = rendered(ROOT / "k8s/overlays" / name, kubectl())
        return opened(text, environment=name, root=ROOT, command_line=parser)

    return cache(found)


@pytest.fixture(scope="session")
def kuberay() -> Path:
    """The folder of KubeRay's schemas; where shared files are there at all they have to be there, too."""
    said = os.environ.get("KUBERAY_CRD_DIR")
    folder = Path(said) if said else SHARED / "kuberay-crds" / "v1.7.0"
    if not said and not SHARED.is_dir():
        pytest.skip("KubeRay's schemas are not there: set KUBERAY_CRD_DIR to a folder of ray.io_*.json.gz")
    assert len(list(folder.glob("ray.io_*.json.gz"))) == 4, f"{folder}: wanted KubeRay's four schemas"
    return folder
