"""Deskdrop: articles read inside a company, with native sessions. Published by CI&T on Kaggle, 2017.

The file of articles is not part of it here, so titles are known by their id alone.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from foretaste.contracts.events import Action
from foretaste.datasets.logs import Log, events_table, titles_table
from foretaste.datasets.sources import find, number

NAME = "deskdrop"
FILE = "users_interactions.csv"
COLUMNS = {
    "timestamp": "seconds",
    "eventType": "action",
    "contentId": "title_id",
    "personId": "member_id",
    "sessionId": "session_id",
    "userAgent": "agent",
    "userCountry": "country",
}
ACTIONS = {
    "VIEW": Action.DETAIL.value,
    "LIKE": Action.THUMB_UP.value,
    "BOOKMARK": Action.ADD_TO_LIST.value,
    "COMMENT CREATED": Action.COMMENT.value,
    "FOLLOW": Action.FOLLOW.value,
}
MOBILE = "(?i)android|iphone|ipad|mobile"


def load(source: Path) -> Log:
    """Read users_interactions.csv, from a zip, a folder or itself (a folder may hold the zip).

    Raises ValueError for a source that is not this log.
    """
    zipped = source / f"{FILE}.zip"
    files = find(zipped if zipped.is_file() else source, (FILE,))
    rows = files.headed(FILE, list(COLUMNS), separator=",", quoted=True).rename(COLUMNS)
    rows = number(rows, "seconds", pl.Int64, what=f"{source}")
    if unknown := sorted(set(rows["action"].unique().to_list()) - set(ACTIONS)):
        raise ValueError(f"{source}: {FILE} has event types {unknown}; wanted {sorted(ACTIONS)}")
    device = pl.when(pl.col("agent").str.contains(MOBILE)).then(pl.lit("mobile")).otherwise(pl.lit("desktop"))
    rows = rows.with_columns(
        at_us=pl.col("seconds") * 1_000_000,
        action=pl.col("action").replace_strict(ACTIONS),
        device=pl.when(pl.col("agent").is_not_null()).then(device),
    )
    events = events_table(rows, log=NAME)
    titles = rows.select(pl.col("title_id").unique()).with_columns(kind=pl.lit("article"))
    return Log(events, titles_table(titles, events, log=NAME))
