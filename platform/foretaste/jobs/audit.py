"""Ask an advisory service about every pinned package: `make audit`. What could not be asked is never a pass.

pip-audit ends with 0 and «No known vulnerabilities found» where its service knows none of the packages, as a mirror of
PyPI without advisories does. So one old release with known faults is asked about, too: a service that does not know
them was not asked.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name

from foretaste.ops.telemetry import say

CLEAN, FOUND, WRONG_CALL, NOT_ASKED = 0, 1, 2, 3
"""Exit codes: nothing is known; something is; the call was wrong; nobody answered who would know."""
KNOWN_BAD = ("django", "2.0")
"""A release with advisories that every service has, of a package that we do not use."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """An advisory that is lived with for a while."""

    id: str
    why: str
    until: date


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an audit says."""

    code: int
    lines: tuple[str, ...]


def audit(pins: Path, accepted: Sequence[Accepted], *, today: date, service: Sequence[str] = ()) -> Verdict:
    """Ask about every line of `pins`; `service` are more flags of pip-audit. Raises ValueError for what is no pin."""
    lines = [line for line in pins.read_text().split() if line]
    names = [line.partition("==") for line in lines]
    if bad := [line for line, (_, equals, version) in zip(lines, names, strict=True) if not equals or not version]:
        raise ValueError(f"{pins}: wanted NAME==VERSION on every line, found {bad[0]!r}")
    if KNOWN_BAD[0] in {canonicalize_name(name) for name, _, _ in names}:
        raise ValueError(f"{pins}: {KNOWN_BAD[0]} is used now; the audit needs another release that is known to be bad")
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        asked = Path(folder) / "asked.txt"
        asked.write_text("\n".join([*lines, "==".join(KNOWN_BAD)]) + "\n")
        flags = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off", *service]
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(asked), *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        told = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        return Verdict(NOT_ASKED, (f"no answer from the advisory service: {last}",))
    return judged(told, len(lines), accepted, today=today)


def judged(told: Sequence[Mapping[str, Any]], num: int, accepted: Sequence[Accepted], *, today: date) -> Verdict:
    """Judge what pip-audit says of `num` pins and of the release that is known to be bad."""
    known: dict[str, Mapping[str, Any]] = {str(canonicalize_name(one["name"])): one for one in told}
    canary = known.pop(KNOWN_BAD[0], {})
    if not canary.get("vulns"):
        reason = canary.get("skip_reason", "it names no advisory of it")
        release = " ".join(KNOWN_BAD)
        return Verdict(NOT_ASKED, (f"the service does not know that {release} is bad: {reason}",))
    skipped = [str(one["skip_reason"]) for one in known.values() if "skip_reason" in one]
    lived_with = {one.id: one for one in accepted if one.until >= today}
    found: list[str] = []
    quiet: list[str] = []
    for name, one in sorted(known.items()):
        for fault in one.get("vulns", ()):
            ids = {str(fault["id"]), *map(str, fault.get("aliases", ()))}
            mended = ", ".join(fault.get("fix_versions", ())) or "no release yet"
            line = f"{name} {one['version']}: {', '.join(sorted(ids))}; mended in {mended}"
            near = next((lived_with[each] for each in ids if each in lived_with), None)
            (found if near is None else quiet).append(
                line if near is None else f"{line}; until {near.until}: {near.why}"
            )
    lines = [*found, *(f"accepted: {line}" for line in quiet), *(f"not judged: {line}" for line in skipped)]
    if len(known) != num and not skipped:
        lines.append(f"not judged: {num - len(known)} of {num} pins are not in the answer")
    code = FOUND if found else NOT_ASKED if skipped or len(known) != num else CLEAN
    return Verdict(code, (*lines, f"{num} pins, {len(found)} advisories, {len(quiet)} accepted"))


def accepted_of(path: Path) -> list[Accepted]:
    """Advisories that are lived with, of a file. Raises ValueError where one does not say why and until when."""
    rows = (yaml.safe_load(path.read_text()) or {}).get("accepted") or []
    for row in rows:
        if set(row) != {"id", "why", "until"} or not row["why"] or not isinstance(row["until"], date):
            raise ValueError(f"{path}: wanted id, why and until (a date) of each, found {row}")
    return [Accepted(**row) for row in rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit; 0 nothing known, 1 advisories, 2 a wrong call, 3 nobody answered who would know."""
    options = argparse.ArgumentParser(prog="foretaste.jobs.audit", description=main.__doc__)
    options.add_argument("pins", nargs="?", type=Path, default=Path("constraints.txt"), help="default %(default)s")
    options.add_argument("--accepted", type=Path, default=Path("deployments/image/advisories.yaml"), help="lived with")
    options.add_argument("--service", choices=("pypi", "osv"), default="pypi", help="whose advisories; default pypi")
    options.add_argument("--osv-url", help="another address of OSV, for a mirror")
    asked = options.parse_args(arguments)
    flags = ["--vulnerability-service", asked.service, *(["--osv-url", asked.osv_url] if asked.osv_url else [])]
    try:
        verdict = audit(asked.pins, accepted_of(asked.accepted), today=datetime.now(UTC).date(), service=flags)
    except (ValueError, FileNotFoundError) as error:
        print(f"audit: {error}", file=sys.stderr)
        return WRONG_CALL
    for line in verdict.lines:
        say(line)
    if verdict.code == NOT_ASKED:
        print("audit: NOT ASKED: this is no pass; see above, or --service osv", file=sys.stderr)
    return verdict.code


if __name__ == "__main__":
    sys.exit(main())
