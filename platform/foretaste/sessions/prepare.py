"""From raw tables to prepared ones: bad rows aside, actors in buckets, sessions, interactions, splits.

Two passes, each one task a piece of work and nothing larger than a piece or a bucket in memory: files -> good events by
bucket -> tables by bucket. A run commits by writing its manifest, and the next one reads only files that are new: see
`plan.py` for when it does all again, `passes.py` for what is added to a bucket, `journal.py` for what survives a kill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foretaste.contracts.splits import Cuts
from foretaste.ops.files import read_parquet, write_json, write_parquet
from foretaste.ops.tables import MANIFEST, SUPERSEDED
from foretaste.sessions.buckets import Bucketing, actor_ids, bucket_name
from foretaste.sessions.config import PrepareConfig
from foretaste.sessions.journal import Journal, key, locked
from foretaste.sessions.manifest import Counts, Manifest, added, manifest, must_equal, stored_cuts
from foretaste.sessions.passes import BucketWork, splits_of, stored_sketches
from foretaste.sessions.plan import FULL, INCREMENTAL, Plan, found_manifest, plan, titles_fingerprint
from foretaste.sessions.sequence import Collapse
from foretaste.sessions.sources import is_uri
from foretaste.sessions.split import Sketch, cuts
from foretaste.sessions.spread import Item, Spread, on_ray
from foretaste.sessions.store import TABLES, Part

__all__ = ["PrepareConfig", "prepare"]


def prepare(
    raw: str | Path,
    out: Path,
    config: PrepareConfig,
    *,
    now: datetime,
    collapse: Collapse,
    advance: Callable[[float], None] = lambda _: None,
    spread: Spread = on_ray,
    more_events: tuple[str, ...] = (),
    joined_events: tuple[str, ...] = (),
    deleted: Mapping[str, int] | None = None,
    full: bool = False,
) -> dict[str, Any]:
    """Bring the prepared tables at `out` up to date with `raw` and return their manifest.

    `raw` is a folder or a URI (sources.py) with events/ and one titles file; `more_events` are further folders of event
    files, beside those of the configuration. Only files that no earlier run has read are read, unless something else
    has changed or `full`; the manifest says under `run` what was done and why. In `joined_events`, which are more such
    folders, a file may go as long as its rows are in another (an event log that joins its parts): what is read again
    are duplicates. Rows of an actor in `deleted` (contracts.events.actor_id) up to that time (microseconds) are
    dropped, and so is what is stored of them.

    `collapse` is `signals.interactions.runs`. `advance` is called with events done; all calls add up to the number of
    events read. Tables are whole at any time: what was committed before stays readable until the manifest is replaced.
    Raises ValueError where a file cannot be read, too many rows are bad, or nothing is left; RuntimeError while
    another run writes to `out`.
    """
    raw = raw if is_uri(raw) else Path(raw).absolute()
    out = out.absolute()
    limits = dict(sorted((deleted or {}).items()))
    with locked(out):
        journal = Journal(out)
        before = found_manifest(out)
        more = (*config.more_events, *more_events, *joined_events)
        todo = plan(raw, more, config, before, joined=joined_events, deleted=limits, full=full)
        if before is not None and not todo.units and not todo.remade and todo.mode == INCREMENTAL:
            journal.close()
            journal.sweep(before)
            return before | {"run": before["run"] | {"mode": "nothing", "why": "no file is new"}}
        return _run(todo, out, journal, before, config, limits, now, collapse, advance, spread)


def _run(
    todo: Plan,
    out: Path,
    journal: Journal,
    before: Manifest | None,
    config: PrepareConfig,
    limits: dict[str, int],
    now: datetime,
    collapse: Collapse,
    advance: Callable[[float], None],
    spread: Spread,
) -> Manifest:
    base = None if todo.mode == FULL else before
    run = 1 + (before["run"]["number"] if before else 0)
    about = (run, todo.mode, [unit["key"] for unit in todo.units], limits, todo.made_by)
    bucket_keys = [key(b, b in todo.remade, *about) for b in range(todo.num_buckets)]
    journal.start([*(unit["key"] for unit in todo.units), *bucket_keys])
    journal.sweep(before)
    titles = _with_titles(todo.titles, out)
    bucketing = Bucketing(out / titles["file"], out, run, todo.num_buckets, config.piece_rows, now, limits)
    units = list(_advancing(spread(todo.units, bucketing), advance))
    units.sort(key=lambda done: done["number"])
    read, bad_by_kind, by_bucket = _first(units, todo, config)
    keep = stored_cuts(base) if base is not None and todo.mode == INCREMENTAL else None
    tables = {t: dict((base or {}).get("tables", {}).get(t, {})) for t in (*TABLES, "quarantine")}
    work = BucketWork(
        prepared=out,
        titles=out / titles["file"],
        run=run,
        staged=tuple(name for done in units for name in done["staged"]),
        rule=config.rule,
        collapse=collapse,
        deleted=limits,
        cut=keep,
    )
    items: list[Item] = [
        {
            "bucket": b,
            "key": bucket_keys[b],
            "rows": rows,
            "remake": todo.mode != INCREMENTAL or b in todo.remade,
            "parts": {t: tables[t].get(bucket_name(b), []) for t in TABLES},
        }
        for b, rows in enumerate(by_bucket)
        if rows or todo.mode != INCREMENTAL or b in todo.remade
    ]
    done = list(_advancing(spread(items, work), advance))
    advance((read["bad"] + read["deleted"]) / 2)
    done.sort(key=lambda item: item["number"])
    ends = _cut(done, items, out, config) if keep is None else keep
    counts = {name: dict(found) for name, found in ((base or {}).get("buckets", {})).items()}
    erased = 0
    for item, record in zip(items, done, strict=True):
        erased += _take(item, record, counts, tables)
    aside = tables["quarantine"].get("all", [])
    if base is not None and limits != base["deleted"]:
        aside = _without(aside, limits, run, out)
    tables["quarantine"] = {"all": [*aside, *(part for unit in units for part in unit["quarantine"])]}
    read = added((base or {}).get("read", {}), read, {"deleted": erased})
    said = manifest(
        config,
        now=now,
        run={
            "number": run,
            "mode": todo.mode,
            "why": todo.why,
            "files": len(todo.new),
            "events": sum(unit["events"] for unit in units),
        },
        made_by=todo.made_by,
        num_buckets=todo.num_buckets,
        files=todo.files,
        titles=titles,
        deleted=limits,
        bad_by_kind=added((base or {}).get("bad_by_kind", {}), bad_by_kind),
        read=read,
        buckets=counts,
        cut=ends,
        tables={name: found for name, found in tables.items() if name != SUPERSEDED or found},
    )
    write_json(said, out / MANIFEST)
    journal.close()
    return said


def _with_titles(titles: pa.Table, out: Path) -> dict[str, Any]:
    """Store the catalogue under a name of its own, so that tables keep the one they were made with."""
    file = f"titles/{titles_fingerprint(titles)}.parquet"
    if not (out / file).is_file():
        write_parquet(titles, out / file)
    return {"file": file, "rows": titles.num_rows}


def _first(units: list[Item], todo: Plan, config: PrepareConfig) -> tuple[Counts, Counts, list[int]]:
    """Add up the first pass: counts, bad rows by kind, good rows by bucket; stop where too many are bad."""
    by_kind = added(*(unit["bad"] for unit in units))
    by_bucket = [sum(counts) for counts in zip(*(unit["by_bucket"] for unit in units), strict=True)]
    by_bucket = by_bucket or [0] * todo.num_buckets
    events, gone = sum(u["events"] for u in units), sum(u["deleted"] for u in units)
    bad = sum(by_kind.values())
    if not events and todo.mode == FULL:
        raise ValueError(f"{todo.where}: the files have no rows")
    if bad > config.max_bad_share * events:
        raise ValueError(
            f"{todo.where}: {bad:,} of {events:,} rows are bad ({bad / events:.1%}, at most "
            f"{config.max_bad_share:.1%} allowed by max_bad_share): {by_kind}; run `foretaste validate` to see them"
        )
    must_equal("events read", events, "bad, deleted and by bucket", bad + gone + sum(by_bucket))
    return {"events": events, "bad": bad, "deleted": gone}, by_kind, by_bucket


def _advancing(done: Iterator[Item], advance: Callable[[float], None]) -> Iterator[Item]:
    """Pass answers on; each event counts one half in each of the two passes."""
    for item in done:
        advance(item["events"] / 2)
        yield item


def _cut(done: list[Item], items: list[Item], out: Path, config: PrepareConfig) -> Cuts:
    """Find the cuts of all interactions and count those of every bucket by part."""
    sketches = stored_sketches(out, [record["sketch"] for record in done])
    if not sum(sketch.num for sketch in sketches):
        raise ValueError(f"of {sum(i['rows'] for i in items):,} events none is an interaction with a title")
    ends = cuts(sketches, validation_share=config.validation_share, test_share=config.test_share)
    for sketch, record in zip(sketches, done, strict=True):
        record["counts"] |= splits_of(_all_times(sketch, record, out), ends)
    return ends


def _all_times(sketch: Sketch, record: Item, out: Path) -> Any:
    if len(sketch.at_S) == sketch.num:
        return sketch.at_S
    (part,) = record["parts"]["interactions"]
    return pq.read_table(out / part["file"], columns=["at"])["at"].cast(pa.int64()).to_numpy()


def _take(item: Item, record: Item, counts: dict[str, Counts], tables: dict[str, Any]) -> int:
    """Put what was done of a bucket into counts and tables; returns stored rows of deleted members that went."""
    bucket = bucket_name(item["bucket"])
    old = counts.get(bucket, {})
    if item["remake"]:
        new = dict(record["counts"])
        erased = new.pop("erased")
        counts[bucket] = new | {"duplicates": new["duplicates"] + old.get("duplicates", 0)}
        for table in TABLES:
            tables[table].pop(bucket, None)
            if table in record["parts"]:
                tables[table][bucket] = record["parts"][table]
        return int(erased)
    counts[bucket] = added(old, record["counts"])
    for table, parts in record["parts"].items():
        tables[table][bucket] = [*tables[table].get(bucket, []), *parts]
    return 0


def _without(parts: list[Part], limits: Mapping[str, int], run: int, out: Path) -> list[Part]:
    """Rows set aside, without those of deleted actors."""
    kept = []
    for part in parts:
        rows = read_parquet(out / part["file"])
        texts = [
            rows[name].cast(pa.string()) if name in rows.column_names else pa.nulls(rows.num_rows, pa.string())
            for name in ("member_id", "session_id")
        ]
        actors = actor_ids(pa.table(texts, names=["member_id", "session_id"]))
        left = rows.filter(pc.invert(pc.is_in(actors, value_set=pa.array(list(limits), pa.string()))))
        if left.num_rows == rows.num_rows:
            kept.append(part)
        elif left.num_rows:
            file = f"quarantine/{run:06d}-{Path(part['file']).name}"
            write_parquet(left, out / file)
            kept.append({"file": file, "run": run, "rows": left.num_rows})
    return kept
