"""`foretaste releases`, `promote` and `rollback`: which models answer."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.ops.bundles import CURRENT, fetch_bundle
from foretaste.ops.releases import Rollout, current_release, file_release, promote_release, releases, roll_back, rollout
from foretaste.ops.telemetry import console, say

NAMES = ("intent", "ranker", "session_knn")
"""Bundles that a release is made of."""


def release_trained(settings: Settings, trained: Collection[str], *, now: datetime) -> str | None:
    """Roll out what was just trained, with what answers already; None where they do not belong together.

    A new intent model waits for its ranker: until then the release of before goes on answering. What was taken back
    stays so: nothing but what was trained now is exchanged.
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
