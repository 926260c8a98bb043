"""What the image installs, as a CycloneDX bill of materials: `make sbom`. Read from what is installed here.

The package's own dependencies and those of the extra `cluster`, with all that these want, and nothing of development:
as the Dockerfile installs them, by the same pins. What Debian's packages bring is not in it, nor CUDA's libraries.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tomllib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from foretaste.ops.files import whole_file
from foretaste.ops.telemetry import say

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom

PACKAGE, EXTRA = "foretaste", "cluster"


@dataclass(frozen=True, slots=True)
class Part:
    """One distribution, and what it wants."""

    name: str
    version: str
    licence: str | None
    wants: tuple[str, ...]


def parts_of(project: Path, pins: Mapping[str, str], *, extra: str = EXTRA) -> dict[str, Part]:
    """The package of a pyproject.toml and everything that it and its `extra` want here, by canonical name.

    What is not installed is taken from `pins`, alone. Raises ValueError for what is neither.
    """
    said = tomllib.loads(project.read_text())["project"]
    asked = _needed([*said["dependencies"], *said["optional-dependencies"][extra]], ())
    own = Part(said["name"], said["version"], said.get("license"), tuple(sorted({one for one, _ in asked})))
    found: dict[str, Part] = {str(canonicalize_name(said["name"])): own}
    done: set[tuple[str, tuple[str, ...]]] = set()
    while asked:
        key, extras = asked.pop()
        if (key, extras) in done:
            continue
        done.add((key, extras))
        try:
            known = distribution(key)
        except PackageNotFoundError:
            if key not in pins:
                raise ValueError(f"{key} is neither installed nor pinned") from None
            found[key] = Part(key, pins[key], None, ())
            continue
        wants = _needed(known.requires or (), extras)
        names = {one for one, _ in wants} | set(found[key].wants if key in found else ())
        found[key] = Part(known.metadata["Name"], known.version, _licence(known), tuple(sorted(names)))
        asked += wants
    return found


def _needed(lines: Iterable[str], extras: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """What requirements ask for here: names, and the extras of each."""
    wanted = []
    for line in lines:
        one = Requirement(line)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            wanted.append((str(canonicalize_name(one.name)), tuple(sorted(one.extras))))
    return wanted


def _licence(known: Distribution) -> str | None:
    """An SPDX expression, or else the words of a short licence field or of the classifiers."""
    meta = known.metadata
    if said := _field(known, "License-Expression"):
        return said
    told = [one.rpartition(" :: ")[2] for one in meta.get_all("Classifier") or () if one.startswith("License ::")]
    short = _field(known, "License")
    return ", ".join(told) or (short if short and "\n" not in short and len(short) < 80 else None)


def _field(known: Distribution, name: str) -> str:
    return str(known.metadata[name]) if name in known.metadata else ""


def bill(parts: Mapping[str, Part], *, at: datetime) -> Bom:
    """The bill of what `parts_of` found of this package; the same parts and time give the same bytes."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    licences = LicenseFactory()

    def component(key: str, part: Part) -> Component:
        kind = ComponentType.APPLICATION if key == PACKAGE else ComponentType.LIBRARY
        purl = PackageURL("pypi", None, key, part.version)
        said = [] if part.licence is None else [licences.make_from_string(part.licence)]
        return Component(name=part.name, version=part.version, type=kind, purl=purl, bom_ref=str(purl), licenses=said)

    made = {key: component(key, part) for key, part in sorted(parts.items())}
    text = "\n".join(str(one.purl) for one in made.values())
    result = Bom(components=[one for key, one in made.items() if key != PACKAGE])
    result.serial_number = uuid.UUID(bytes=hashlib.blake2b(text.encode(), digest_size=16).digest(), version=4)
    result.metadata.timestamp = at
    result.metadata.component = made[PACKAGE]
    for key, part in parts.items():
        result.register_dependency(made[key], [made[one] for one in part.wants])
    return result


def written(result: Bom, path: Path) -> None:
    """Write a bill as JSON, whole. Raises ValueError where it is not what CycloneDX 1.6 says, strictly."""
    from cyclonedx.output.json import JsonV1Dot6
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = JsonV1Dot6(result).output_as_string(indent=2)
    if (wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        raise ValueError(f"{path}: not CycloneDX 1.6: {wrong}")
    with whole_file(path) as partial:
        partial.write_text(text)


def pins_of(path: Path) -> dict[str, str]:
    """Versions of a file of pins, by canonical name."""
    lines = [line.partition("==") for line in path.read_text().split()]
    return {str(canonicalize_name(name)): version for name, equals, version in lines if equals}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the bill of materials of what the image installs."""
    options = argparse.ArgumentParser(prog="foretaste.jobs.sbom", description=main.__doc__)
    options.add_argument("--out", type=Path, default=Path("dist/foretaste.cdx.json"), help="default %(default)s")
    options.add_argument("--project", type=Path, default=Path("pyproject.toml"), help="default %(default)s")
    options.add_argument("--pins", type=Path, default=Path("constraints.txt"), help="default %(default)s")
    asked = options.parse_args(arguments)
    parts = parts_of(asked.project, pins_of(asked.pins))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    written(bill(parts, at=datetime.now(UTC)), asked.out)
    silent = sorted(key for key, part in parts.items() if part.licence is None)
    say(f"{asked.out}: {len(parts)} components; {len(silent)} say no licence: {', '.join(silent) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
