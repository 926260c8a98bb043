"""The slow view of titles, day by day: how often each title was chosen and finished by each midnight.

Interactions are counted by bucket and day first, so that no bucket is read with another; a row is written for a
midnight on which a value may have changed, as for members.

Shapes: R title-days, S snapshot rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from foretaste.contracts.columns import TITLE_SNAPSHOTS
from foretaste.contracts.events import Action
from foretaste.signals.midnights import DAY, DAY_US, EVER, MONTH, WEEK, Days, Grid
from foretaste.signals.snapshot_config import SnapshotConfig

COLUMNS = ["at", "title_id", "action", "played_fraction"]
"""Columns of INTERACTIONS that are read."""


def title_days(interactions: pa.Table, targets: Sequence[str], config: SnapshotConfig) -> pl.DataFrame:
    """Count each title and day: columns title_id, day, plays (choices), completed, first_us (of any interaction)."""
    rows = pl.from_arrow(interactions.select(COLUMNS))
    assert isinstance(rows, pl.DataFrame)
    done = (pl.col("action") == Action.COMPLETE.value) | (pl.col("played_fraction") >= config.complete_from)
    play = pl.col("action").is_in(list(targets))
    return (
        rows.with_columns(at=pl.col("at").to_physical(), play=play, done=play & done.fill_null(False))
        .group_by("title_id", day=pl.col("at") // DAY_US)
        .agg(
            plays=pl.col("play").sum().cast(pl.Int64),
            completed=pl.col("done").sum().cast(pl.Int64),
            first_us=pl.col("at").min(),
        )
    )


def title_snapshots(days: Sequence[pl.DataFrame], grid: Grid, config: SnapshotConfig) -> pa.Table:
    """Snapshot the titles, given their days from all buckets. TITLE_SNAPSHOTS.

    The completion rate is completed / (plays + `prior_plays`) of all time.
    """
    sums = [pl.col("plays").sum(), pl.col("completed").sum(), pl.col("first_us").min()]
    table = pl.concat(days).group_by("title_id", "day").agg(sums).sort("title_id", "day")
    coded = table["title_id"].rle_id().to_numpy().astype(np.int64)
    ids = table["title_id"].unique(maintain_order=True).to_arrow().cast(pa.string())
    plays_R, completed_R = table["plays"].to_numpy(), table["completed"].to_numpy()
    rows = Days.of(coded, table["day"].to_numpy())
    key_S = rows.changes(grid, dict.fromkeys((DAY, WEEK, MONTH), plays_R > 0))
    midnight_S = rows.midnight(key_S)
    plays_S = rows.window(key_S, plays_R, EVER)
    rate_S = rows.window(key_S, completed_R, EVER) / (plays_S + config.prior_plays)
    return pa.Table.from_arrays(
        [
            ids.take(pa.array(rows.entity(key_S))),
            pa.array(midnight_S * DAY_US).cast(TITLE_SNAPSHOTS.field("at").type),
            pa.array(midnight_S * (DAY_US // 1000)),
            pa.array(rows.window(key_S, plays_R, DAY)),
            pa.array(rows.window(key_S, plays_R, WEEK)),
            pa.array(rows.window(key_S, plays_R, MONTH)),
            pa.array(plays_S),
            pa.array(rate_S.astype(np.float32)),
            pa.array(table["first_us"].to_numpy()[rows.first(key_S)] // 1000),
        ],
        schema=TITLE_SNAPSHOTS,
    )
