"""`foretaste prepare`: from raw events to interactions by member bucket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs import labels
from foretaste.jobs.cluster import ClusterConfig, cluster
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.ops.tables import described
from foretaste.ops.telemetry import progress, say
from foretaste.sessions import prepare as stage
from foretaste.sessions.plan import FULL
from foretaste.sessions.sources import is_uri
from foretaste.sessions.spread import Item, Spread, Work, by_size, on_ray
from foretaste.signals.interactions import runs


def prepare(settings: Settings, *, source: str | Path | None = None, full: bool = False) -> dict[str, Any]:
    """Bring the prepared tables up to date; returns their manifest without its lists of files.

    `source` is a raw folder or its URI. The events that the service was sent are prepared too, where there are any and
    `prepare.served` is set, and nothing is kept of members that asked to be deleted.
    """
    raw = source or settings.tables.raw
    raw = raw if is_uri(raw) else needed(Path(raw), made_by="import")
    served = settings.tables.serving / "events"
    more = (str(served),) if settings.prepare.served and served.is_dir() else ()
    with contextlib.ExitStack() as stack:
        spread = spread_by_ray(settings.cluster, stack)
        with progress("prepare", total=None, unit="events") as advance:
            manifest = stage.prepare(
                raw,
                settings.tables.prepared,
                settings.prepare,
                now=datetime.now(UTC),
                collapse=runs,
                advance=advance,
                spread=spread,
                joined_events=more,
                deleted=_deleted(settings),
                full=full,
            )
        run = manifest["run"]
        say(f"prepare: {run['mode']} run ({run['why']})")
        if run["mode"] == FULL:  # what few new events add is not worth counting every label again
            labels.report(settings, spread=spread)
    return described(manifest)


def spread_by_ray(config: ClusterConfig, stack: contextlib.ExitStack) -> Spread:
    """Spread large work by Ray, which is started by the first of it and stopped with `stack`; small work stays here."""

    def spread(items: Sequence[Item], work: Work) -> Iterator[Item]:
        stack.enter_context(cluster(config))
        yield from on_ray(items, work)

    return by_size(spread)


def _deleted(settings: Settings) -> dict[str, int]:
    """Deleted actors with the time (microseconds) up to which nothing of them is kept."""
    return Tombstones(settings.tables.serving / TOMBSTONES_FILE).read()
