"""Publishing the slow views: a first run writes the whole past, each later one only what is new or has changed.

A row that may have been loaded is never written again. Midnights since the last publication get their rows; where a
late event changes what the newest row of a member or title says, the row is published again under the instant of this
publication, so that nobody sees it before it was there. Rows count from the moment the manifest names their instant.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.columns import MEMBER_SNAPSHOTS, TITLE_SNAPSHOTS
from foretaste.ops.files import read_json, write_json, write_parquet
from foretaste.ops.tables import prepared_buckets, prepared_files, read_manifest, read_prepared, read_titles
from foretaste.signals import member_snapshots as of_members
from foretaste.signals import title_snapshots as of_titles
from foretaste.signals.joins import bucket_of
from foretaste.signals.member_snapshots import member_snapshots
from foretaste.signals.midnights import DAY_US, Grid
from foretaste.signals.news import News, news
from foretaste.signals.published import (
    MANIFEST,
    MEMBER_PARTS,
    RETIRED,
    SOURCES,
    TITLE_PARTS,
    Parts,
    forget_rows,
    staging,
    writing,
)
from foretaste.signals.snapshot_config import LONG_DAYS, SnapshotConfig
from foretaste.signals.title_snapshots import title_days, title_snapshots

__all__ = ["SnapshotConfig", "build_snapshots"]

DAYS = "title_days"
"""Folder of the counts of titles by bucket, within the feature store's data; they are made again where they lack."""
_COLUMNS = sorted({*of_members.COLUMNS, *of_titles.COLUMNS})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def build_snapshots(
    prepared: Path,
    out: Path,
    config: SnapshotConfig,
    *,
    now: datetime | None = None,
    full: bool = False,
    deleted: Mapping[str, int] | None = None,
    advance: Callable[[float], None] = lambda _: None,
) -> dict[str, Any]:
    """Publish the slow views of the prepared tables to `out`/sources; returns counts of what this run did.

    `now` is the instant of publication: midnights up to it are published (default: all midnights of the data).
    Buckets whose files are those of the last run are not computed again. Members whom the tables no longer have, and
    rows up to their instant (microseconds) of members in `deleted`, are removed. Another configuration, vocabulary
    or set of columns retires the generation and publishes the past anew, and so does `full`: that is for another log.
    `advance` is called with interactions read.
    Raises FileNotFoundError where nothing was prepared, ValueError where the tables hold no interaction or `now` lies
    before what was published.
    """
    with writing(out):
        run = _run(prepared, out, config, now=now, full=full, deleted=deleted or {})
        counts = dict.fromkeys(("interactions", "buckets", "member_rows", "title_rows", "corrections", "removed"), 0)
        if run.before is not None:
            counts["removed"] += forget_rows(out, run.deleted)
        with staging(out) as stage:
            for number, bucket in enumerate(run.buckets):
                for name, count in _bucket(run, out, stage, number, bucket).items():
                    counts[name] += count
                    if name == "interactions":
                        advance(count)
            _titles(run, out, stage, counts)
            _commit(run, out, stage)
    return {**counts, "generation": run.manifest["generation"], "published_ms": run.published_ms}


@dataclass(frozen=True, slots=True)
class _Run:
    """What one run knows before it starts."""

    prepared: Path
    buckets: list[str]
    titles: Catalogue
    targets: list[str]
    config: SnapshotConfig
    grid: Grid
    deleted: Mapping[str, int]
    before: dict[str, Any] | None  # manifest of the publication before, of this generation
    since_ms: int  # instant of that publication
    published_ms: int  # of this one
    files: dict[str, str]  # fingerprint of each bucket's files
    same: frozenset[str]  # buckets whose files are those of the publication before
    manifest: dict[str, Any]

    @property
    def quiet(self) -> bool:
        """Whether no midnight has passed since the publication before that anything is known of."""
        day_ms = DAY_US // 1000
        newest = min(self.published_ms // day_ms, self.grid.last)
        return newest // self.grid.step * self.grid.step * day_ms <= self.since_ms


def _run(
    prepared: Path,
    out: Path,
    config: SnapshotConfig,
    *,
    now: datetime | None,
    full: bool,
    deleted: Mapping[str, int],
) -> _Run:
    titles, said = catalogue(read_titles(prepared)), read_manifest(prepared)
    targets, buckets = sorted(said["target_actions"]), prepared_buckets(prepared)
    fingerprint = _fingerprint(titles, targets, config)
    found = read_json(out / SOURCES / MANIFEST) if (out / SOURCES / MANIFEST).is_file() else None
    alike = found is not None and found.get("fingerprint") == fingerprint and sorted(found["buckets"]) == buckets
    before = found if alike and not full else None
    grid = _grid(prepared, buckets, config, None if before is None else before["step_days"])
    since_ms = -1 if before is None else before["published_ms"]
    published_ms = _instant(now, grid, since_ms)
    stamp = titles.fingerprint
    files = {bucket: f"{stamp}-{_files(prepared, said, bucket)}" for bucket in buckets}
    known = {} if before is None else before["buckets"]
    manifest = {
        "generation": before["generation"] if before is not None else _generation(out, fingerprint, found),
        "fingerprint": fingerprint,
        "genres": list(titles.genres),
        "kinds": list(titles.kinds),
        "catalogue_fingerprint": titles.fingerprint,
        "config": config.model_dump(mode="json"),
        "config_fingerprint": config.fingerprint(),
        "step_days": grid.step,
        "published_ms": published_ms,
        "buckets": files,
    }
    same = frozenset(bucket for bucket in buckets if known.get(bucket) == files[bucket])
    return _Run(
        prepared, buckets, titles, targets, config, grid, deleted, before, since_ms, published_ms, files, same, manifest
    )


def _fingerprint(titles: Catalogue, targets: Sequence[str], config: SnapshotConfig) -> str:
    """Of all that a row's meaning depends on."""
    columns = [str(field) for schema in (MEMBER_SNAPSHOTS, TITLE_SNAPSHOTS) for field in schema]
    said = [config.model_dump(mode="json"), titles.genres, titles.kinds, list(targets), columns]
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=6).hexdigest()


def _generation(out: Path, fingerprint: str, found: Mapping[str, Any] | None) -> str:
    """The fingerprint; where it was in use before, with a number."""
    taken = {path.name for path in (out / RETIRED).glob("*")} | ({found.get("generation")} if found else set())
    number, name = 1, fingerprint
    while name in taken:
        number += 1
        name = f"{fingerprint}_{number}"
    return name


def _instant(now: datetime | None, grid: Grid, since_ms: int) -> int:
    """The publication's instant: the last millisecond before `now`, later than any before."""
    if now is None:
        return max(grid.last * DAY_US // 1000, since_ms + 1)
    instant = ((now - _EPOCH) // timedelta(microseconds=1) - 1) // 1000
    if instant <= since_ms:
        last = _EPOCH + timedelta(milliseconds=since_ms)
        raise ValueError(f"snapshots: {now} is not after the last publication, {last}; a published row stays")
    return instant


def _files(prepared: Path, said: Mapping[str, Any], bucket: str) -> str:
    """Fingerprint of the files that make one bucket."""
    stats = [
        (str(file.relative_to(prepared)), stat.st_size, stat.st_mtime_ns)
        for file in prepared_files(prepared, "interactions", bucket=bucket)
        for stat in (file.stat(),)
    ]
    gone = said.get("tables", {}).get("superseded", {}).get(bucket, [])
    return hashlib.blake2b(json.dumps([stats, gone], default=str).encode(), digest_size=6).hexdigest()


def _grid(prepared: Path, buckets: Sequence[str], config: SnapshotConfig, step: int | None) -> Grid:
    times = (read_prepared(prepared, "interactions", columns=["at"], bucket=bucket)["at"] for bucket in buckets)
    spans = [pc.min_max(at.cast(pa.int64())).as_py() for at in times]
    first = min((span["min"] for span in spans if span["min"] is not None), default=None)
    if first is None:
        raise ValueError(f"{prepared}: the tables hold no interactions")
    last = max(span["max"] for span in spans if span["max"] is not None)
    first_day, last_day = first // DAY_US, last // DAY_US
    step = step or config.step_days or (1 if last_day - first_day < LONG_DAYS else 7)
    return Grid(step, -(-(last_day + 1) // step) * step)


def _bucket(run: _Run, out: Path, stage: Path, number: int, bucket: str) -> dict[str, int]:
    """Stage what one bucket publishes of its members, and its counts of titles; returns counts."""
    days = out / DAYS / f"{number:05d}-{run.files[bucket]}.parquet"
    same = bucket in run.same and days.is_file()
    if same and run.quiet:
        return {}
    rows = _without(read_prepared(run.prepared, "interactions", columns=_COLUMNS, bucket=bucket), run.deleted)
    if same:
        rows = _moved(rows, run)
    else:
        write_parquet(title_days(rows, run.targets, run.config).to_arrow(), stage / DAYS / days.name)
    ideal = member_snapshots(rows, run.titles, run.targets, run.grid, run.config)
    _must_be_of(ideal, number, len(run.buckets), bucket)
    parts = Parts(out / SOURCES / MEMBER_PARTS, f"{number:05d}")
    found = _news(run, ideal, parts if run.before is not None else None, key="member_id", version="member_asof_ms")
    removed = parts.rewrite(found.gone) if found.gone and not same else 0
    _stage(found, stage / MEMBER_PARTS, parts, run)
    counts = {"interactions": rows.num_rows, "buckets": 1, "member_rows": found.rows.num_rows}
    return counts | {"corrections": found.corrections, "removed": removed}


def _moved(rows: pa.Table, run: _Run) -> pa.Table:
    """Of tables that have not changed, the members of whom something enters or leaves a window since the last time."""
    day_T = np.asarray(rows["at"].cast(pa.int64())) // DAY_US
    moved_T = np.zeros(len(day_T), dtype=np.bool_)
    for days in (0, *of_members.WINDOWS):
        midnight_ms_T = run.grid.after(day_T + days) * (DAY_US // 1000)
        moved_T |= (midnight_ms_T > run.since_ms) & (midnight_ms_T <= run.published_ms)
    actors = pc.unique(rows["actor_id"].filter(pa.array(moved_T)))
    return rows.filter(pc.is_in(rows["actor_id"], value_set=actors))


def _must_be_of(rows: pa.Table, number: int, num_buckets: int, bucket: str) -> None:
    """Joins look for a member in the bucket of their hash: raise ValueError where preparation put one elsewhere."""
    for member_id in pc.unique(rows["member_id"]).to_pylist():
        if bucket_of(member_id, num_buckets) != number:
            raise ValueError(f"interactions, {bucket}: member {member_id!r} does not belong there; prepare again")


def _titles(run: _Run, out: Path, stage: Path, counts: dict[str, int]) -> None:
    """Stage what is published of titles, from the counts of all buckets."""
    days = [_days(run, out, stage, number, bucket) for number, bucket in enumerate(run.buckets)]
    parts = Parts(out / SOURCES / TITLE_PARTS, "00000")
    ideal = title_snapshots(days, run.grid, run.config)
    found = _news(run, ideal, parts if run.before is not None else None, key="title_id", version="title_asof_ms")
    _stage(found, stage / TITLE_PARTS, parts, run)
    counts["title_rows"] = found.rows.num_rows
    counts["corrections"] += found.corrections


def _days(run: _Run, out: Path, stage: Path, number: int, bucket: str) -> pl.DataFrame:
    name = f"{number:05d}-{run.files[bucket]}.parquet"
    staged = stage / DAYS / name
    return pl.read_parquet(staged if staged.is_file() else out / DAYS / name)


def _news(run: _Run, ideal: pa.Table, parts: Parts | None, *, key: str, version: str) -> News:
    """What of the rows that there ought to be has to be published."""
    ideal = ideal.filter(pc.less_equal(ideal[version], run.published_ms))
    published = None if parts is None else parts.read(ideal.schema)
    return news(ideal, published, key=key, version=version, since_ms=run.since_ms, published_ms=run.published_ms)


def _stage(found: News, folder: Path, parts: Parts, run: _Run) -> None:
    if found.rows.num_rows or run.before is None:
        write_parquet(found.rows, folder / parts.next_name(run.published_ms))


def _commit(run: _Run, out: Path, stage: Path) -> None:
    """Put the staged files in their places, the manifest last; a first publication is one rename."""
    write_json(run.manifest, stage / MANIFEST)
    days = stage / DAYS
    (out / DAYS).mkdir(exist_ok=True)
    for file in sorted(days.glob("*.parquet")):
        for old in (out / DAYS).glob(f"{file.name.partition('-')[0]}-*.parquet"):
            old.unlink()
        file.replace(out / DAYS / file.name)
    if days.is_dir():
        days.rmdir()
    if run.before is None:
        _retire(out)
        stage.replace(out / SOURCES)
        return
    for part in (MEMBER_PARTS, TITLE_PARTS):
        for file in sorted((stage / part).glob("*.parquet")):
            file.replace(out / SOURCES / part / file.name)
    (stage / MANIFEST).replace(out / SOURCES / MANIFEST)


def _retire(out: Path) -> None:
    """Set the sources aside under the name of their generation; those of an earlier version have none and go."""
    sources = out / SOURCES
    if not sources.exists():
        return
    name = read_json(sources / MANIFEST).get("generation") if (sources / MANIFEST).is_file() else None
    if name is None or (out / RETIRED / name).exists():
        shutil.rmtree(sources)
        return
    (out / RETIRED).mkdir(exist_ok=True)
    sources.replace(out / RETIRED / name)


def _without(rows: pa.Table, deleted: Mapping[str, int]) -> pa.Table:
    """Leave out what members did up to the instant at which they asked to be forgotten."""
    if not deleted:
        return rows
    limit = pc.index_in(rows["actor_id"], value_set=pa.array(list(deleted), pa.string()))
    until = pc.take(pa.array(list(deleted.values()), pa.int64()), limit)
    kept = pc.fill_null(pc.greater(rows["at"].cast(pa.int64()), until), True)
    return rows.filter(kept)
