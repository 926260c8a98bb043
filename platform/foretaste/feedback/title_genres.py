"""Of which genres titles are, and which series an episode belongs to: what the join of outcomes reads of titles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import polars as pl
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class TitleGenres:
    """Read from a TITLES table once a process."""

    series: dict[str, str]  # by episode
    genres: pl.DataFrame  # title_id, genre: one row each

    @classmethod
    def of(cls, titles: pa.Table) -> Self:
        """Take what is needed of TITLES."""
        frame = pl.DataFrame(pl.from_arrow(titles.select(["title_id", "series_id", "genres"])))
        episodes = frame.filter(pl.col("series_id").is_not_null())
        series = dict(zip(episodes["title_id"].to_list(), episodes["series_id"].to_list(), strict=True))
        own = frame.filter(pl.col("series_id").is_null()).select("title_id", genre="genres")
        genres = own.explode("genre").drop_nulls().unique(maintain_order=True)
        return cls(series, genres)

    @classmethod
    def nothing(cls) -> Self:
        """No catalogue: titles are themselves, and of no genre."""
        return cls({}, pl.DataFrame(schema={"title_id": pl.String, "genre": pl.String}))

    def rolled(self, column: str) -> pl.Expr:
        """The title that is recommended: of an episode its series, else itself."""
        title = pl.col(column)
        if not self.series:
            return title
        return title.replace(list(self.series), list(self.series.values()))
