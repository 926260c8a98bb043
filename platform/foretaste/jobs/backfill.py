"""Load the session log with what members did before there was a service, as if it had been there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from foretaste.contracts.events import PASSIVE
from foretaste.feedback.session_log import SessionLog, microseconds
from foretaste.ops.tables import prepared_buckets, read_prepared

EVENTS_A_BATCH = 20_000


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What became of the newest events of members."""

    added: int
    known: int  # were in the log before
    too_old: int  # before the window: no answer could see them
    deleted: int  # of members that were deleted since


def backfill(
    prepared: Path,
    log: SessionLog,
    *,
    newest: int,
    received_at: datetime,
    advance: Callable[[float], None],
    deleted: Mapping[str, int] | None = None,
) -> Backfilled:
    """Append the newest events of every member to the log, but for those that no answer may see.

    Of the acts of a prepared folder; guests are left out, since their sessions are over, and what members did up to
    the time (microseconds) at which they were `deleted`. The log is idempotent, so a run that was cut off is completed
    by the next. A bucket is in memory at a time.
    """
    added = known = too_old = gone = 0
    for bucket in prepared_buckets(prepared):
        recent = _newest(read_prepared(prepared, "acts", bucket=bucket), newest)
        kept = recent.filter(pl.col("at") > _until(deleted or {}))
        gone += len(recent) - len(kept)
        rows = [row for row in kept.to_dicts() if _in_window(row, log, received_at)]
        too_old += len(kept) - len(rows)
        for first in range(0, len(rows), EVENTS_A_BATCH):
            batch = [_without_nulls(row) for row in rows[first : first + EVENTS_A_BATCH]]
            new = sum(not one.duplicate for one in log.append(batch, received_at=received_at))
            added, known = added + new, known + len(batch) - new
            advance(len(batch))
    return Backfilled(added, known, too_old, gone)


def _newest(acts: Any, newest: int) -> pl.DataFrame:
    """The newest acts of each member, times as microseconds."""
    of_members = pl.col("member_id").is_not_null() & ~pl.col("action").is_in(sorted(PASSIVE))
    members = pl.DataFrame(pl.from_arrow(acts)).filter(of_members)
    return members.group_by("member_id", maintain_order=True).tail(newest).with_columns(pl.col("at").to_physical())


def _until(deleted: Mapping[str, int]) -> pl.Expr:
    if not deleted:
        return pl.lit(-1)
    return pl.col("member_id").replace_strict(dict(deleted), default=-1, return_dtype=pl.Int64)


def _in_window(row: dict[str, Any], log: SessionLog, received_at: datetime) -> bool:
    window = log.config.window_us(row["member_id"])
    return window is None or row["at"] >= microseconds(received_at) - window


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
