"""Load the session log with what members did before there was a service, as if it had been there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from foretaste.feedback.session_log import SessionLog
from foretaste.ops.tables import prepared_buckets, read_prepared

EVENTS_A_BATCH = 20_000


def backfill(
    prepared: Path, log: SessionLog, *, newest: int, received_at: datetime, advance: Callable[[float], None]
) -> int:
    """Append the newest events of every member to the log and return how many were new.

    Of the acts of a prepared folder; guests are left out, since their sessions are over. The log is
    idempotent, so a run that was cut off is completed by the next.
    """
    added = 0
    for bucket in prepared_buckets(prepared):
        acts = read_prepared(prepared, "acts", bucket=bucket)
        members = pl.DataFrame(pl.from_arrow(acts)).filter(pl.col("member_id").is_not_null())
        recent = members.group_by("member_id", maintain_order=True).tail(newest)
        rows = recent.with_columns(pl.col("at").to_physical()).to_arrow().to_pylist()
        for first in range(0, len(rows), EVENTS_A_BATCH):
            batch = [_without_nulls(row) for row in rows[first : first + EVENTS_A_BATCH]]
            added += sum(not one.duplicate for one in log.append(batch, received_at=received_at))
            advance(len(batch))
    return added


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
