"""The slow views measured: publishing, loading, joins at past instants and reads, each beside its plain comparator.

Shapes: T interactions, B questions, C titles of a pool.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.columns import AT, INTERACTIONS, MEMBER_SNAPSHOTS, TITLES
from foretaste.jobs.settings import Settings
from foretaste.ops.files import write_json, write_parquet
from foretaste.ops.telemetry import progress
from foretaste.signals.joins import bucket_of, join_rows
from foretaste.signals.published import MEMBER_PARTS, SOURCES
from foretaste.signals.snapshots import build_snapshots
from foretaste.signals.store import MEMBERS, FeatureStore
from foretaste.signals.views import TITLE_COUNTS, TITLE_REALS, TitleView

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, NUM_TITLES, NUM_GENRES, NUM_BUCKETS = 120, 2_000, 12, 8
MEMBERS_FULL, MEMBERS_QUICK, ROWS_A_MEMBER = 50_000, 1_000, 20
QUESTIONS, QUESTIONS_QUICK = 100_000, 10_000
SLATE = 40
READS, POOL = 2_000, 100
MEMBER_MS, TITLES_MS = 0.15, 0.05
_DAY_US = 86_400_000_000


def feature_figures(settings: Settings, *, quick: bool) -> dict[str, Any]:
    """Measure in a folder of its own under the workspace; returns `figures`, `bars` and what was `skipped`."""
    folder = settings.tables.root / "bench" / "features"
    shutil.rmtree(folder, ignore_errors=True)
    num_members = MEMBERS_QUICK if quick else MEMBERS_FULL
    prepared, known = _prepared(folder / "prepared", num_members)
    store = FeatureStore(settings.features_repo.absolute(), folder / "features")
    try:
        figures = {"publish": _publish(settings, prepared, folder, store)}
        figures["join"] = _join(store, folder, num_members, QUESTIONS_QUICK if quick else QUESTIONS)
        figures["read"] = _read(store, folder, known, num_members)
    finally:
        store.close()
    shutil.rmtree(folder, ignore_errors=True)
    return {"figures": figures, "bars": _bars(figures), "skipped": {}}


def _bars(figures: dict[str, Any]) -> dict[str, Any]:
    join, read = figures["join"], figures["read"]
    wanted = {
        "cells of the join that differ from polars": (join["cells_different"], 0),
        "questions of the join that were dropped": (join["questions"] - join["answers"], 0),
        "a member's slow features, median ms": (read["member_ms"], MEMBER_MS),
        f"{POOL} titles from the matrix, median ms": (read["titles_ms"], TITLES_MS),
    }
    return {
        name: {"value": value, "want": f"<= {most}", "holds": value <= most} for name, (value, most) in wanted.items()
    }


def _publish(settings: Settings, prepared: Path, folder: Path, store: FeatureStore) -> dict[str, Any]:
    """The whole past, and then a day of it more."""
    first, second = START + timedelta(days=DAYS - 1), START + timedelta(days=DAYS + 1)
    figures: dict[str, Any] = {}
    for name, now in (("full", first), ("incremental", second)):
        with progress(f"publish, {name}", total=None) as advance:
            begun = time.perf_counter()
            done = build_snapshots(prepared, folder / "features", settings.snapshots, now=now, advance=advance)
            published = time.perf_counter()
        store.apply()
        with progress(f"load, {name}", total=None) as advance:
            begun_load = time.perf_counter()
            loaded = sum(store.materialize(now).values())
            seconds = time.perf_counter() - begun_load
            advance(loaded)
        figures[name] = {
            "interactions": done["interactions"],
            "rows": done["member_rows"] + done["title_rows"],
            "publish_seconds": round(published - begun, 3),
            "loaded_rows": loaded,
            "load_seconds": round(seconds, 3),
            "loaded_rows_per_second": round(loaded / seconds),
        }
    return figures


def _join(store: FeatureStore, folder: Path, num_members: int, size: int) -> dict[str, Any]:
    """Our join by bucket beside one `join_asof` of polars over the same files, cell by cell."""
    dice = np.random.default_rng(1)
    ids = [_name(number) for number in dice.integers(0, num_members + num_members // 20 + 1, size)]
    at_B = _us(START) + dice.integers(-2, DAYS + 3, size) * _DAY_US + dice.choice([0, -1, 1, 1_000, _DAY_US // 3], size)
    at_B[: SLATE * 50] = np.repeat(at_B[:50], SLATE)  # slates at one timestamp
    rule = store.join_rule(MEMBERS)
    begun = time.perf_counter()
    found = join_rows(rule, ids, at_B)
    ours = time.perf_counter() - begun
    begun = time.perf_counter()
    wanted = _by_polars(folder / "features" / SOURCES / MEMBER_PARTS, ids, at_B)
    theirs = time.perf_counter() - begun
    names = [name for name in MEMBER_SNAPSHOTS.names if name not in ("member_id", "at")]
    mine = pl.from_arrow(found.select(names))
    assert isinstance(mine, pl.DataFrame)
    different = sum(int(mine[name].ne_missing(wanted[name]).sum()) for name in names)
    return {
        "questions": size,
        "answers": found.num_rows,
        "with_a_row": size - int(wanted["member_asof_ms"].null_count()),
        "cells": size * len(names),
        "cells_different": different,
        "seconds": round(ours, 3),
        "polars_seconds": round(theirs, 3),
        "time_over_polars": round(ours / theirs, 2),
    }


def _by_polars(folder: Path, ids: list[str], at_B: NDArray[np.int64]) -> pl.DataFrame:
    right = pl.read_parquet(folder / "*.parquet").sort("at")
    left = pl.DataFrame({"member_id": ids, "asked": at_B}).with_row_index("row")
    left = left.with_columns(asked=pl.col("asked").cast(pl.Datetime("us", "UTC"))).sort("asked")
    joined = left.join_asof(
        right, left_on="asked", right_on="at", by="member_id", allow_exact_matches=False, check_sortedness=False
    )
    return joined.sort("row")


def _read(store: FeatureStore, folder: Path, known: Catalogue, num_members: int) -> dict[str, Any]:
    """A member's row beside a bare SELECT of it, and titles of a pool beside a bare matrix."""
    dice = np.random.default_rng(2)
    at = _us(START + timedelta(days=DAYS + 2))
    ids = [_name(number) for number in dice.integers(0, num_members, READS)]
    titles = store.titles(known, at)
    pools = dice.integers(1, len(known) + 1, (READS, POOL))
    names = [*TITLE_COUNTS.values(), *TITLE_REALS.values()]
    matrix = np.stack([getattr(titles, name).astype(np.float64) for name in names], axis=1)
    table, keys = store.online_keys(MEMBERS, ids)
    with closing(sqlite3.connect(f"file:{folder / 'features' / 'online.db'}?mode=ro", uri=True)) as connection:
        sql = f'SELECT feature_name, value FROM "{table}" WHERE entity_key = ?'
        figures = {
            "member_ms": _median(lambda n: store.members([ids[n]], at)),
            "member_raw_sqlite_ms": _median(lambda n: connection.execute(sql, (keys[n],)).fetchall()),
            "titles_ms": _median(lambda n: _pool(titles, names, pools[n])),
            "titles_raw_numpy_ms": _median(lambda n: matrix[pools[n]]),
        }
    figures["member_over_raw"] = round(figures["member_ms"] / figures["member_raw_sqlite_ms"], 2)
    return figures | {"reads": READS, "members": num_members, "titles": len(known)}


def _pool(titles: TitleView, names: list[str], codes_C: NDArray[np.int64]) -> list[NDArray[Any]]:
    return [getattr(titles, name)[codes_C] for name in names]


def _median(call: Callable[[int], Any]) -> float:
    """Median milliseconds of a call."""
    taken = np.empty(READS)
    for number in range(READS):
        begun = time.perf_counter()
        call(number)
        taken[number] = time.perf_counter() - begun
    return round(float(np.median(taken)) * 1_000, 5)


def _prepared(folder: Path, num_members: int) -> tuple[Path, Catalogue]:
    """Interactions by dice, in the buckets and with the manifest of a preparation."""
    dice = np.random.default_rng(0)
    genres = [f"g{number:02d}" for number in range(NUM_GENRES)]
    rows = [
        {"title_id": f"t{n:05d}", "kind": ("movie", "show")[n % 2], "genres": [genres[n % NUM_GENRES]], "artworks": []}
        for n in range(NUM_TITLES)
    ]
    titles = pa.Table.from_pylist(rows, schema=TITLES)
    bucket_M = np.array([bucket_of(_name(number), NUM_BUCKETS) for number in range(num_members)])
    parts: dict[str, list[dict[str, Any]]] = {}
    for bucket in range(NUM_BUCKETS):
        name = f"bucket={bucket:04d}"
        file = f"interactions/{name}/part.parquet"
        write_parquet(_interactions(np.flatnonzero(bucket_M == bucket), dice), folder / file)
        parts[name] = [{"file": file, "run": 1}]
    write_parquet(titles, folder / "titles.parquet")
    write_json({"tables": {"interactions": parts}, "target_actions": ["complete", "play"]}, folder / "manifest.json")
    return folder, catalogue(titles)


def _interactions(members_M: NDArray[np.int64], dice: np.random.Generator) -> pa.Table:
    size = len(members_M) * ROWS_A_MEMBER
    member_T = np.repeat(members_M, ROWS_A_MEMBER)
    at_T = _us(START) + dice.integers(0, DAYS * _DAY_US, size)
    order_T = np.lexsort((at_T, member_T))
    title_T = (dice.zipf(1.3, size) - 1) % NUM_TITLES
    columns = {
        "actor_id": pa.array([_name(number) for number in member_T.tolist()]),
        "session_id": pa.array([f"s{number}" for number in range(size)]),
        "session_index": pa.array(np.tile(np.arange(ROWS_A_MEMBER, dtype=np.int32), len(members_M))),
        "position": pa.array(np.tile(np.arange(ROWS_A_MEMBER, dtype=np.int32), len(members_M))),
        "at": pa.array(at_T[order_T]).cast(AT),
        "title_id": pa.array([f"t{number:05d}" for number in title_T]),
        "action": pa.array(np.array(["play", "complete", "detail"])[dice.integers(0, 3, size)]),
        "dwell_seconds": pa.array(np.zeros(size)),
        "played_fraction": pa.array(dice.uniform(size=size)),
        "num_events": pa.array(np.ones(size, dtype=np.int32)),
        "entry": pa.array(["browse"] * size),
        "query": pa.nulls(size, pa.string()),
    }
    return pa.table({name: array.cast(INTERACTIONS.field(name).type) for name, array in columns.items()})


def _name(number: int) -> str:
    return f"m{number:07d}"


def _us(at: datetime) -> int:
    return round(at.timestamp()) * 1_000_000
