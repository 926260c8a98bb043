"""What the doctor looks at on this machine: packages, workspace, disk, keys, ports."""

from __future__ import annotations

import os
import socket
import stat
import time
import uuid
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from foretaste.feedback.decision_log import free_bytes_of
from foretaste.jobs.doctor_findings import Finding, bad, good, skipped, warning
from foretaste.jobs.settings import Settings
from foretaste.ops.files import PARTIAL
from foretaste.serving.keys import KEYS_FILE, LOCAL_KEY_FILE, read_keys

PINS = "constraints.txt"
LEFT_SECONDS = 86_400.0
REACHED_SECONDS = 5.0


def packages(pins: Path | None) -> Iterator[Finding]:
    """Hold the installed packages against the ranges of the package, and against the pins where they are at hand."""
    wanted = [Requirement(line) for line in requires("foretaste") or ()]
    asked = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = []
    for one in asked:
        try:
            if not one.specifier.contains(version(one.name), prereleases=True):
                wrong.append(f"{one.name} {version(one.name)}, wanted {one.specifier}")
        except PackageNotFoundError:
            wrong.append(f"{one.name} is missing, wanted {one.specifier}")
    if wrong:
        yield bad("packages", "; ".join(wrong), f"pip install -c {PINS} foretaste")
    else:
        yield good("packages", f"foretaste {distribution('foretaste').version}; {len(asked)} requirements are met")
    if pins is None or not pins.is_file():
        yield skipped("pins", f"no {PINS} here: run it from a checkout to hold versions against the pins")
        return
    yield _pinned(pins)


def _pinned(pins: Path) -> Finding:
    other = []
    for line in pins.read_text().split():
        name, _, pinned = line.partition("==")
        try:
            if pinned and version(name).partition("+")[0] != pinned:  # a build for other hardware is the same version
                other.append(f"{name} {version(name)} instead of {pinned}")
        except PackageNotFoundError:  # of an extra, or of another platform
            continue
    if other:
        return warning("pins", f"{len(other)} differ: {', '.join(other[:5])}", f"pip install -c {PINS} -U foretaste")
    return good("pins", f"installed versions are those of {pins.name}")


def workspace(settings: Settings) -> Iterator[Finding]:
    """Whether the workspace is there, can be written, has room, and has nothing half-written of long ago."""
    root = settings.tables.root
    if not root.is_dir():
        yield bad(
            "workspace", f"{root} is not there", "foretaste import, prepare, features and train; or --workspace DIR"
        )
        return
    probe = root / f"{PARTIAL}doctor-{uuid.uuid4().hex}"
    try:
        probe.write_text("doctor")
        probe.unlink()
        yield good("workspace", f"{root} can be written")
    except OSError as error:
        yield bad(
            "workspace", f"{root} cannot be written: {error}", "give its owner's user to the process, or mend the disk"
        )
    free, least = free_bytes_of(root), settings.serving.decision_log.min_free_mb * 1e6
    room = f"{free / 1e9:.1f} GB are free"
    if free < least:
        yield bad("disk", f"{room}; below {least / 1e6:.0f} MB no list is given", "make room, or a larger disk")
    elif free < 10 * least:
        yield warning("disk", f"{room}; below {least / 1e6:.0f} MB no list is given", "make room soon")
    else:
        yield good("disk", room)
    old = [one for one in root.rglob(f"{PARTIAL}*") if time.time() - one.lstat().st_mtime > LEFT_SECONDS]
    if old:
        yield warning("half-written", f"{len(old)} left by jobs that were killed, e.g. {old[0]}", "remove them")
    else:
        yield good("half-written", "nothing is left of jobs that were killed")


def keys(settings: Settings) -> Iterator[Finding]:
    """Whether there are keys, and whether others may read what is secret."""
    folder = settings.tables.serving
    if not settings.serving.api_keys:
        yield warning("keys", "requests need no key", "serving.api_keys=true, unless a proxy in front asks for one")
        return
    found = read_keys(folder / KEYS_FILE).keys
    if not found:
        yield bad("keys", "there is no key: nobody can ask", "foretaste keys create --tenant NAME")
    else:
        yield good("keys", f"{len(found)} keys of {len({one.tenant for one in found})} tenants")
    for name in (KEYS_FILE, LOCAL_KEY_FILE):
        file = folder / name
        if not file.is_file():
            continue
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            yield bad("permissions", f"{file} has mode {mode:o}: others may read it", f"chmod 600 {file}")
        elif not os.access(file, os.R_OK):
            yield bad("permissions", f"{file} cannot be read by this user", "run as the user of the service")
        else:
            yield good("permissions", f"{name} has mode {mode:o}")


def port(settings: Settings, *, answers: bool) -> Iterator[Finding]:
    """Whether the service could listen where it is to, unless it `answers` there already."""
    host, number = settings.serving.host, settings.serving.port
    if answers:
        yield good("port", f"the service answers on {number}")
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            yield bad("port", f"{host}:{number}: {error.strerror}", "end what listens there, or set serving.port")
        else:
            yield good("port", f"{host}:{number} is free")


def cluster(settings: Settings) -> Iterator[Finding]:
    """Whether the Ray to join can be reached, where one is named."""
    address = settings.cluster.address or os.environ.get("RAY_ADDRESS")
    host, colon, number = (address or "").partition("://")[2 if "://" in (address or "") else 0].rpartition(":")
    if not colon or not number.isdigit():
        yield skipped("cluster", f"no address of a Ray to join ({address or 'a local one is started'})")
        return
    try:
        begun = time.perf_counter()
        with socket.create_connection((host, int(number)), timeout=REACHED_SECONDS):
            ms = (time.perf_counter() - begun) * 1e3
    except OSError as error:
        yield bad("cluster", f"{address}: {error}", "start it, or mend address and network policy")
    else:
        yield good("cluster", f"{address} takes connections, {ms:.1f} ms")
