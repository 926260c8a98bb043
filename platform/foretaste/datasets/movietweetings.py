"""MovieTweetings: ratings from 0 to 10 of films named in tweets. Dooms, De Pessemier and Martens, CrowdRec 2013."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from foretaste.contracts.events import Action
from foretaste.datasets.logs import Log, events_table, rating, titles_table
from foretaste.datasets.sources import find, number

NAME = "movietweetings"


def load(source: Path) -> Log:
    """Read ratings.dat and movies.dat of a folder. Raises ValueError for a source that is not this log."""
    files = find(source, ("ratings.dat", "movies.dat"))
    ratings = files.divided("ratings.dat", "::", ["member_id", "title_id", "rating", "seconds"])
    ratings = number(number(ratings, "rating", pl.Float64, what=f"{source}"), "seconds", pl.Int64, what=f"{source}")
    movies = files.divided("movies.dat", "::", ["title_id", "name", "genres"])
    rows = ratings.with_columns(
        at_us=pl.col("seconds") * 1_000_000, action=pl.lit(Action.RATE.value), properties=rating("rating")
    )
    events = events_table(rows, log=NAME)
    genres = pl.col("genres").str.split("|").list.filter(pl.element() != "")
    year = pl.col("name").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int32)
    titles = movies.with_columns(kind=pl.lit("movie"), genres=genres, year=year)
    return Log(events, titles_table(titles, events, log=NAME))
