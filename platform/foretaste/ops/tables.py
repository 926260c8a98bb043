"""Prepared tables: which files make one, and how they are read.

A preparation commits by one atomic write of its manifest, which lists the part files of every table and bucket; a file
that it does not list is nobody's. A later run adds parts, and names the actors that it made again: their rows in the
parts of earlier runs count no more. The split columns are not stored: they follow from the manifest's cuts and from
the actor's last row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foretaste.contracts.columns import EVENTS, IMPRESSIONS, INTERACTIONS
from foretaste.contracts.splits import SPLITS, Cuts, split_last, split_time
from foretaste.ops.files import read_json, read_parquet

MANIFEST = "manifest.json"
ACTOR = "actor_id"
SUPERSEDED = "superseded"
"""Table of the manifest beside the others: actors that a run made again."""

TABLES: dict[str, pa.Schema] = {"interactions": INTERACTIONS, "acts": EVENTS, "impressions": IMPRESSIONS}
_BY_TIME = (ACTOR, "at", "event_id")
ORDER = {"interactions": (ACTOR, "position"), "acts": _BY_TIME, "impressions": _BY_TIME}
_BASIS = {"split_time": ("at",), "split_last": (ACTOR, "position")}


def read_prepared(
    prepared: Path, table: str, *, columns: Sequence[str] | None = None, bucket: str | None = None
) -> pa.Table:
    """Read a prepared table, of all buckets or of one, as its contract in contracts.columns says it.

    Rows of an actor stand together and in order, buckets in order of their names. Raises FileNotFoundError where
    nothing was prepared, ValueError where the folder is of another version.
    """
    try:
        return _read(prepared, table, columns, bucket)
    except FileNotFoundError:
        return _read(prepared, table, columns, bucket)  # a run has committed and swept between manifest and file


def prepared_buckets(prepared: Path) -> list[str]:
    """Names of the buckets of a prepared folder, in order."""
    return sorted(_tables(read_manifest(prepared), prepared)["interactions"])


def prepared_files(prepared: Path, table: str, *, bucket: str | None = None) -> list[Path]:
    """Files that make a prepared table, of all buckets or of one, in order of bucket and run."""
    found = _tables(read_manifest(prepared), prepared)[table]
    return [prepared / part["file"] for name in sorted(found) if bucket in (None, name) for part in found[name]]


def read_manifest(prepared: Path) -> dict[str, Any]:
    """Read what the last committed preparation says of itself. Raises FileNotFoundError where there is none."""
    path = prepared / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: run `foretaste prepare` first")
    manifest: dict[str, Any] = read_json(path)
    return manifest


def described(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without its lists of files: what is filed with a model."""
    return {name: value for name, value in manifest.items() if name not in ("tables", "sources", "buckets")}


def titles_file(prepared: Path) -> Path:
    """The catalogue that the tables were prepared with; it is there where a preparation was committed."""
    manifest = read_json(prepared / MANIFEST) if (prepared / MANIFEST).is_file() else {}
    return prepared / str(manifest.get("titles", "titles.parquet"))


def read_titles(prepared: Path) -> pa.Table:
    """Read the catalogue that the tables were prepared with; a TITLES table."""
    try:
        return read_parquet(titles_file(prepared))
    except FileNotFoundError:
        return read_parquet(titles_file(prepared))


def read_parts(
    prepared: Path, parts: Sequence[dict[str, Any]], gone: Sequence[dict[str, Any]], columns: Sequence[str]
) -> pl.DataFrame:
    """Read parts of one bucket one after another, without the rows of actors that a later run made again.

    `parts` and `gone` are a bucket's entries in the manifest: file and run. Columns that a part lacks are left out
    of all.
    """
    frames = []
    for part in parts:
        file = pq.ParquetFile(prepared / part["file"])
        later = [one for one in gone if one["run"] > part["run"]]
        names = [name for name in columns if name in file.schema_arrow.names]
        wanted = list(dict.fromkeys([*names, ACTOR])) if later else names
        frame = _frame(file.read(wanted, use_threads=False))
        for one in later:
            made_again = _frame(pq.read_table(prepared / one["file"], partitioning=None))
            frame = frame.join(made_again.select(ACTOR), on=ACTOR, how="anti", maintain_order="left")
        frames.append(frame.select(names))
    return pl.concat(frames, how="vertical")


def _read(prepared: Path, table: str, columns: Sequence[str] | None, bucket: str | None) -> pa.Table:
    manifest = read_manifest(prepared)
    found = _tables(manifest, prepared)
    names = [bucket] if bucket is not None else sorted(found[table])
    if bucket is not None and bucket not in found[table]:
        raise ValueError(f"{prepared}: no bucket {bucket!r}; there are {len(found[table])}")
    whole = TABLES[table]
    schema = whole if columns is None else pa.schema([whole.field(name) for name in columns])
    cut = cuts_of(manifest)
    read = [
        _bucket(prepared, found[table][name], found.get(SUPERSEDED, {}).get(name, []), table, schema, cut)
        for name in names
    ]
    return pa.concat_tables([schema.empty_table(), *read])


def _bucket(
    prepared: Path,
    parts: Sequence[dict[str, Any]],
    gone: Sequence[dict[str, Any]],
    table: str,
    schema: pa.Schema,
    cut: Cuts | None,
) -> pa.Table:
    if not parts:
        return schema.empty_table()
    needed = dict.fromkeys(schema.names)
    for name in schema.names:
        needed |= dict.fromkeys(_BASIS.get(name, ()))
    if len(parts) > 1:
        needed |= dict.fromkeys(ORDER[table])
    rows = read_parts(prepared, parts, gone, list(needed))
    if len(parts) > 1:
        rows = rows.sort(ORDER[table])
    if "split_time" in schema.names and "split_time" not in rows.columns:
        if cut is None:
            raise ValueError(f"{prepared / MANIFEST}: no cuts; run `foretaste prepare` again")
        rows = rows.with_columns(split_time=_named(split_time(rows["at"].to_physical().to_numpy(), cut)))
    if "split_last" in schema.names and "split_last" not in rows.columns:
        rows = rows.with_columns(split_last=_named(split_last(rows[ACTOR].rle_id().to_numpy().astype(np.int64))))
    later = [pl.lit(None).alias(f.name) for f in schema if f.nullable and f.name not in rows.columns]
    return rows.with_columns(later).select(schema.names).to_arrow().cast(schema)


def _named(part_T: Any) -> pl.Series:
    names = pa.DictionaryArray.from_arrays(pa.array(part_T, pa.int8()), pa.array(SPLITS.tolist()))
    series = pl.from_arrow(pc.cast(names, pa.string()))
    assert isinstance(series, pl.Series)
    return series


def cuts_of(manifest: dict[str, Any]) -> Cuts | None:
    """Instants that divide the time split, in microseconds; None where a manifest does not say them."""
    found = manifest.get("cuts")
    if found is None:
        return None
    epoch = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    us = {name: (datetime.fromisoformat(at) - epoch) // timedelta(microseconds=1) for name, at in found.items()}
    return Cuts(**us)


def _tables(manifest: dict[str, Any], prepared: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    found: dict[str, dict[str, list[dict[str, Any]]]] | None = manifest.get("tables")
    if found is None:
        raise ValueError(f"{prepared / MANIFEST}: prepared by an earlier version; run `foretaste prepare` again")
    return found


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
