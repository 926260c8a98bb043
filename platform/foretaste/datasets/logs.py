"""A log in the contracts: events numbered in the order of their files, and titles."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from foretaste.contracts.columns import EVENTS, TITLES, conform

DIGITS = 9


@dataclass(frozen=True, slots=True)
class Log:
    """Raw tables of one log."""

    events: pa.Table  # EVENTS, in the order of the files
    titles: pa.Table  # TITLES

    def counts(self) -> dict[str, int]:
        """Rows and distinct ids; a guest is counted by its session."""
        return {
            "events": self.events.num_rows,
            "members": _distinct(self.events, "member_id"),
            "sessions": _distinct(self.events, "session_id"),
            "titles": self.titles.num_rows,
            "titles_with_events": _distinct(self.events, "title_id"),
        }


def events_table(rows: pl.DataFrame, *, log: str) -> pa.Table:
    """Give each row the id LOG-000000017 by its number, so that ids order ties of time as the files do.

    `rows` has a column at_us (microseconds since 1970) and those of EVENTS that are known.
    """
    number = pl.int_range(pl.len()).cast(pl.String).str.zfill(DIGITS)
    whole = rows.with_columns(
        event_id=pl.format("{}-{}", pl.lit(log), number),
        at=pl.from_epoch("at_us", time_unit="us").dt.replace_time_zone("UTC"),
    )
    return conform(whole.to_arrow(), EVENTS, what=log)


def titles_table(rows: pl.DataFrame, events: pa.Table, *, log: str) -> pa.Table:
    """Complete titles that have title_id, kind, and name, genres, year where known.

    A title is released on January 1st of its year. Where an event is older than that, the release is unknown
    (null): the year is then of another release, or the title was talked about ahead of it.
    """
    first = _frame(events.select(["title_id", "at"])).group_by("title_id").agg(first_at=pl.col("at").min())
    given: dict[str, pl.DataType | type[pl.DataType]] = {
        "name": pl.String,
        "year": pl.Int32,
        "genres": pl.List(pl.String),
    }
    rows = rows.with_columns(pl.lit(None, kind).alias(name) for name, kind in given.items() if name not in rows.columns)
    new_year = pl.datetime("year", 1, 1, time_unit="us", time_zone="UTC")
    released = pl.when(pl.col("first_at").is_null() | (new_year <= pl.col("first_at"))).then(new_year)
    whole = (
        rows.join(first, on="title_id", how="left", maintain_order="left")
        .with_columns(
            released_at=released,
            genres=pl.col("genres").fill_null([]),
            artworks=pl.lit([], pl.List(pl.String)),
        )
        .sort("title_id")
    )
    return conform(whole.to_arrow(), TITLES, what=f"{log} titles")


def rating(column: str) -> pl.Expr:
    """A rating as the properties of a `rate` event."""
    number = pl.col(column).cast(pl.Float64).cast(pl.String)
    return pl.concat_str(pl.lit('{"rating": '), number, pl.lit("}"))


def _distinct(table: pa.Table, column: str) -> int:
    return int(pc.count_distinct(table[column]).as_py())


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
