"""`foretaste prepare`: from raw events to interactions by member bucket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs.cluster import ClusterConfig, cluster
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.ops.telemetry import progress, say
from foretaste.sessions import prepare as stage
from foretaste.sessions.sources import is_uri
from foretaste.sessions.spread import Item, Work, here, on_ray
from foretaste.signals.interactions import runs

HERE = 300_000
"""Rows up to which a run is done in this process: to start Ray takes longer."""


def prepare(settings: Settings, *, source: str | Path | None = None, full: bool = False) -> dict[str, Any]:
    """Bring the prepared tables up to date; returns the manifest of what was written.

    `source` is a raw folder or its URI. The events that the service was sent are prepared too, where there are any and
    `prepare.served` is set, and nothing is kept of members that asked to be deleted.
    """
    raw = source or settings.tables.raw
    raw = raw if is_uri(raw) else needed(Path(raw), made_by="import")
    served = settings.tables.serving / "events"
    more = (str(served),) if settings.prepare.served and served.is_dir() else ()
    with contextlib.ExitStack() as stack, progress("prepare", total=None, unit="events") as advance:
        manifest = stage.prepare(
            raw,
            settings.tables.prepared,
            settings.prepare,
            now=datetime.now(UTC),
            collapse=runs,
            advance=advance,
            spread=_Spread(settings.cluster, stack),
            more_events=more,
            deleted=_deleted(settings),
            full=full,
        )
    run = manifest["run"]
    say(f"prepare: {run['mode']} run ({run['why']})")
    return manifest


class _Spread:
    """Small work in this process, other work on a Ray that is started by the first of it."""

    def __init__(self, config: ClusterConfig, stack: contextlib.ExitStack) -> None:
        self._config, self._stack = config, stack

    def __call__(self, items: Sequence[Item], work: Work) -> Iterator[Item]:
        if sum(item["rows"] for item in items) <= HERE:
            yield from here(items, work)
            return
        self._stack.enter_context(cluster(self._config))
        yield from on_ray(items, work)


def _deleted(settings: Settings) -> dict[str, int]:
    """Deleted actors with the time (microseconds) up to which nothing of them is kept."""
    return Tombstones(settings.tables.serving / TOMBSTONES_FILE).read()
