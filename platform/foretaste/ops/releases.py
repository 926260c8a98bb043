"""Releases: sets of filed models that answer together, and which of them answers now.

    registry/
      releases/
        20260102T030405-9a8b7c6d5e4f.json   {"release", "created_at", "models": {"intent": VERSION, ...}, "about"}
        rollout.json                        {"current", "arms": [{"name", "release", "share", "ranges"}, ...], "salt",
                                             "arms_since", "shadow", "history": [{"at", "release", "why", ...}, ...]}

A ranker belongs to the intent model that it was trained with; pointers of their own could not be moved at once. What
is rolled out is one file that is replaced whole; processes that change it take turns.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foretaste.ops.bundles import fetch_bundle
from foretaste.ops.files import read_json, write_json
from foretaste.ops.rollouts import PLACES, Arm, ShareError, with_share

FOLDER = "releases"
ROLLOUT = "rollout.json"
LOCK = ".rollout.lock"
PROMOTED, ROLLED_BACK = "promoted", "rolled back"
GIVEN, ENDED, SHADOWED, UNSHADOWED = "given a share", "arm ended", "shadowed", "shadow ended"
MAIN = "main"
"""Arm of who is in no other, while there are others."""
CANARY = "canary"

_ARM = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class Release:
    """Versions of models that belong together."""

    name: str
    created_at: str
    models: Mapping[str, str]  # version of each bundle by its name
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rollout:
    """Which releases answer whom, and how it came to that, oldest first."""

    current: str
    history: tuple[Mapping[str, Any], ...]
    arms: tuple[Arm, ...] = ()  # who else answers; the rest is answered by the current one
    salt: str = ""  # of the hash that says who is in which arm; empty where there are none
    arms_since: str | None = None  # when the arms became what they are
    shadow: str | None = None  # scores what others answer, and nobody sees it

    @property
    def stack(self) -> tuple[str, ...]:
        """What was promoted and not taken back, the current one last."""
        stack: list[str] = []
        for step in self.history:
            if step["why"] == ROLLED_BACK:
                stack.pop()
            elif step["why"] == PROMOTED and (not stack or stack[-1] != step["release"]):
                stack.append(step["release"])
        return tuple(stack)

    @property
    def previous(self) -> str | None:
        """What a rollback goes back to: what answered before the current one was promoted; None at the beginning."""
        return self.stack[-2] if len(self.stack) > 1 else None

    @property
    def names(self) -> frozenset[str]:
        """Releases that are in use."""
        return frozenset((self.current, *(arm.release for arm in self.arms), *filter(None, (self.shadow,))))

    @property
    def shares(self) -> dict[str, float]:
        """Shares of all arms, main's last; empty where one release answers everybody."""
        if not self.arms:
            return {}
        rest = (PLACES - sum(arm.places for arm in self.arms)) / PLACES
        return {arm.name: arm.share for arm in self.arms} | {MAIN: rest}

    def plain(self) -> dict[str, Any]:
        """As it is filed."""
        arms = [
            {"name": arm.name, "release": arm.release, "share": arm.share, "ranges": [list(one) for one in arm.ranges]}
            for arm in self.arms
        ]
        plain = {"current": self.current, "arms": arms, "salt": self.salt, "arms_since": self.arms_since}
        return plain | {"shadow": self.shadow, "history": [dict(step) for step in self.history]}


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


def filed_at(name: str) -> datetime:
    """When a release was filed, by its name."""
    return datetime.strptime(name.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def releases(registry: Path) -> list[Release]:
    """All releases, oldest first."""
    return [_release(file) for file in _files(registry)]


def release(registry: Path, name: str) -> Release:
    """A release by its name. Raises FileNotFoundError naming those that there are."""
    files = {file.stem: file for file in _files(registry)}
    if name not in files:
        raise FileNotFoundError(f"no release {name} in {registry}; there are {', '.join(files) or 'none'}")
    return _release(files[name])


def rollout(registry: Path) -> Rollout | None:
    """What is rolled out; None where nothing ever was. Raises ValueError where the file cannot be read."""
    file = registry / FOLDER / ROLLOUT
    if not file.is_file():
        return None
    try:
        found = read_json(file)
        arms = [
            Arm(one["name"], one["release"], tuple((int(since), int(until)) for since, until in one["ranges"]))
            for one in found.get("arms", ())
        ]
        return Rollout(
            found["current"],
            tuple(found["history"]),
            tuple(arms),
            found.get("salt", ""),
            found.get("arms_since"),
            found.get("shadow"),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} cannot be read: {type(error).__name__}: {error}") from error


def current_release(registry: Path) -> Release | None:
    """The release that answers; None where nothing was ever rolled out."""
    found = rollout(registry)
    return None if found is None else release(registry, found.current)


def promote_release(registry: Path, name: str, *, at: datetime) -> Rollout:
    """Let a release answer everybody from now on; arms end.

    Raises FileNotFoundError where there is none of that name, ValueError where its files are not as filed.
    """
    wanted = _checked(registry, name)
    with _turn(registry):
        known = rollout(registry)
        if known is not None and known.current == wanted.name and not known.arms:
            return known
        history = () if known is None else known.history
        shadow = None if known is None or known.shadow == name else known.shadow
        return _write(registry, Rollout(name, history, shadow=shadow), {"release": name, "why": PROMOTED}, at=at)


def give_share(registry: Path, name: str, *, arm: str, share: float, salt: str, at: datetime) -> Rollout:
    """Let a release answer a share of the members, who stay in its arm while that grows; the other arms stay.

    `salt` (hexadecimal) keys the hash of the first arm and of those beside it. Raises as `promote_release`, and
    ShareError for a name that is none or a share that there is not, ValueError where nothing answers the rest.
    """
    if not _ARM.fullmatch(arm) or arm == MAIN:
        raise ShareError("arm", f"arm {arm!r}: wanted 1 to 32 of a-z, 0-9, _ and -, and not {MAIN}, which is the rest")
    wanted = _checked(registry, name)
    with _turn(registry):
        known = _needed(registry)
        arms = with_share(known.arms, arm, wanted.name, share)
        if arms == known.arms:
            return known
        made = replace(known, arms=arms, salt=known.salt or salt, arms_since=at.isoformat())
        return _write(registry, made, {"release": name, "why": GIVEN, "arm": arm, "share": share}, at=at)


def shadow_release(registry: Path, name: str, *, at: datetime) -> Rollout:
    """Let a release score what others answer, seen by nobody. Raises as `promote_release`, and as `give_share`."""
    wanted = _checked(registry, name)
    with _turn(registry):
        known = _needed(registry)
        if known.shadow == name:
            return known
        return _write(registry, replace(known, shadow=wanted.name), {"release": name, "why": SHADOWED}, at=at)


def roll_back(registry: Path, *, at: datetime, name: str | None = None) -> Rollout:
    """Take a release back from what it does: its arms end, or it is no shadow any more, or the one before answers.

    By default what was rolled out last is taken back: the arms, where there are any, else the current release.
    Raises ValueError where there is nothing to take back, or no release was promoted before the current one.
    """
    with _turn(registry):
        known = rollout(registry)
        if known is None:
            raise ValueError(f"nothing to roll back to in {registry}: nothing was ever rolled out")
        if known.arms and (name is None or any(arm.release == name for arm in known.arms)):
            arms = tuple(arm for arm in known.arms if name is not None and arm.release != name)
            made = replace(known, arms=arms, salt=known.salt if arms else "", arms_since=at.isoformat())
            return _write(registry, made, {"release": name or known.current, "why": ENDED}, at=at)
        if name is not None and name == known.shadow:
            return _write(registry, replace(known, shadow=None), {"release": name, "why": UNSHADOWED}, at=at)
        if name is not None and name != known.current:
            raise ValueError(f"{name} neither answers nor is a shadow: there is nothing to take back of it")
        if known.previous is None:
            raise ValueError(f"nothing to roll back to in {registry}: no release was promoted before the current one")
        before = release(registry, known.previous).name
        made = replace(known, current=before, arms=(), salt="", arms_since=None)
        made = replace(made, shadow=None if made.shadow == before else made.shadow)
        return _write(registry, made, {"release": before, "why": ROLLED_BACK}, at=at)


def _files(registry: Path) -> list[Path]:
    return sorted((registry / FOLDER).glob("[0-9]*-*.json"))


def _release(file: Path) -> Release:
    try:
        one = read_json(file)
        return Release(one["release"], one["created_at"], dict(one["models"]), dict(one["about"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"release {file} cannot be read: {type(error).__name__}: {error}") from error


def _checked(registry: Path, name: str) -> Release:
    found = release(registry, name)
    for bundle, version in found.models.items():
        fetch_bundle(registry, bundle, version)
    return found


def _needed(registry: Path) -> Rollout:
    known = rollout(registry)
    if known is None:
        raise ValueError(f"nothing answers yet in {registry}: promote a release for all members first")
    return known


def _write(registry: Path, made: Rollout, step: Mapping[str, Any], *, at: datetime) -> Rollout:
    made = replace(made, history=(*made.history, {"at": at.isoformat(), **step}))
    write_json(made.plain(), registry / FOLDER / ROLLOUT)
    return made


@contextlib.contextmanager
def _turn(registry: Path) -> Iterator[None]:
    with (registry / FOLDER / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
