"""`foretaste releases`, `promote` and `rollback`: which models answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.ops.bundles import CURRENT, fetch_bundle
from foretaste.ops.releases import Rollout, file_release, promote_release, releases, roll_back, rollout
from foretaste.ops.telemetry import console, say

NAMES = ("intent", "ranker", "session_knn")
"""Bundles that a release is made of."""


def release_newest(settings: Settings, *, now: datetime) -> str | None:
    """Roll out the models that were filed last, where they belong together; None where they do not, or none is there.

    A new intent model waits for its ranker: until then the release of before goes on answering.
    """
    registry = settings.tables.registry
    newest = {name: fetch_bundle(registry, name) for name in NAMES if (registry / name / CURRENT).is_file()}
    if "intent" not in newest:
        return None
    if "ranker" in newest:
        trained_with = newest["ranker"].manifest["about"].get("intent_fingerprint")
        if trained_with != newest["intent"].fingerprint:
            say(f"not released: the ranker was trained with intent model {trained_with}; run `foretaste train ranker`")
            return None
    made = file_release(registry, {name: one.version for name, one in newest.items()}, at=now, about={})
    promote_release(registry, made.name, at=now)
    say(f"released {made.name}: {', '.join(f'{name} {version}' for name, version in made.models.items())}")
    return made.name


def listed(settings: Settings) -> dict[str, Any]:
    """Show all releases, newest last, and say which one answers."""
    registry = needed(settings.tables.registry, made_by="train")
    found, known = releases(registry), rollout(registry)
    current = None if known is None else known.current
    table = Table("", "release", *NAMES)
    for one in found:
        table.add_row("answers" if one.name == current else "", one.name, *(one.models.get(name, "") for name in NAMES))
    console.print(table)
    return {"current": current, "releases": [{"release": one.name, "models": dict(one.models)} for one in found]}


def promote(settings: Settings, release: str) -> dict[str, Any]:
    """Let a release answer. Raises FileNotFoundError naming those that there are."""
    return _said(promote_release(needed(settings.tables.registry, made_by="train"), release, at=datetime.now(UTC)))


def rollback(settings: Settings) -> dict[str, Any]:
    """Let the release of before answer. Raises ValueError where there was none."""
    return _said(roll_back(needed(settings.tables.registry, made_by="train"), at=datetime.now(UTC)))


def _said(found: Rollout) -> dict[str, Any]:
    say(f"{found.history[-1]['why']}: {found.current} answers")
    return {"current": found.current, "history": list(found.history)}
