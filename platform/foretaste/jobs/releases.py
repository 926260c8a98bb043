"""`foretaste releases`, `promote` and `rollback`: which models answer."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from foretaste.feedback.arms import in_words, sample_ratio, split_in, split_since
from foretaste.feedback.session_log import microseconds
from foretaste.jobs.model_registry import mirror, named_in_mlflow
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.ops.bundles import CURRENT, fetch_bundle
from foretaste.ops.releases import (
    CANARY,
    MAIN,
    Rollout,
    current_release,
    file_release,
    give_share,
    promote_release,
    releases,
    roll_back,
    rollout,
    shadow_release,
)
from foretaste.ops.telemetry import console, say

NAMES = ("intent", "ranker", "session_knn")
"""Bundles that a release is made of."""


def release_trained(settings: Settings, trained: Collection[str], *, now: datetime, answers: bool = True) -> str | None:
    """Roll out what was just trained, with what answers already; None where they do not belong together.

    A new intent model waits for its ranker: until then the release of before goes on answering. What was taken back
    stays so: nothing but what was trained now is exchanged. While there are arms, a release is filed and waits;
    where it is not to answer at once (`answers`), it is filed and its name given.
    """
    registry, answering = settings.tables.registry, current_release(settings.tables.registry)
    exchanged = {*trained, "intent"} if "ranker" in trained else set(trained)  # the one that it was trained with
    there = [name for name in NAMES if (registry / name / CURRENT).is_file()]
    models = {name: fetch_bundle(registry, name) for name in there if answering is None or name in exchanged}
    if answering is not None:
        kept = {name: version for name, version in answering.models.items() if name not in models}
        models |= {name: fetch_bundle(registry, name, version) for name, version in kept.items()}
    if "intent" not in models:
        return None
    if "ranker" in models:
        trained_with = models["ranker"].manifest["about"].get("intent_fingerprint")
        if trained_with != models["intent"].fingerprint:
            say(f"not released: the ranker was trained with intent model {trained_with}; run `foretaste train ranker`")
            return None
    made = file_release(registry, {name: models[name].version for name in NAMES if name in models}, at=now, about={})
    if not answers:
        say(f"filed {made.name}, which answers nobody")
        return made.name
    if (known := rollout(registry)) is not None and known.arms and known.current != made.name:
        say(f"filed {made.name}, not released: arms are under way; `foretaste promote {made.name}` ends them")
        mirror(settings)
        return None
    promote_release(registry, made.name, at=now)
    mirror(settings)
    say(f"released {made.name}: {', '.join(f'{name} {version}' for name, version in made.models.items())}")
    return made.name


def listed(settings: Settings, *, check: bool = False, mirrored: bool = False) -> dict[str, Any]:
    """Show all releases, newest last, and say what each one does.

    With `check` members are counted by arm, and `ok` says whether the split is what it should be; `mirrored` brings
    MLflow's model registry in line.
    """
    registry = needed(settings.tables.registry, made_by="train")
    found, known = releases(registry), rollout(registry)
    table = Table("", "release", *NAMES)
    for one in found:
        does = ", ".join(_does(known, one.name))
        table.add_row(does, one.name, *(one.models.get(name, "") for name in NAMES))
    console.print(table)
    told: dict[str, Any] = {"current": None if known is None else known.current}
    told |= {"releases": [{"release": one.name, "models": dict(one.models)} for one in found]}
    if known is not None:
        told |= {"shares": known.shares, "shadow": known.shadow}
    if check:
        told |= _checked(settings, known)
    if mirrored:
        told |= {"mlflow": mirror(settings)}
    return told


def promote(
    settings: Settings, release: str, *, share: float | None = None, arm: str | None = None, shadow: bool = False
) -> dict[str, Any]:
    """Let a release answer all members or a `share` of them as an `arm`, or score unseen as a `shadow`.

    `release` may be @ and an alias of MLflow's model registry. Raises FileNotFoundError naming the releases that there
    are, ValueError where its files are not as filed, or for a share that there is not.
    """
    if shadow and (share is not None or arm is not None):
        raise ValueError("--shadow goes without --share and --arm: nobody is answered by a shadow")
    if arm is not None and share is None:
        raise ValueError("--arm needs --share, the share of the members that it answers")
    registry, now = needed(settings.tables.registry, made_by="train"), datetime.now(UTC)
    if release.startswith("@"):
        release = named_in_mlflow(settings, release[1:])
    if shadow:
        return _said(settings, shadow_release(registry, release, at=now))
    if share is None:
        return _said(settings, promote_release(registry, release, at=now))
    salt = secrets.token_hex(16)
    return _said(settings, give_share(registry, release, arm=arm or CANARY, share=share, salt=salt, at=now))


def rollback(settings: Settings, release: str | None = None) -> dict[str, Any]:
    """Take a release back from what it does, by default what was rolled out last: the arms, else the current one.

    Raises ValueError where there is nothing to take back.
    """
    registry = needed(settings.tables.registry, made_by="train")
    return _said(settings, roll_back(registry, at=datetime.now(UTC), name=release))


def _said(settings: Settings, found: Rollout) -> dict[str, Any]:
    last = found.history[-1]
    say(f"{last['why']}: {last['release']}; {found.current} answers " + (_shared(found) if found.arms else "everybody"))
    mirror(settings)
    told = {"current": found.current, "history": list(found.history)}
    return told | {"shares": found.shares, "shadow": found.shadow}


def _shared(found: Rollout) -> str:
    others = ", ".join(f"{arm.release} {arm.share:.4g} as {arm.name}" for arm in found.arms)
    return f"{found.shares[MAIN]:.4g} of the members, {others}"


def _does(known: Rollout | None, name: str) -> list[str]:
    if known is None:
        return []
    shares = known.shares or {MAIN: 1.0}
    found = [f"{MAIN} {shares[MAIN]:.4g}"] if known.current == name and known.arms else []
    found += ["answers"] if known.current == name and not known.arms else []
    found += [f"{arm.name} {arm.share:.4g}" for arm in known.arms if arm.release == name]
    return found + (["shadow"] if known.shadow == name else [])


def _checked(settings: Settings, known: Rollout | None) -> dict[str, Any]:
    if known is None or known.arms_since is None or not known.arms:
        say("nothing to check: one release answers everybody")
        return {"ok": True}
    since = split_since(known.arms_since)
    split = split_in(settings.tables.serving / "decisions", since_us=microseconds(since))
    found = sample_ratio(split, known.shares)
    table = Table("arm", "members", "expected", "share")
    for arm, share in known.shares.items():
        table.add_row(arm, str(split.counts.get(arm, 0)), f"{found.expected[arm]:.1f}", f"{share:.4g}")
    console.print(table)
    verdict = f"p = {found.p_value:.3g}, {split.crossed} in more than one, since {since.isoformat(timespec='seconds')}"
    say(in_words(found) if found.broken else f"members came into the arms as the shares say ({verdict})")
    units = {"units": dict(split.counts), "expected": dict(found.expected)}
    return {"ok": not found.broken, "p_value": found.p_value, "crossed": split.crossed} | units
