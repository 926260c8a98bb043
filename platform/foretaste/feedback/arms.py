"""Whether members came into the arms of an experiment as their shares say: what did not cannot be compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa

from foretaste.feedback.decision_log import decision_tables
from foretaste.ops.sample_ratio import sample_ratio_p

COLUMNS = ("member_id", "session_id", "at", "experiment_arm")
SURE = 1e-4
"""p-value below which a split is called broken: it is looked at often."""
MIN_EXPECTED = 5.0
"""Members that every arm has to expect for the test to mean anything."""
GRACE = timedelta(minutes=2)
"""Processes take up a change one after the other; decisions of so long after it are not counted."""
MANY_CROSSED = 0.01
"""Share of members in more than one arm from which a split is called broken."""


@dataclass(frozen=True, slots=True)
class Split:
    """Who was seen in which arm."""

    counts: Mapping[str, int]  # members and guests' sessions, each in the arm that it was first seen in
    crossed: int  # those that were seen in more than one


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """A split beside what the shares say."""

    split: Split
    expected: Mapping[str, float]
    p_value: float  # 1 while too few were seen

    @property
    def broken(self) -> bool:
        """Whether the split is not what it should be, beyond chance."""
        many = self.split.crossed > max(MIN_EXPECTED, MANY_CROSSED * sum(self.split.counts.values()))
        return self.p_value < SURE or many


def split_since(arms_since: str) -> datetime:
    """From when on decisions are counted of arms that became what they are at an instant (RFC 3339)."""
    return datetime.fromisoformat(arms_since) + GRACE


def in_words(found: SampleRatio) -> str:
    """Say what is wrong with a split."""
    counts = ", ".join(
        f"{arm} {found.split.counts.get(arm, 0)} of {expected:.1f} expected" for arm, expected in found.expected.items()
    )
    return f"the arms cannot be compared: {counts} (p = {found.p_value:.1e}, {found.split.crossed} in more than one)"


def split_in(folder: Path, *, since_us: int) -> Split:
    """Count who is in the arms of the decisions in a folder, from `since_us` (microseconds) on."""
    return split_of(decision_tables(folder, columns=COLUMNS), since_us=since_us)


def split_of(tables: Iterable[pa.Table], *, since_us: int) -> Split:
    """Count who is in the arms of DECISIONS tables (columns of COLUMNS suffice)."""
    unit = pl.coalesce("member_id", "session_id").alias("unit")
    at, arm = pl.col("at").cast(pl.Int64), pl.col("experiment_arm")
    parts = [
        pl.DataFrame(pl.from_arrow(table.select(list(COLUMNS))))
        .filter(arm.is_not_null() & (at >= since_us))
        .select(unit, at, arm)
        .group_by("unit", "experiment_arm")
        .agg(pl.col("at").min())
        for table in tables
    ]
    if not parts:
        return Split({}, 0)
    seen = pl.concat(parts).sort("at", "experiment_arm").group_by("unit", maintain_order=True)
    first = seen.agg(pl.col("experiment_arm").first().alias("arm"), pl.col("experiment_arm").n_unique().alias("arms"))
    counts = {row["arm"]: row["len"] for row in first.group_by("arm").len().sort("arm").to_dicts()}
    return Split(counts, int((first["arms"] > 1).sum()))


def sample_ratio(split: Split, shares: Mapping[str, float]) -> SampleRatio:
    """The test of a split against the shares of all arms, which sum to 1."""
    total = sum(split.counts.values())
    expected = {arm: total * share for arm, share in shares.items()}
    strangers = sum(count for arm, count in split.counts.items() if not expected.get(arm))
    hoped = {arm: value for arm, value in expected.items() if value}
    if len(hoped) < 2 or min(hoped.values()) < MIN_EXPECTED:
        return SampleRatio(split, expected, 1.0)
    if strangers:
        return SampleRatio(split, expected, 0.0)
    counts = [split.counts.get(arm, 0) for arm in hoped]
    return SampleRatio(split, expected, sample_ratio_p(counts, [shares[arm] for arm in hoped]))
