"""The slow views, day by day: what was known of each member and title at each midnight.

A row is written for a midnight on which a value may have changed, which makes the newest row before any instant
exact: an interaction enters on the midnight after it and leaves a window of w days on the w-th midnight after that;
affinities are shares, in which a decay relative to any instant cancels, so they stand still between interactions.

Shapes: T interactions sorted by (member, time), R title-days, S snapshot rows, N1 catalogue codes, G genres, K kinds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.columns import MEMBER_SNAPSHOTS, TITLE_SNAPSHOTS
from foretaste.contracts.config import Frozen
from foretaste.contracts.events import GUEST, Action
from foretaste.ops.files import whole_folder, write_json, write_parquet
from foretaste.ops.tables import prepared_buckets, read_manifest, read_prepared, read_titles
from foretaste.signals.midnights import DAY_US, EVER, MONTH, WEEK, Days, Grid
from foretaste.signals.published import MANIFEST, SOURCES

LONG_DAYS = 400
_COLUMNS = ["actor_id", "at", "title_id", "action", "played_fraction"]
_ROWS_AT_ONCE = 250_000


class SnapshotConfig(Frozen):
    """What the slow views hold."""

    step_days: int | None = Field(
        None, ge=1, le=31, description=f"days between snapshots; by default 1, and 7 for a log over {LONG_DAYS} days"
    )
    half_life_days: float = Field(30.0, ge=7, description="days after which an interaction counts half in affinities")
    browse_weight: float = Field(
        0.25, ge=0, le=1, description="what an interaction that is no choice adds to affinities, a choice being 1"
    )
    complete_from: float = Field(0.9, gt=0, le=1, description="played fraction (0..1) that counts as completed")
    prior_plays: float = Field(10.0, gt=0, description="plays without completion that every title is given beforehand")


def build_snapshots(
    prepared: Path, out: Path, config: SnapshotConfig, *, advance: Callable[[float], None] = lambda _: None
) -> dict[str, Any]:
    """Write `out`/sources/{members,titles}/*.parquet with a manifest, whole or not at all; returns the counts.

    Members are done bucket by bucket, titles are counted by bucket and day first. `advance` is called with
    interactions read. Raises FileNotFoundError where `prepared` has no files, ValueError where they hold nothing.
    """
    titles = catalogue(read_titles(prepared))
    targets = sorted(read_manifest(prepared)["target_actions"])
    buckets = prepared_buckets(prepared)
    grid = _grid(prepared, buckets, config)
    counts = dict.fromkeys(("interactions", "members", "member_rows", "titles", "title_rows"), 0)
    with whole_folder(out / SOURCES) as folder:
        days = []
        for number, bucket in enumerate(buckets):
            rows = read_prepared(prepared, "interactions", columns=_COLUMNS, bucket=bucket)
            snapshots = member_snapshots(rows, titles, targets, grid, config)
            write_parquet(snapshots, folder / "members" / f"{number:05d}.parquet")
            days.append(title_days(rows, targets, config))
            counts["interactions"] += rows.num_rows
            counts["members"] += pc.count_distinct(snapshots["member_id"]).as_py()
            counts["member_rows"] += snapshots.num_rows
            advance(rows.num_rows)
        snapshots = title_snapshots(days, grid, config)
        write_parquet(snapshots, folder / "titles" / "00000.parquet")
        counts |= {"titles": pc.count_distinct(snapshots["title_id"]).as_py(), "title_rows": snapshots.num_rows}
        write_json(_manifest(titles, grid, config) | {"counts": counts}, folder / MANIFEST)
    return counts


def _manifest(titles: Catalogue, grid: Grid, config: SnapshotConfig) -> dict[str, Any]:
    """What readers need: the order of the affinities' columns above all."""
    columns = [str(field) for schema in (MEMBER_SNAPSHOTS, TITLE_SNAPSHOTS) for field in schema]
    said = json.dumps([config.model_dump(mode="json"), titles.genres, titles.kinds, columns])
    return {
        "generation": hashlib.blake2b(said.encode(), digest_size=6).hexdigest(),
        "genres": list(titles.genres),
        "kinds": list(titles.kinds),
        "catalogue_fingerprint": titles.fingerprint,
        "config": config.model_dump(mode="json"),
        "config_fingerprint": config.fingerprint(),
        "step_days": grid.step,
        "until_ms": grid.last * DAY_US // 1000,
    }


def _grid(prepared: Path, buckets: Sequence[str], config: SnapshotConfig) -> Grid:
    times = (read_prepared(prepared, "interactions", columns=["at"], bucket=bucket)["at"] for bucket in buckets)
    spans = [pc.min_max(at.cast(pa.int64())).as_py() for at in times]
    first = min((span["min"] for span in spans if span["min"] is not None), default=None)
    if first is None:
        raise ValueError(f"{prepared}: the tables hold no interactions")
    last = max(span["max"] for span in spans if span["max"] is not None)
    first_day, last_day = first // DAY_US, last // DAY_US
    step = config.step_days or (1 if last_day - first_day < LONG_DAYS else 7)
    return Grid(step, -(-(last_day + 1) // step) * step)


def member_snapshots(
    interactions: pa.Table, titles: Catalogue, targets: Sequence[str], grid: Grid, config: SnapshotConfig
) -> pa.Table:
    """Snapshot the members of an INTERACTIONS table, sorted by (actor_id, at); guests have none. MEMBER_SNAPSHOTS.

    An affinity is the share of a genre (kind) in what the member touched: a choice counts 1, another interaction
    `browse_weight`, a thumb down nothing, a title of several genres is divided between them, all halved every
    `half_life_days`. Raises ValueError where an actor's rows do not stand together.
    """
    members = interactions.filter(pc.invert(pc.starts_with(interactions["actor_id"], GUEST)))
    parts = [_snapshots_of(part, titles, targets, grid, config) for part in _whole_actors(members)]
    return pa.concat_tables([MEMBER_SNAPSHOTS.empty_table(), *parts])


def _whole_actors(rows: pa.Table) -> Iterator[pa.Table]:
    """Divide a table between actors, so that what is wide is held for some rows at a time only."""
    coded = rows["actor_id"].combine_chunks().dictionary_encode()
    code_T = np.asarray(coded.indices, dtype=np.int64)
    if (np.diff(code_T) < 0).any():
        raise ValueError("interactions: the rows of an actor do not stand together; sort by (actor_id, position)")
    starts = np.searchsorted(code_T, np.arange(len(coded.dictionary)))
    first = 0
    while first < rows.num_rows:
        later = starts[starts > first + _ROWS_AT_ONCE]
        end = int(later[0]) if len(later) else rows.num_rows
        yield rows.slice(first, end - first)
        first = end


def _snapshots_of(
    rows: pa.Table, titles: Catalogue, targets: Sequence[str], grid: Grid, config: SnapshotConfig
) -> pa.Table:
    coded = rows["actor_id"].combine_chunks().dictionary_encode()
    member_T = np.asarray(coded.indices, dtype=np.int64)
    at_T = np.asarray(rows["at"].cast(pa.int64()))
    play_T = np.asarray(pc.is_in(rows["action"], value_set=pa.array(targets, pa.string())), dtype=np.bool_)
    days = Days.of(member_T, at_T // DAY_US)
    key_S = days.changes(grid, (WEEK, MONTH), leaves_R=play_T)
    start_S, stop_S, midnight_S = days.first(key_S), days.before(key_S), days.midnight(key_S)
    weight_T = np.where(play_T, 1.0, config.browse_weight)
    weight_T[np.asarray(pc.equal(rows["action"], Action.THUMB_DOWN.value), dtype=np.bool_)] = 0.0
    starts = np.flatnonzero(np.diff(member_T, prepend=-1))  # of each member
    mass_T = weight_T * _growth(at_T, starts, half_life_us=config.half_life_days * DAY_US)
    named = rows["title_id"].combine_chunks().dictionary_encode()
    title_T = titles.codes(named.dictionary)[np.asarray(named.indices)]
    genres_N1G = titles.genres_N1G / np.maximum(titles.genres_N1G.sum(axis=1, keepdims=True), 1.0)
    kinds_N1K = (titles.kind_N1[:, None] == np.arange(len(titles.kinds))).astype(np.float64)
    return pa.Table.from_arrays(
        [
            coded.dictionary.take(pa.array(days.entity(key_S))),
            pa.array(midnight_S * DAY_US).cast(MEMBER_SNAPSHOTS.field("at").type),
            pa.array(midnight_S * (DAY_US // 1000)),
            _shares(mass_T, genres_N1G[title_T], starts, stop_S),
            _shares(mass_T, kinds_N1K[title_T], starts, stop_S),
            pa.array(days.window(key_S, play_T, WEEK)),
            pa.array(days.window(key_S, play_T, MONTH)),
            pa.array(((at_T[stop_S - 1] - at_T[start_S]) / DAY_US).astype(np.float32)),
        ],
        schema=MEMBER_SNAPSHOTS,
    )


def _growth(at_T: NDArray[np.int64], starts: NDArray[np.int64], *, half_life_us: float) -> NDArray[np.float64]:
    """Weight of each interaction relative to its member's first: later ones weigh more. Only ratios are used."""
    first_T = np.repeat(at_T[starts], np.diff(np.append(starts, len(at_T))))
    halvings_T = (at_T - first_T) / half_life_us
    if halvings_T.max(initial=0.0) > 1000:
        raise ValueError("snapshots: a member's history spans over 1000 half-lives; raise half_life_days")
    return np.exp2(halvings_T)


def _shares(
    mass_T: NDArray[np.float64], parts_TG: NDArray[Any], starts: NDArray[np.int64], stop_S: NDArray[np.int64]
) -> pa.Array:
    """Share of each column in the mass of a member's interactions before `stop_S`; 0 throughout without mass."""
    sums_TG = mass_T[:, None] * parts_TG
    for start, end in zip(starts, np.append(starts[1:], len(mass_T)), strict=True):
        np.cumsum(sums_TG[start:end], axis=0, out=sums_TG[start:end])
    sums_SG = sums_TG[stop_S - 1]
    total_S1 = sums_SG.sum(axis=1, keepdims=True)
    shares_SG = (sums_SG / np.where(total_S1 > 0, total_S1, 1.0)).astype(np.float32)
    offsets = np.arange(len(shares_SG) + 1, dtype=np.int32) * shares_SG.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(shares_SG.reshape(-1)))


def title_days(interactions: pa.Table, targets: Sequence[str], config: SnapshotConfig) -> pl.DataFrame:
    """Count plays (choices) and completions of each title and day: columns title_id, day, plays, completed."""
    rows = pl.from_arrow(interactions.select(_COLUMNS))
    assert isinstance(rows, pl.DataFrame)
    done = (pl.col("action") == Action.COMPLETE.value) | (pl.col("played_fraction") >= config.complete_from)
    return (
        rows.filter(pl.col("action").is_in(list(targets)))
        .with_columns(day=pl.col("at").to_physical() // DAY_US, done=done.fill_null(False))
        .group_by("title_id", "day")
        .agg(plays=pl.len().cast(pl.Int64), completed=pl.col("done").sum().cast(pl.Int64))
    )


def title_snapshots(days: Sequence[pl.DataFrame], grid: Grid, config: SnapshotConfig) -> pa.Table:
    """Snapshot the titles, given their days from all buckets. TITLE_SNAPSHOTS.

    The completion rate is completed / (plays + `prior_plays`) of all time.
    """
    table = pl.concat(days).group_by("title_id", "day").sum().sort("title_id", "day")
    coded = table["title_id"].rle_id().to_numpy().astype(np.int64)
    ids = table["title_id"].unique(maintain_order=True).to_arrow().cast(pa.string())
    plays_R, completed_R = table["plays"].to_numpy(), table["completed"].to_numpy()
    rows = Days.of(coded, table["day"].to_numpy())
    key_S = rows.changes(grid, (WEEK, MONTH), leaves_R=np.ones(len(coded), dtype=np.bool_))
    midnight_S = rows.midnight(key_S)
    plays_S = rows.window(key_S, plays_R, EVER)
    rate_S = rows.window(key_S, completed_R, EVER) / (plays_S + config.prior_plays)
    return pa.Table.from_arrays(
        [
            ids.take(pa.array(rows.entity(key_S))),
            pa.array(midnight_S * DAY_US).cast(TITLE_SNAPSHOTS.field("at").type),
            pa.array(midnight_S * (DAY_US // 1000)),
            pa.array(rows.window(key_S, plays_R, WEEK)),
            pa.array(rows.window(key_S, plays_R, MONTH)),
            pa.array(plays_S),
            pa.array(rate_S.astype(np.float32)),
        ],
        schema=TITLE_SNAPSHOTS,
    )
