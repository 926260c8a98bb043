"""`foretaste outcomes`: decisions joined with what followed on them, as of an instant.

    outcomes/20260212T000000000000Z-1a2b3c4d5e6f/      the instant, and what was set
      bucket-00000.parquet ...                         OUTCOMES
      manifest.json

A folder is whole or absent; the same log, instant and settings give the same rows. Decisions are those of the decision
log, and those that impressions of prepared logs name; events those of the event log and of prepared logs.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foretaste.contracts.columns import ACKS, AT, DECISIONS, EVENTS, IMPRESSIONS, OUTCOMES, REPORTED, conform
from foretaste.contracts.events import GUEST
from foretaste.feedback.acks import AckLog
from foretaste.feedback.decision_log import decision_tables
from foretaste.feedback.event_log import EVENTS_FOLDER
from foretaste.feedback.exposures import exposed_of_both, exposed_of_decisions, exposed_of_impressions
from foretaste.feedback.forgotten import actors_of, of_deleted
from foretaste.feedback.outcome_config import OutcomeConfig
from foretaste.feedback.outcomes import CENSORED, outcomes
from foretaste.feedback.reports import ReportLog
from foretaste.feedback.title_genres import TitleGenres
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs.parity import parts, shipped
from foretaste.jobs.parity_buckets import Buckets, num_buckets
from foretaste.jobs.prepare import spread_by_ray
from foretaste.jobs.settings import Settings
from foretaste.ops.files import PARTIAL, read_json, scratch_folder, whole_folder, write_json, write_parquet
from foretaste.ops.tables import MANIFEST, prepared_buckets, read_prepared, read_titles
from foretaste.ops.telemetry import progress, say
from foretaste.sessions.spread import Item, Spread

FORMAT = "foretaste outcomes 1"
_DONE = pa.schema([pa.field("actor_id", pa.string(), nullable=False), pa.field("received_at", AT), *EVENTS])
_ABOUT = ("decision_id", "member_id", "session_id", "surface", "at", "items", "features")
_SCHEMAS: dict[str, pa.Schema] = {
    "decisions": pa.schema([DECISIONS.field(name) for name in _ABOUT]),
    "acks": ACKS,
    "impressions": IMPRESSIONS,
    "events": _DONE,
    "reported": REPORTED,
}


def join(settings: Settings, *, as_of: str | None = None, spread: Spread | None = None) -> dict[str, Any]:
    """Write the outcomes of all decisions as of an instant (RFC 3339).

    By default now where there is a decision log; else just after the newest event of the prepared log, of which nothing
    later is known. Raises FileNotFoundError where there are no decisions, ValueError for an instant without offset.
    """
    tables, config = settings.tables, settings.outcomes
    source = _Source.of(settings)
    at = _instant(as_of) if as_of is not None else source.end()
    if source.decisions is not None:
        shipped(settings, until=min(at, datetime.now(UTC)))  # what was acknowledged by then has to be there
    deleted = Tombstones(tables.serving / TOMBSTONES_FILE).read()
    forget(tables.root, deleted)
    target = tables.outcomes / f"{at.astimezone(UTC):%Y%m%dT%H%M%S%f}Z-{config.fingerprint()}"
    with contextlib.ExitStack() as stack:
        tables.outcomes.mkdir(parents=True, exist_ok=True)
        scratch = stack.enter_context(scratch_folder(tables.root, "outcomes"))
        folder = stack.enter_context(whole_folder(target))
        items = source.divided(scratch, deleted)
        work = Joining(folder, source.prepared, at, config, deleted)
        total: Counter[str] = Counter()
        with progress("outcomes", total=None, unit="outcomes") as advance:
            for found in (spread or spread_by_ray(settings.cluster, stack))(items, work):
                total.update(found["counts"])
                advance(found["counts"]["outcomes"])
        manifest = {
            "format": FORMAT,
            "as_of": at.isoformat(),
            "config": config.model_dump(mode="json"),
            "counts": dict(sorted(total.items())),
        }
        write_json(manifest, folder / MANIFEST)
    say(f"outcomes: {total['outcomes']:,} of {total['decisions']:,} decisions as of {at.isoformat()} in {target}")
    return manifest | {"out": str(target)}


@dataclass(frozen=True, slots=True)
class Joining:
    """The work on one bucket of actors: a file of OUTCOMES; answers with counts."""

    folder: Path
    prepared: Path | None
    as_of: datetime
    config: OutcomeConfig
    deleted: Mapping[str, int]

    def __call__(self, item: Item) -> Item:
        """Join one bucket."""
        read = {name: pq.read_table(item[name]) if name in item else _SCHEMAS[name].empty_table() for name in _SCHEMAS}
        logged = exposed_of_decisions(read["decisions"], read["acks"])
        exposed = exposed_of_both(logged, exposed_of_impressions(read["impressions"]))
        found = outcomes(
            _without(exposed, self.deleted),
            _without(read["events"], self.deleted),
            read["reported"],
            _titles(self.prepared),
            as_of=self.as_of,
            config=self.config,
        )
        if found.num_rows:
            write_parquet(found, self.folder / f"bucket-{item['number']:05d}.parquet")
        return {"counts": _counts(found)}


def latest(folder: Path, name: str | None = None) -> Path:
    """The outcomes of the newest instant, or those that are named. Raises FileNotFoundError naming those there are."""
    found = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}") if not path.parent.name.startswith("."))
    if not found:
        raise FileNotFoundError(f"{folder} is not there: run `foretaste outcomes` first")
    if name is not None and name not in found:
        raise FileNotFoundError(f"{folder}: wanted one of {', '.join(found)}, found {name!r}")
    return folder / (name or max(found))


def described(folder: Path) -> dict[str, Any]:
    """What a folder of outcomes says of itself."""
    found: dict[str, Any] = read_json(folder / MANIFEST)
    return found


def forget(root: Path, deleted: Mapping[str, int]) -> int:
    """Take what is deleted out of all outcomes, rewards and predictions that were written; returns how many rows went.

    Predictions name no actor: those of decisions that their outcomes no longer have go. Rounds that were once kept
    beside rankers that learned name none either, and go whole.
    """
    removed = 0
    for folder in sorted((root / "learned").glob("*/rounds")) if deleted else ():
        removed += sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))
        shutil.rmtree(folder)
    for name in ("outcomes", "rewards") if deleted else ():
        for path in sorted((root / name).rglob("*.parquet")):
            if PARTIAL in str(path.relative_to(root)):
                continue
            table = pq.read_table(path, partitioning=None)
            removed += _rewritten(path, table, _without(table, deleted))
    for path in sorted((root / "predicted").glob("*/*/*.parquet")) if deleted else ():
        source = root / "outcomes" / path.parent.parent.name / path.name
        if PARTIAL in str(path.relative_to(root)) or not source.is_file():
            continue
        table = pq.read_table(path, partitioning=None)
        there = pq.read_table(source, columns=["decision_id"], partitioning=None)["decision_id"]
        kept = table.filter(pc.is_in(table["decision_id"], value_set=there.combine_chunks()))
        removed += _rewritten(path, table, kept)
    return removed


def _rewritten(path: Path, before: pa.Table, after: pa.Table) -> int:
    """Write what is left of a file, where that is less; returns how many rows went."""
    if after.num_rows < before.num_rows:
        write_parquet(after, path)
    return int(before.num_rows - after.num_rows)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where decisions and events are read from."""

    settings: Settings
    decisions: Path | None
    prepared: Path | None

    @classmethod
    def of(cls, settings: Settings) -> _Source:
        tables = settings.tables
        decisions = tables.serving / "decisions"
        there = (tables.prepared / MANIFEST).is_file()
        if not decisions.is_dir() and not there:
            raise FileNotFoundError(f"{decisions} is not there: run `foretaste serve` or `foretaste prepare` first")
        return cls(settings, decisions if decisions.is_dir() else None, tables.prepared if there else None)

    def end(self) -> datetime:
        if self.decisions is not None or self.prepared is None:
            return datetime.now(UTC)
        newest = [
            pc.max(read_prepared(self.prepared, table, columns=["at"], bucket=bucket)["at"]).as_py()
            for bucket in prepared_buckets(self.prepared)
            for table in ("acts", "impressions")
        ]
        known = [at for at in newest if at is not None]
        if not known:
            raise FileNotFoundError(f"{self.prepared}: nothing happened in it")
        end: datetime = max(known) + timedelta(microseconds=1)
        return end

    def divided(self, scratch: Path, deleted: Mapping[str, int]) -> list[Item]:
        """Divide everything by actor; gives what there is to do."""
        serving, config = self.settings.tables.serving, self.settings.outcomes
        folders = [path for path in (self.decisions, self.prepared, serving / EVENTS_FOLDER) if path and path.is_dir()]
        buckets = Buckets(scratch, max(config.buckets, num_buckets(*folders)), _SCHEMAS)
        if self.decisions is not None:
            target = self.settings.serving.decision_log.target
            logged = decision_tables(self.decisions, target, columns=_ABOUT)
            kept = (table.filter(pc.invert(of_deleted(table, deleted))) for table in logged)
            buckets.write("decisions", kept, actor=actors_of)
            with contextlib.closing(AckLog(serving)) as acks:
                buckets.write("acks", [acks.read()], actor=actors_of)
            with contextlib.closing(ReportLog(serving)) as reports:
                buckets.write("reported", [reports.read()], actor=actors_of)
        if self.prepared is not None:
            buckets.write("impressions", _prepared(self.prepared, "impressions"), actor=_actor)
        events = self._events(serving / EVENTS_FOLDER)
        rows = buckets.write("events", events, actor=_actor)
        return [{"number": n, "rows": rows, **files} for n, files in enumerate(buckets.files()) if files]

    def _events(self, logged: Path) -> Iterator[pa.Table]:
        if logged.is_dir():
            yield from (table.select(_DONE.names).cast(_DONE) for table in parts(logged))
        for table in _prepared(self.prepared, "acts") if self.prepared is not None else ():
            actor = pc.coalesce(table["member_id"], pc.binary_join_element_wise(GUEST, table["session_id"], ""))
            yield conform(table.append_column("actor_id", actor), _DONE, what="prepared events")


def _prepared(prepared: Path, table: str) -> Iterable[pa.Table]:
    return (read_prepared(prepared, table, bucket=bucket) for bucket in prepared_buckets(prepared))


def _actor(table: pa.Table) -> pa.ChunkedArray:
    return table["actor_id"]


@lru_cache(1)
def _titles(prepared: Path | None) -> TitleGenres:
    return TitleGenres.nothing() if prepared is None else TitleGenres.of(read_titles(prepared))


def _without(table: pa.Table, deleted: Mapping[str, int]) -> pa.Table:
    if not deleted or not table.num_rows:
        return table
    until = pl.col("actor_id").replace_strict(dict(deleted), default=-1, return_dtype=pl.Int64)
    frame = pl.DataFrame(pl.from_arrow(table)).filter(pl.col("at").dt.epoch("us") > until)
    return frame.to_arrow().cast(table.schema)


def _counts(found: pa.Table) -> dict[str, int]:
    frame = pl.DataFrame(pl.from_arrow(found))
    counts = {"outcomes": len(frame), "decisions": frame["decision_id"].n_unique()}
    happened = [name for name in OUTCOMES.names if name.endswith("_at") and name not in ("shown_at", "closes_at")]
    counts |= {name.removesuffix("_at"): len(frame) - frame[name].null_count() for name in happened}
    opened = frame["open"].explode()
    return counts | {f"open:{name}": int((opened == name).sum()) for name in CENSORED}


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"--as-of {text}: wanted a time with its offset, e.g. 2026-03-01T00:00:00Z")
    return at
