"""`foretaste features`: publish the slow views, apply their definitions and load the online store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from foretaste.feedback.session_log import open_session_log
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs.backfill import backfill
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.ops.telemetry import progress, say
from foretaste.signals.snapshots import build_snapshots
from foretaste.signals.store import FeatureStore


def features(settings: Settings, *, until: str | None = None, full: bool = False) -> dict[str, Any]:
    """Publish snapshots, apply and load up to `until` (RFC 3339; default: now), and fill the session log.

    Each run publishes and loads what is new since the last; `full` retires the published rows and starts anew.
    """
    published = publish(settings, until=until, full=full)
    tables = settings.tables
    tombstones = Tombstones(tables.serving / TOMBSTONES_FILE)
    log = open_session_log(settings.serving.session_log, tables.serving)
    try:
        with progress("session log", total=None, unit="events") as advance:
            newest = settings.serving.session_log.read_events
            deleted = tombstones.read()
            filled = backfill(
                tables.prepared,
                log,
                newest=newest,
                received_at=datetime.now(UTC),
                advance=advance,
                deleted=deleted,
            )
        for actor, until_us in _since(deleted, tombstones.read()).items():
            log.delete_until(actor, until_us)
    finally:
        log.close()
    if filled.too_old or filled.deleted:
        say(
            f"session log: left out {filled.too_old:,} events before the window of "
            f"{settings.serving.session_log.window_days} days and {filled.deleted:,} of deleted members"
        )
    return {
        **published,
        "session_log_added": filled.added,
        "session_log_too_old": filled.too_old,
    }


def publish(settings: Settings, *, until: str | None = None, full: bool = False) -> dict[str, Any]:
    """Publish snapshots, apply and load up to `until` (RFC 3339; default: now); may be done while requests go on."""
    tables = settings.tables
    end = datetime.fromisoformat(until) if until is not None else datetime.now(UTC)
    if end.tzinfo is None:
        raise ValueError(f"--until {until}: wanted a time with its offset, e.g. 2026-03-01T00:00:00Z")
    prepared = needed(tables.prepared, made_by="prepare")
    tombstones = Tombstones(tables.serving / TOMBSTONES_FILE)
    deleted = tombstones.read()
    with progress("slow views", total=None) as advance:
        counts = build_snapshots(
            prepared, tables.features, settings.snapshots, now=end, full=full, deleted=deleted, advance=advance
        )
    store = feature_store(settings)
    try:
        store.apply()
        with progress("online store", total=None) as advance:
            loaded = store.materialize(end, full=full)
            advance(sum(loaded.values()))
        for member_id in _since(deleted, tombstones.read()):  # deleted while rows were on their way
            store.forget(member_id)
    finally:
        store.close()
    say(
        f"features: {counts['member_rows']:,} rows of members and {counts['title_rows']:,} of titles published, "
        f"{counts['corrections']:,} of them corrections; loaded up to {end:%Y-%m-%d %H:%M} UTC"
    )
    return {**counts, "materialized_until": end.isoformat(), "loaded": loaded}


def _since(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """Who was deleted, or deleted again, since tombstones were read."""
    return {actor: at for actor, at in now.items() if before.get(actor) != at}


def feature_store(settings: Settings) -> FeatureStore:
    """The workspace's feature store."""
    return FeatureStore(
        settings.features_repo.absolute(),
        settings.tables.features,
        settings.features_url,
        settings.features_registry_url,
    )
