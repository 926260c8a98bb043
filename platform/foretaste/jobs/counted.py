"""Runs of batch verbs, counted in their workspace."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from foretaste.jobs.settings import Settings
from foretaste.ops.job_metrics import JobMetrics, counted


@contextmanager
def job_of(settings: Settings, verb: str) -> Iterator[JobMetrics]:
    """Count a run of a verb; a workspace that is not there yet is not made for that."""
    with tempfile.TemporaryDirectory() as nowhere:
        folder = settings.tables.metrics if settings.tables.root.is_dir() else Path(nowhere)
        with counted(folder, verb, clock=lambda: datetime.now(UTC)) as job:
            yield job
