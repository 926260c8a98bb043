"""Releases: sets of filed models that answer together, and which of them answers now.

    registry/
      releases/
        20260102T030405-9a8b7c6d5e4f.json   {"release", "created_at", "models": {"intent": VERSION, ...}, "about"}
        rollout.json                        {"current", "history": [{"at", "release", "why"}, ...]}

A ranker belongs to the intent model that it was trained with; pointers of their own could not be moved at once. What
is rolled out is one file that is replaced whole; processes that change it take turns.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from foretaste.ops.bundles import fetch_bundle
from foretaste.ops.files import read_json, write_json

FOLDER = "releases"
ROLLOUT = "rollout.json"
LOCK = ".rollout.lock"
PROMOTED, ROLLED_BACK = "promoted", "rolled back"


@dataclass(frozen=True, slots=True)
class Release:
    """Versions of models that belong together."""

    name: str
    created_at: str
    models: Mapping[str, str]  # version of each bundle by its name
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rollout:
    """Which release answers, and how it came to that, oldest first."""

    current: str
    history: tuple[Mapping[str, str], ...]

    @property
    def previous(self) -> str | None:
        """What a rollback goes back to: what answered before the current one was promoted; None at the beginning."""
        stack: list[str] = []
        for step in self.history:
            if step["why"] == ROLLED_BACK:
                stack.pop()
            elif not stack or stack[-1] != step["release"]:
                stack.append(step["release"])
        return stack[-2] if len(stack) > 1 else None


def file_release(registry: Path, models: Mapping[str, str], *, at: datetime, about: Mapping[str, Any]) -> Release:
    """File a release; it is not rolled out by that. The same models again are the same release.

    Raises FileNotFoundError for a version that is not filed, ValueError where a bundle's files are not as filed.
    """
    for name, version in models.items():
        fetch_bundle(registry, name, version)
    digest = hashlib.blake2b(json.dumps(dict(models), sort_keys=True).encode(), digest_size=6).hexdigest()
    for known in releases(registry):
        if known.name.endswith(f"-{digest}"):
            return known
    name = f"{at:%Y%m%dT%H%M%S}-{digest}"
    made = Release(name, at.isoformat(), dict(models), dict(about))
    folder = registry / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    body = {"release": name, "created_at": made.created_at, "models": dict(models), "about": dict(about)}
    write_json(body, folder / f"{name}.json")
    return made


def releases(registry: Path) -> list[Release]:
    """All releases, oldest first."""
    files = sorted((registry / FOLDER).glob("[0-9]*-*.json"))
    found = [read_json(file) for file in files]
    return [Release(one["release"], one["created_at"], one["models"], one["about"]) for one in found]


def release(registry: Path, name: str) -> Release:
    """A release by its name. Raises FileNotFoundError naming those that there are."""
    found = {one.name: one for one in releases(registry)}
    if name not in found:
        raise FileNotFoundError(f"no release {name} in {registry}; there are {', '.join(found) or 'none'}")
    return found[name]


def rollout(registry: Path) -> Rollout | None:
    """What is rolled out; None where nothing ever was."""
    file = registry / FOLDER / ROLLOUT
    if not file.is_file():
        return None
    found = read_json(file)
    return Rollout(found["current"], tuple(found["history"]))


def current_release(registry: Path) -> Release | None:
    """The release that answers; None where nothing was ever rolled out."""
    found = rollout(registry)
    return None if found is None else release(registry, found.current)


def promote_release(registry: Path, name: str, *, at: datetime) -> Rollout:
    """Let a release answer from now on. Raises FileNotFoundError where there is none of that name."""
    wanted = release(registry, name)
    with _turn(registry):
        known = rollout(registry)
        if known is not None and known.current == wanted.name:
            return known
        return _write(registry, wanted.name, known, at=at, why=PROMOTED)


def roll_back(registry: Path, *, at: datetime) -> Rollout:
    """Let the release answer that did before the current one. Raises ValueError where there was none."""
    with _turn(registry):
        known = rollout(registry)
        before = None if known is None else known.previous
        if before is None:
            raise ValueError(f"nothing to roll back to in {registry}: no release was promoted before the current one")
        return _write(registry, release(registry, before).name, known, at=at, why=ROLLED_BACK)


def _write(registry: Path, name: str, known: Rollout | None, *, at: datetime, why: str) -> Rollout:
    history = (*(known.history if known is not None else ()), {"at": at.isoformat(), "release": name, "why": why})
    write_json({"current": name, "history": list(history)}, registry / FOLDER / ROLLOUT)
    return Rollout(name, history)


@contextlib.contextmanager
def _turn(registry: Path) -> Iterator[None]:
    with (registry / FOLDER / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
