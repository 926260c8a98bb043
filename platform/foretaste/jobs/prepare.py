"""`foretaste prepare`: from raw events to interactions by member bucket."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foretaste.jobs.cluster import cluster
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.ops.telemetry import progress
from foretaste.sessions import prepare as stage
from foretaste.signals.interactions import runs


def prepare(settings: Settings, *, source: Path | None = None) -> dict[str, Any]:
    """Prepare the raw tables; returns the manifest of what was written."""
    raw = needed(source or settings.tables.raw, made_by="import")
    with cluster(settings.cluster), progress("prepare", total=None, unit="events") as advance:
        return stage.prepare(
            raw, settings.tables.prepared, settings.prepare, now=datetime.now(UTC), collapse=runs, advance=advance
        )
