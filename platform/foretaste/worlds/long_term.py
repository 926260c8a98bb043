"""What a policy was worth in the long run: how members were satisfied, whether they came back, whether they stayed.

A member's wait for the next visit is exponential with mean gap x exp(return_effect x (0.58 - satisfaction)), so the
probability of a return within some days is known for every session, whatever the dice then said.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.columns import conform
from foretaste.contracts.truth import TRUTH_LONG_TERM
from foretaste.worlds.config import DAY_US, WorldConfig
from foretaste.worlds.viewing import wait_days

RETURN_DAYS = 7.0
RETAINED_DAYS = 14
"""A member is retained who came in the last days of the window."""


def return_probability(
    config: WorldConfig, gap_days_S: NDArray[np.float64], satisfaction_S: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Probability that the wait for the next visit is at most a week, from the law by which the world draws it."""
    return np.asarray(1.0 - np.exp(-RETURN_DAYS / wait_days(config, gap_days_S, satisfaction_S)))


def long_term(config: WorldConfig, tables: Mapping[str, pa.Table]) -> pa.Table:
    """TRUTH_LONG_TERM of the tables of a partition: one row a member, also of who never came."""
    members, sessions, satisfaction = (_frame(tables[name]) for name in ("members", "sessions", "satisfaction"))
    visits = sessions.select("session_id", "member_id", "started_at").join(satisfaction, on="session_id")
    visits = visits.join(members.select("member_id", "gap_days"), on="member_id")
    chance = return_probability(config, visits["gap_days"].to_numpy(), visits["satisfaction"].to_numpy())
    late = pl.col("started_at").dt.epoch("us") >= config.end_us - RETAINED_DAYS * DAY_US
    summed = (
        visits.with_columns(chance=chance)
        .group_by("member_id")
        .agg(
            num_visits=pl.len().cast(pl.Int32),
            satisfaction=pl.col("satisfaction").mean(),
            return_probability=pl.col("chance").mean(),
            num_observable=pl.col("observable").sum().cast(pl.Int32),
            num_returned=(pl.col("observable") & pl.col("returned_within_7d")).sum().cast(pl.Int32),
            retained=late.any(),
        )
    )
    since = (config.end_us - pl.col("joined_at").dt.epoch("us")) / DAY_US
    found = members.join(summed, on="member_id", how="left", maintain_order="left").with_columns(
        pl.col("num_visits", "num_observable", "num_returned").fill_null(0),
        pl.col("retained").fill_null(False),
        days=since,
    )
    return conform(found.to_arrow(), TRUTH_LONG_TERM, what="truth of the long term")


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table))
