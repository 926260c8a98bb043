"""Yoochoose: clicks of a shop's anonymous sessions, from the RecSys Challenge 2015, in the sample of 100,000."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from foretaste.contracts.events import Action
from foretaste.datasets.logs import Log, events_table, titles_table
from foretaste.datasets.sources import find, number

NAME = "yoochoose"
FILES = ("yoochoose-clicks-100k_train_full.txt", "yoochoose-clicks-100k_test.txt")
COLUMNS = {"SessionId": "session_id", "ItemId": "title_id", "Time": "seconds"}


def load(source: Path) -> Log:
    """Read train and then test, both of guests. Raises ValueError for a source that is not this log."""
    files = find(source, FILES)
    parts = [files.headed(name, list(COLUMNS), separator="\t", quoted=False).rename(COLUMNS) for name in FILES]
    rows = number(pl.concat(parts), "seconds", pl.Float64, what=f"{source}")
    # Times have milliseconds; a double holds them exactly after rounding, not before.
    rows = rows.with_columns(
        at_us=(pl.col("seconds") * 1000).round().cast(pl.Int64) * 1000, action=pl.lit(Action.DETAIL.value)
    )
    events = events_table(rows, log=NAME)
    titles = rows.select(pl.col("title_id").unique()).with_columns(kind=pl.lit("product"))
    return Log(events, titles_table(titles, events, log=NAME))
