"""What pods are given that no manifest holds: Secrets, folders for claims, a machine to run on."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from foretaste.cli import parser
from foretaste.testing.boot.booted import Booted, Secrets, certificates
from foretaste.testing.boot.machine import Machine
from foretaste.testing.manifests.objects import Manifests, opened
from foretaste.testing.manifests.render import kubectl, rendered

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def overlay() -> Callable[[str], Manifests]:
    """The objects of an overlay, by name."""

    def found(name: str) -> Manifests:
        text = rendered(ROOT / "k8s/overlays" / name, kubectl())
        return opened(text, environment=name, root=ROOT, command_line=parser)

    return cache(found)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A folder whose name is short, as sockets want it."""
    folder = Path(tempfile.mkdtemp(prefix="boot-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def workspace(scratch: Path) -> Path:
    """What the claim foretaste-workspace is."""
    (scratch / "workspace").mkdir()
    return scratch / "workspace"


@pytest.fixture(scope="module")
def secrets(scratch: Path) -> Secrets:
    """Secrets of k8s/secrets.yaml that the booted pods refer to."""
    return {
        "foretaste-ray-token": {"auth_token": "0123456789abcdef" * 4},
        "foretaste-redis": {"password": "of-the-session-log"},
        "foretaste-gcs-redis": {"password": "of-the-head"},
        "foretaste-object-store": {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"},
        "foretaste-registry": {"password": "oftheregistry"},
        "foretaste-redis-tls": certificates(scratch / "certificates", "foretaste-redis"),
        "foretaste-gcs-redis-tls": certificates(scratch / "certificates-of-the-head", "foretaste-gcs-redis"),
    }


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine of its own for each module; it ends with all that runs on it."""
    if missing := [name for name in ("curl", "openssl", "redis-server", "wget") if shutil.which(name) is None]:
        pytest.skip(f"what pods run is not installed: {', '.join(missing)}; `make servers` installs Debian's")
    try:
        started = Machine().__enter__()
    except (FileNotFoundError, PermissionError) as why:
        pytest.skip(f"pods want namespaces of the kernel and iproute2: {why}")
    yield started
    started.__exit__(None, None, None)


@pytest.fixture(scope="module")
def boot(
    machine: Machine, workspace: Path, secrets: Secrets, scratch: Path, overlay: Callable[[str], Manifests]
) -> Callable[[str], Booted]:
    """An overlay to be booted, nothing of which runs yet."""

    def booted(name: str) -> Booted:
        claims = {"foretaste-workspace": workspace}
        return Booted(machine, overlay(name), secrets=secrets, claims=claims, scratch=scratch / name)

    return booted
