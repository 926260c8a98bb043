"""`foretaste features`: compute the slow views, apply their definitions and load the online store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from foretaste.feedback.session_log import open_session_log
from foretaste.jobs.backfill import backfill
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.ops.telemetry import progress, say
from foretaste.signals.snapshots import build_snapshots
from foretaste.signals.store import FeatureStore


def features(settings: Settings, *, until: str | None = None) -> dict[str, Any]:
    """Build snapshots, apply and materialise up to `until` (RFC 3339; default: now), and fill the session log."""
    tables = settings.tables
    prepared = needed(tables.prepared, made_by="prepare")
    with progress("slow views", total=None) as advance:
        counts = build_snapshots(prepared, tables.features, settings.snapshots, advance=advance)
    store = feature_store(settings)
    store.apply()
    end = datetime.fromisoformat(until) if until is not None else datetime.now(UTC)
    if end.tzinfo is None:
        raise ValueError(f"--until {until}: wanted a time with its offset, e.g. 2026-03-01T00:00:00Z")
    store.materialize(end)
    say(f"features: applied and loaded up to {end:%Y-%m-%d %H:%M} UTC")
    log = open_session_log(settings.serving.session_log, tables.serving)
    try:
        with progress("session log", total=None, unit="events") as advance:
            newest = settings.serving.session_log.read_events
            added = backfill(prepared, log, newest=newest, received_at=datetime.now(UTC), advance=advance)
    finally:
        log.close()
    return {**counts, "materialized_until": end.isoformat(), "session_log_added": added}


def feature_store(settings: Settings) -> FeatureStore:
    """The workspace's feature store."""
    return FeatureStore(settings.features_repo.absolute(), settings.tables.features)
