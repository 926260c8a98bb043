"""From raw tables to prepared ones: bad rows aside, actors in buckets, sessions, interactions, splits.

Three passes, each one task a piece of work and nothing larger than a piece or a bucket in memory:
files -> events by bucket -> interactions -> interactions with the time split, whose cuts need all of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from foretaste.contracts.columns import TITLES, conform
from foretaste.ops.files import whole_folder, write_json, write_parquet
from foretaste.sessions.buckets import Bucketing, bucket_name, units
from foretaste.sessions.config import PrepareConfig
from foretaste.sessions.manifest import MANIFEST, Counts, manifest, must_equal
from foretaste.sessions.passes import Sequencing, Splitting, stored_sketches
from foretaste.sessions.read import read
from foretaste.sessions.sequence import Collapse
from foretaste.sessions.sources import files_under
from foretaste.sessions.split import cuts
from foretaste.sessions.spread import Item, Spread, on_ray
from foretaste.sessions.validate import validate_titles

__all__ = ["PrepareConfig", "prepare"]


def prepare(
    raw: Path,
    out: Path,
    config: PrepareConfig,
    *,
    now: datetime,
    collapse: Collapse,
    advance: Callable[[float], None] = lambda _: None,
    spread: Spread = on_ray,
) -> dict[str, Any]:
    """Write the prepared tables of `raw` to `out`, whole or not at all, and return their manifest.

    `collapse` is `signals.interactions.runs`. `advance` is called with events done; all calls add up to the
    number of events read. Raises ValueError where a file cannot be read, too many rows are bad, or nothing is left.
    """
    raw, out = raw.absolute(), out.absolute()
    work = units(raw, rows=config.piece_rows)
    if not work:
        raise ValueError(f"{raw / 'events'}: no event files there; wanted Parquet, CSV or JSON lines")
    titles = _titles(raw)
    with whole_folder(out) as folder:
        staging = _folders(folder, config.num_buckets)
        write_parquet(titles, folder / "titles.parquet")
        bucketing = Bucketing(
            titles=folder / "titles.parquet",
            staging=staging / "events",
            quarantine=folder / "quarantine",
            num_buckets=config.num_buckets,
            piece_rows=config.piece_rows,
            now=now,
        )
        read_counts, bad_by_kind, by_bucket = _first(_advancing(spread(work, bucketing), advance), raw, config)
        buckets: list[Item] = [{"bucket": bucket_name(b), "events": n} for b, n in enumerate(by_bucket)]
        sequencing = Sequencing(folder, staging, config.rule, collapse)
        counts = _added(_advancing(spread(buckets, sequencing), advance)) | read_counts
        advance(counts["bad"] / 2)
        _must_agree(counts)
        if not counts["interactions"]:
            raise ValueError(f"{raw / 'events'}: of {counts['events']:,} events none is an interaction with a title")
        shares = {"validation_share": config.validation_share, "test_share": config.test_share}
        cut = cuts(stored_sketches(staging), **shares)
        splits = _added(spread(buckets, Splitting(folder, staging, cut)))
        shutil.rmtree(staging)
        said = manifest(
            config,
            now=now,
            num_titles=titles.num_rows,
            bad_by_kind=bad_by_kind,
            counts=counts,
            cut=cut,
            splits=splits,
        )
        write_json(said, folder / MANIFEST)
    return said


def _titles(raw: Path) -> pa.Table:
    files = [Path(f.name) for f in files_under(raw, recursive=False) if f.stem == "titles"]
    if len(files) != 1:
        raise ValueError(f"{raw}: wanted one titles file (titles.parquet), found {[path.name for path in files]}")
    source = read(files[0], TITLES)
    findings = validate_titles(source)
    if not findings.ok:
        found = "; ".join(
            f"{count} {kind}, e.g. {findings.examples[kind][0]}" for kind, count in findings.counts.items()
        )
        raise ValueError(f"{files[0]}: wanted titles without findings, found {found}")
    return conform(source.table, TITLES, what=str(files[0]))


def _folders(folder: Path, num_buckets: int) -> Path:
    """Make every folder beforehand, so that a bucket without rows is a folder with an empty table, too."""
    staging = folder / ".staging"
    buckets = [bucket_name(number) for number in range(num_buckets)]
    for parent in (
        folder / "acts",
        folder / "interactions",
        folder / "impressions",
        staging / "events",
        staging / "interactions",
    ):
        for bucket in buckets:
            (parent / bucket).mkdir(parents=True)
    (folder / "quarantine").mkdir()
    (staging / "sketches").mkdir()
    return staging


def _first(done: Iterator[Item], raw: Path, config: PrepareConfig) -> tuple[Counts, Counts, list[int]]:
    """Add up the first pass: counts, bad rows by kind, good rows by bucket; stop where too many are bad."""
    events, by_kind, by_bucket = 0, dict[str, int](), [0] * config.num_buckets
    for item in done:
        events += item["events"]
        by_bucket = [a + b for a, b in zip(by_bucket, item["by_bucket"], strict=True)]
        for kind, count in item["bad"].items():
            by_kind[kind] = by_kind.get(kind, 0) + count
    bad = sum(by_kind.values())
    if not events:
        raise ValueError(f"{raw / 'events'}: the files have no rows")
    if bad > config.max_bad_share * events:
        raise ValueError(
            f"{raw / 'events'}: {bad:,} of {events:,} rows are bad ({bad / events:.1%}, at most "
            f"{config.max_bad_share:.1%} allowed by max_bad_share): {by_kind}; run `foretaste validate` to see them"
        )
    must_equal("events read", events, "bad and by bucket", bad + sum(by_bucket))
    return {"events": events, "bad": bad}, by_kind, by_bucket


def _advancing(done: Iterator[Item], advance: Callable[[float], None]) -> Iterator[Item]:
    """Pass answers on; each event counts one half in each of the two passes that are long."""
    for item in done:
        advance(item["events"] / 2)
        yield item


def _added(done: Iterator[Item]) -> Counts:
    total: Counts = {}
    for item in done:
        for name, count in item.items():
            total[name] = total.get(name, 0) + count
    return total


def _must_agree(counts: Counts) -> None:
    kinds = ("duplicates", "engagement_events", "impression_events", "other_events")
    must_equal("good events", counts["events"] - counts["bad"], " + ".join(kinds), sum(counts[kind] for kind in kinds))
    must_equal("engagement events", counts["engagement_events"], "those in interactions", counts["events_in_runs"])
