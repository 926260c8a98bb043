"""Preparation as one would write it by hand in polars, for all events at once: what `bench prepare` compares with.

It checks the same rules, drops the same duplicates, and writes the same three tables. Everything is in memory.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from foretaste.contracts.columns import EVENTS
from foretaste.contracts.events import ACTION_CODES, ENGAGEMENT, NEEDS_TITLE, WAYS

GAP = pl.duration(minutes=30)
NOW = pl.datetime(2026, 1, 1, 0, 5, time_zone="UTC")


def valid(events: pl.LazyFrame, titles: pl.DataFrame) -> pl.LazyFrame:
    """Rows that keep every rule of sessions.validate.check_events."""
    action, title = pl.col("action"), pl.col("title_id")
    optional = ["member_id", "session_id", "title_id", "decision_id"]
    rules = [
        pl.col("event_id").is_not_null() & (pl.col("event_id") != ""),
        pl.col("at").is_not_null() & (pl.col("at") <= NOW),
        pl.col("member_id").is_not_null() | pl.col("session_id").is_not_null(),
        action.is_in(list(ACTION_CODES)),
        ~action.is_in(sorted(NEEDS_TITLE)) | title.is_not_null(),
        pl.col("played_fraction").is_null() | pl.col("played_fraction").is_between(0, 1),
        pl.col("dwell_seconds").is_null() | (pl.col("dwell_seconds").is_finite() & (pl.col("dwell_seconds") >= 0)),
        pl.col("position").is_null() | (pl.col("position") >= 0),
        pl.col("properties").is_null() | pl.col("properties").str.starts_with("{"),
        *(pl.col(name).is_null() | (pl.col(name) != "") for name in optional),
    ]
    known = titles.select("title_id", "released_at", known=pl.lit(True)).lazy()
    checked = events.filter(*rules).join(known, on="title_id", how="left", maintain_order="left")
    in_time = pl.col("released_at").is_null() | (pl.col("at") >= pl.col("released_at"))
    return checked.filter((title.is_null() | pl.col("known")) & in_time).drop("released_at", "known")


def prepare(raw: Path, out: Path) -> None:
    """Write interactions, acts, impressions and counts."""
    out.mkdir(parents=True)
    titles = pl.read_parquet(raw / "titles.parquet")
    events = (
        valid(pl.scan_parquet(raw / "events" / "*.parquet").select(EVENTS.names), titles)
        .with_columns(actor_id=pl.coalesce("member_id", pl.format("guest:{}", "session_id")))
        .sort("actor_id", "at", "event_id")
        .unique(["actor_id", "event_id"], keep="first", maintain_order=True)
        .collect()
    )
    series = titles.filter(pl.col("series_id").is_not_null()).select("title_id", "series_id")
    acts = events.filter(pl.col("action") != "impression")
    acts.select(EVENTS.names).write_parquet(out / "acts.parquet", compression="zstd", compression_level=1)
    acts = _sessions(acts)
    sessions = acts["number"].n_unique()
    _impressions(events, acts, series).write_parquet(
        out / "impressions.parquet", compression="zstd", compression_level=1
    )
    del events
    _interactions(acts, series).write_parquet(out / "interactions.parquet", compression="zstd", compression_level=1)
    pl.DataFrame({"sessions": [sessions]}).write_parquet(out / "counts.parquet")


def _sessions(acts: pl.DataFrame) -> pl.DataFrame:
    same = pl.col("actor_id") == pl.col("actor_id").shift()
    native = pl.col("session_id").is_not_null() & pl.col("session_id").shift().is_not_null()
    apart = pl.when(native).then(pl.col("session_id") != pl.col("session_id").shift())
    opens = ~same | apart.otherwise(pl.col("at").diff() > GAP)
    numbered = acts.with_columns(number=opens.fill_null(True).cum_sum())
    index = pl.col("number") - pl.col("number").first().over("actor_id")
    named = pl.col("session_id").drop_nulls().first().over("number")
    return numbered.with_columns(session_index=index.cast(pl.Int32)).with_columns(
        session=pl.coalesce(named, pl.format("{}#{}", "actor_id", "session_index"))
    )


def _impressions(events: pl.DataFrame, acts: pl.DataFrame, series: pl.DataFrame) -> pl.DataFrame:
    act = acts.select("actor_id", "event_id", "session", act_at="at")
    joined = events.join(act, on=["actor_id", "event_id"], how="left", maintain_order="left").with_columns(
        after=pl.col("session").backward_fill().over("actor_id"),
        after_at=pl.col("act_at").backward_fill().over("actor_id"),
        before=pl.col("session").forward_fill().over("actor_id"),
        before_at=pl.col("act_at").forward_fill().over("actor_id"),
    )
    shown = joined.filter(pl.col("action") == "impression").join(series, on="title_id", how="left")
    return shown.select(
        "actor_id",
        session_id=pl.when(pl.col("session_id").is_not_null())
        .then("session_id")
        .when(pl.col("after_at") - pl.col("at") <= GAP)
        .then("after")
        .when(pl.col("at") - pl.col("before_at") <= GAP)
        .then("before")
        .otherwise(pl.format("{}@{}", "actor_id", pl.col("at").to_physical())),
        at="at",
        title_id=pl.coalesce("series_id", "title_id"),
        surface="surface",
        position="position",
        decision_id="decision_id",
        propensity=pl.col("properties").str.json_path_match("$.propensity").cast(pl.Float64),
    )


def _interactions(acts: pl.DataFrame, series: pl.DataFrame) -> pl.DataFrame:
    way = pl.when(pl.col("action").is_in(list(WAYS))).then("action").forward_fill().over("number")
    turn = pl.when(pl.col("action").is_in(list(WAYS))).then(pl.struct("query")).forward_fill().over("number")
    engaged = (
        acts.with_columns(way=way, turn=turn.struct.field("query"))
        .filter(pl.col("action").is_in(sorted(ENGAGEMENT)))
        .join(series, on="title_id", how="left", maintain_order="left")
        .with_columns(
            title_id=pl.coalesce("series_id", "title_id"),
            code=pl.col("action").replace_strict(ACTION_CODES, return_dtype=pl.Int32),
        )
        .with_columns(run=pl.struct("number", "title_id").rle_id())
    )
    collapsed = engaged.group_by("run", maintain_order=True).agg(
        pl.col("actor_id", "session_index", "at", "title_id", "way", "turn").first(),
        session_id=pl.col("session").first(),
        code=pl.col("code").max(),
        dwell_seconds=pl.col("dwell_seconds").sum(),
        played_fraction=pl.col("played_fraction").max(),
        num_events=pl.len().cast(pl.Int32),
    )
    place = pl.int_range(pl.len(), dtype=pl.Int32).over("actor_id")
    rows = collapsed.with_columns(
        position=place,
        left=pl.len().over("actor_id") - place,
        num=pl.len().over("actor_id"),
        action=pl.col("code").replace_strict({v: k for k, v in ACTION_CODES.items()}, return_dtype=pl.String),
        entry=pl.col("way").replace_strict(WAYS, default="browse", return_dtype=pl.String),
        query=pl.when(pl.col("way") == "search").then("turn"),
    )
    times = rows["at"].sort()
    cut = [times[max(int(len(times) * share + 1e-9) - 1, 0)] for share in (0.8, 0.9)]
    late = (pl.col("at") > cut[0]).cast(pl.Int8) + (pl.col("at") > cut[1]).cast(pl.Int8)
    last = pl.when((pl.col("num") >= 3) & (pl.col("left") <= 2)).then(3 - pl.col("left")).otherwise(0)
    names = {0: "train", 1: "validation", 2: "test"}
    return rows.with_columns(
        split_time=late.replace_strict(names, return_dtype=pl.String),
        split_last=last.replace_strict(names, return_dtype=pl.String),
    ).drop("run", "way", "turn", "code", "left", "num")


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
