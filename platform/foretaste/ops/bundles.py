"""Model bundles: a folder with weights, configuration and vocabulary, filed under a version, found by name.

    registry/
      intent/
        20260102T030405-1f2e3d4c5b6a/   manifest.json  weights.safetensors  ...
        current.json                     {"version": "..."}

A bundle is written whole or not at all; `current.json` moves by one rename.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from foretaste.ops.files import PARTIAL, read_json, whole_folder, write_json

MANIFEST = "manifest.json"
CURRENT = "current.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A filed model: where it lies and what its manifest says."""

    name: str
    version: str
    path: Path
    manifest: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Digest of every file but the manifest: two bundles with one fingerprint answer alike."""
        return str(self.manifest["fingerprint"])


def digest(folder: Path) -> str:
    """Fingerprint of the files of a bundle, but its manifest."""
    found = hashlib.blake2b(digest_size=6)
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        found.update(str(file.relative_to(folder)).encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                found.update(block)
    return found.hexdigest()


@contextlib.contextmanager
def file_bundle(
    registry: Path, name: str, *, at: datetime, about: dict[str, Any], current: bool = True
) -> Iterator[Path]:
    """Give a folder to fill; on success it is filed under a new version and, unless not `current`, the current one.

    `about` goes into the manifest: configuration fingerprint, data lineage, metrics.
    """
    holding = registry / name / f"{PARTIAL}{at:%Y%m%dT%H%M%S%f}"
    with whole_folder(holding) as folder:
        yield folder
        fingerprint = digest(folder)
        version = f"{at:%Y%m%dT%H%M%S}-{fingerprint}"
        manifest = {
            "name": name,
            "version": version,
            "created_at": at.isoformat(),
            "fingerprint": fingerprint,
        }
        write_json(manifest | {"about": about}, folder / MANIFEST)
    target = registry / name / version
    if not target.exists():
        holding.replace(target)
    if current:
        promote(registry, name, version)


def promote(registry: Path, name: str, version: str) -> None:
    """Make a filed version the current one. Raises FileNotFoundError when it is not filed."""
    if not (registry / name / version / MANIFEST).is_file():
        raise FileNotFoundError(f"no bundle {name} {version} in {registry}; there are {versions(registry, name)}")
    write_json({"version": version}, registry / name / CURRENT)


def versions(registry: Path, name: str) -> list[str]:
    """Versions of a model, oldest first."""
    return sorted(p.parent.name for p in (registry / name).glob(f"*/{MANIFEST}") if PARTIAL not in p.parent.name)


def fetch_bundle(registry: Path, name: str, version: str | None = None) -> Bundle:
    """Find a bundle, by default the current one, and check it against its fingerprint.

    Raises FileNotFoundError when there is none, ValueError when its files are not those that were filed.
    """
    if version is None:
        pointer = registry / name / CURRENT
        if not pointer.is_file():
            raise FileNotFoundError(f"no model {name!r} in {registry}: train one first")
        version = str(read_json(pointer)["version"])
    path = registry / name / version
    if not (path / MANIFEST).is_file():
        raise FileNotFoundError(f"no bundle {name} {version} in {registry}; there are {versions(registry, name)}")
    manifest = read_json(path / MANIFEST)
    found = digest(path)
    if found != manifest["fingerprint"]:
        raise ValueError(f"bundle {name} {version}: files have fingerprint {found}, filed {manifest['fingerprint']}")
    return Bundle(name, version, path, manifest)


def find_bundle(registry: Path, name: str, fingerprint: str) -> Bundle:
    """Find a bundle by its fingerprint, also one that is no longer current; raises as `fetch_bundle`."""
    found = [version for version in versions(registry, name) if version.endswith(f"-{fingerprint}")]
    if not found:
        raise FileNotFoundError(f"no bundle {name} of fingerprint {fingerprint} in {registry}")
    return fetch_bundle(registry, name, found[-1])
