"""What a run has to do: nothing, what is new, all tables again from what is stored, or everything from the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa

from foretaste.contracts.columns import TITLES, conform
from foretaste.ops.files import read_json
from foretaste.ops.tables import MANIFEST
from foretaste.sessions.buckets import bucket_of, unit_key, units
from foretaste.sessions.config import PrepareConfig
from foretaste.sessions.journal import key
from foretaste.sessions.manifest import FORMAT, Manifest
from foretaste.sessions.read import read
from foretaste.sessions.sources import File, child, files_under
from foretaste.sessions.spread import Item
from foretaste.sessions.validate import validate_titles

FULL, COMPACT, INCREMENTAL = "full", "compact", "incremental"
FEWEST_BUCKETS = 8
GROWN = 4
"""Times its size that a bucket may grow before everything is divided into more of them."""
MOST_RUNS = 100
"""Runs that may be added before all tables are made again: every part of a bucket is opened by who reads it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    mode: str
    why: str
    where: str  # of the events, for messages
    titles: pa.Table
    files: list[File]  # all that the tables will hold
    new: list[File]
    units: list[Item]
    num_buckets: int
    remade: set[int]  # buckets made again although they could be added to
    made_by: str  # fingerprint of all that decides the tables beside files


def plan(
    raw: str | Path,
    more: Sequence[str],
    config: PrepareConfig,
    before: Manifest | None,
    *,
    joined: Sequence[str] = (),
    deleted: Mapping[str, int],
    full: bool,
) -> Plan:
    """Look at the sources and at what is there; of the folders `joined`, files may have gone.

    Raises ValueError where there are no events or no one catalogue.
    """
    titles = _titles(raw)
    folders = [child(raw, "events"), *more]
    files = [file for folder in dict.fromkeys(folders) for file in files_under(folder)]
    if not files:
        raise ValueError(f"{folders[0]}: no event files there; wanted Parquet, CSV or JSON lines")
    made_by = key(FORMAT, config.decides(), titles_fingerprint(titles), pl.__version__)
    why = "asked for" if full else _why_full(before, files, made_by, titles, joined)
    stored = {} if why or before is None else {name for name, *_ in before["sources"]}
    new = [file for file in files if file.name not in stored]
    found = units(new, rows=config.piece_rows)
    rows = sum(unit["rows"] for unit in found)
    if not why and before is not None and _grown(config, before, rows):
        why, new = "the buckets have grown", files
        found = units(new, rows=config.piece_rows)
        rows = sum(unit["rows"] for unit in found)
    mode, remade = FULL, set[int]()
    if not why:
        assert before is not None
        mode, why, remade = _mode(config, before, rows, len(new), deleted)
    num_buckets = before["num_buckets"] if mode != FULL and before else _num_buckets(config, rows)
    for number, unit in enumerate(found):
        unit |= {"number": number, "key": unit_key(unit, made_by, num_buckets, sorted(deleted.items()))}
    return Plan(mode, why, folders[0], titles, files, new, found, num_buckets, remade, made_by)


def found_manifest(prepared: Path) -> Manifest | None:
    """The manifest of what is there, if it is of this format."""
    path = prepared / MANIFEST
    found: Manifest | None = read_json(path) if path.is_file() else None
    return found if found is not None and found.get("format") == FORMAT else None


def titles_fingerprint(titles: pa.Table) -> str:
    """Sixteen hexadecimal digits that change with the catalogue."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, titles.schema) as stream:
        stream.write_table(titles.combine_chunks())
    return key(sink.getvalue().to_pybytes().hex())


def _why_full(
    before: Manifest | None, files: Sequence[File], made_by: str, titles: pa.Table, joined: Sequence[str]
) -> str:
    """Why everything has to be read again; empty where it need not."""
    if before is None:
        return "there is no prepared table"
    if before["made_by"] != made_by:
        changed = before["titles"] != f"titles/{titles_fingerprint(titles)}.parquet"
        return "the titles have changed" if changed else "the configuration has changed"
    there = {file.name: [file.size, file.mtime_ns] for file in files}
    for name, *about in before["sources"]:
        if name not in there and not name.startswith(tuple(f"{folder}/" for folder in joined)):
            return f"{name} is gone"
        if there.get(name, about) != about:
            return f"{name} has changed"
    return ""


def _grown(config: PrepareConfig, before: Manifest, rows: int) -> bool:
    most = GROWN * config.bucket_rows * before["num_buckets"]
    return config.num_buckets is None and int(before["read"]["events"]) + rows > most


def _mode(
    config: PrepareConfig, before: Manifest, rows: int, num_new: int, deleted: Mapping[str, int]
) -> tuple[str, str, set[int]]:
    tables = before["tables"]
    first = {bucket: found[0]["run"] for bucket, found in tables["acts"].items()}
    listed = [(b, part) for name in ("acts", "impressions") for b, found in tables[name].items() for part in found]
    whole = sum(part["rows"] for _, part in listed)
    base = sum(part["rows"] for bucket, part in listed if part["run"] == first[bucket])
    runs = max((len(found) for found in tables["tails"].values()), default=0)
    if whole - base + rows > config.compact_share * max(base, 1) or runs >= MOST_RUNS:
        return COMPACT, "much was added since the tables were made", set()
    old = before["deleted"]
    remade = {bucket_of(m, before["num_buckets"]) for m, at in deleted.items() if old.get(m) != at}
    return INCREMENTAL, f"{num_new:,} files are new", remade


def _num_buckets(config: PrepareConfig, rows: int) -> int:
    return config.num_buckets or min(max(FEWEST_BUCKETS, -(-rows // config.bucket_rows)), 10_000)


def _titles(raw: str | Path) -> pa.Table:
    files = [file for file in files_under(raw, recursive=False) if file.stem == "titles"]
    if len(files) != 1:
        names = [file.name.rpartition("/")[2] for file in files]
        raise ValueError(f"{raw}: wanted one titles file (titles.parquet), found {names}")
    source = read(files[0], TITLES)
    findings = validate_titles(source)
    if not findings.ok:
        found = "; ".join(
            f"{count} {kind}, e.g. {findings.examples[kind][0]}" for kind, count in findings.counts.items()
        )
        raise ValueError(f"{files[0]}: wanted titles without findings, found {found}")
    return conform(source.table, TITLES, what=str(files[0]))
