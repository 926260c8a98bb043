"""`foretaste parity`: make logged answers again from what is stored, and compare every value that was served."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.table import Table

from foretaste.contracts.columns import AT, LOGGED_EVENTS, conform
from foretaste.feedback.decision_log import decision_tables, plain_rows
from foretaste.feedback.event_log import EVENTS_FOLDER, EventLog
from foretaste.feedback.forgotten import actors_of, of_deleted
from foretaste.feedback.past import Past
from foretaste.feedback.session_log import microseconds, open_session_log
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs.cluster import cluster
from foretaste.jobs.parity_buckets import DECISION_PARTS, EVENT_PARTS, Buckets, num_buckets
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.ops.files import parquet_files, scratch_folder
from foretaste.ops.telemetry import console, progress, say
from foretaste.serving.replay import Replay
from foretaste.serving.tally import Tally
from foretaste.sessions.spread import Item, Spread, on_ray
from foretaste.signals.served import sampled
from foretaste.signals.store import FeatureStore

SHIPPED_WITHIN_SECONDS = 120.0
READ_WITHIN = timedelta(milliseconds=200)  # of its instant an answer has read the session log
ROWS_AT_ONCE = 512  # decisions held as Python values
NOT_SERVED = "logged without the values that were served"
DELETED = "of members who were deleted since"
LATER = "made since this comparison began"
NOT_ASKED = "outside the sample, the time or the limit that was asked for"


def parity(
    settings: Settings,
    *,
    decisions: Path | None = None,
    sample: float = 1.0,
    limit: int | None = None,
    since: str | None = None,
    spread: Spread | None = None,
) -> dict[str, Any]:
    """Compare the decisions at `decisions` (default: the workspace's) with what the event log and the views give.

    `sample` is a share by hash of the decision's name, `limit` the most that are compared, `since` an RFC 3339 time.
    The result is `ok` where something was compared, no value differs and no decision that was asked for had to be left
    out. Raises FileNotFoundError where there is no decision log, ValueError for a share or a time that is none.
    """
    tables, begun = settings.tables, time.monotonic()
    folder = needed(decisions or tables.serving / "decisions", made_by="serve")
    now = datetime.now(UTC)
    asked = _Asked(sample, limit, since, now, Tombstones(tables.serving / TOMBSTONES_FILE).read())
    events = shipped(settings, until=now + READ_WITHIN)
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder(tables.root, "parity"))
        if spread is None:
            stack.enter_context(cluster(settings.cluster))
        buckets = Buckets(scratch, num_buckets(folder, events))
        target = settings.serving.decision_log.target if decisions is None else None
        num = buckets.write(DECISION_PARTS, map(asked, decision_tables(folder, target)), actor=actors_of)
        buckets.write(EVENT_PARTS, parts(events), actor=lambda table: table["actor_id"])
        total = asked.tally
        with progress("parity", total=num, unit="requests") as advance:
            for found in (spread or on_ray)(buckets.items(), partial(compare_bucket, where=_where(settings))):
                tally = Tally.of(found)
                total.add(tally)
                advance(tally.decisions + tally.num_left_out)
    return _result(total, seconds=time.monotonic() - begun)


def compare_bucket(item: Item, *, where: Mapping[str, str]) -> Item:
    """Compare the decisions of one bucket; `where` has the folders of `_where`. Returns a plain Tally."""
    known = LOGGED_EVENTS.empty_table() if item[EVENT_PARTS] is None else pq.read_table(item[EVENT_PARTS])
    past = Past(first_of_each(known))
    features = Path(where["features"])
    views = FeatureStore(Path(where["repo"]), features) if features.is_dir() else None
    replay, total = Replay(Path(where["registry"]), Path(where["prepared"]), views), Tally()
    for batch in pq.ParquetFile(item[DECISION_PARTS]).iter_batches(ROWS_AT_ONCE):
        total.add(replay.compare(plain_rows(pa.Table.from_batches([batch])), past))
    return total.plain()


class _Asked:
    """Picks the decisions to compare and counts the others."""

    def __init__(
        self, sample: float, limit: int | None, since: str | None, until: datetime, deleted: Mapping[str, int]
    ) -> None:
        if not 0.0 < sample <= 1.0:
            raise ValueError(f"--sample {sample}: wanted a share above 0, at most 1")
        self._sample = sample
        self._left = limit
        self._since = None if since is None else _instant(since)
        self._until = pa.scalar(until, AT)
        self._deleted = deleted
        self.tally = Tally()

    def __call__(self, decisions: pa.Table) -> pa.Table:
        num = decisions.num_rows
        decisions = decisions.filter(pc.less_equal(decisions["at"], self._until))
        self.tally.put_aside(LATER, num - decisions.num_rows)
        gone = of_deleted(decisions, self._deleted)
        names = decisions["decision_id"].to_pylist()
        asked = pa.array([sampled(f"parity {name}", self._sample) for name in names], type=pa.bool_())
        if self._since is not None:
            asked = pc.and_(asked, pc.greater_equal(decisions["at"], self._since))
        taken = decisions.filter(pc.and_(asked, pc.invert(gone)))
        served = taken.filter(pc.is_valid(taken["served"]))
        kept = served if self._left is None else served.slice(0, self._left)
        if self._left is not None:
            self._left -= kept.num_rows
        num_gone = pc.sum(gone).as_py() or 0
        self.tally.put_aside(DELETED, num_gone)
        self.tally.put_aside(NOT_SERVED, taken.num_rows - served.num_rows)
        others = decisions.num_rows - num_gone - taken.num_rows
        self.tally.put_aside(NOT_ASKED, others + served.num_rows - kept.num_rows)
        return kept


def _instant(text: str) -> pa.Scalar:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"--since {text}: wanted a time with its offset, e.g. 2026-03-01T00:00:00Z")
    return pa.scalar(at, AT)


def parts(events: Path) -> Iterator[pa.Table]:
    """Give the tables of an event log, each row at least once, also while its parts are joined to others."""
    done: set[Path] = set()
    while fresh := [part for part in _listed(events) if part not in done]:
        for part in fresh:
            with contextlib.suppress(FileNotFoundError):  # its rows are in a part that is listed next time
                yield pq.read_table(part, partitioning=None)
            done.add(part)


def first_of_each(events: pa.Table) -> pa.Table:
    """Leave the smallest sequence of each (actor_id, event_id)."""
    rows = pl.DataFrame(pl.from_arrow(events)).sort("sequence").unique(["actor_id", "event_id"], keep="first")
    return conform(rows.to_arrow(), LOGGED_EVENTS, what="event log")


def _listed(events: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return parquet_files(events)
    return []


def shipped(settings: Settings, *, until: datetime) -> Path:
    """Folder of the event log, with all in it that was acknowledged by then.

    Raises ConnectionError where another process, which ships, does not come to an end with it.
    """
    tables = settings.tables
    deleted = Tombstones(tables.serving / TOMBSTONES_FILE).read()
    log = open_session_log(settings.serving.session_log, tables.serving)
    events = EventLog(tables.serving / EVENTS_FOLDER)
    deadline = time.monotonic() + SHIPPED_WITHIN_SECONDS
    try:
        time.sleep(max(0.0, (until - datetime.now(UTC)).total_seconds()))
        events.ship(log, deleted=deleted)
        while any(event.received_at <= microseconds(until) for event in log.pending(1)):
            if time.monotonic() > deadline:
                raise ConnectionError(f"{tables.serving}: events of before {until} still wait to be shipped")
            time.sleep(0.1)
            events.ship(log, deleted=deleted)
    finally:
        log.close()
    return tables.serving / EVENTS_FOLDER


def _where(settings: Settings) -> dict[str, str]:
    tables = settings.tables
    folders = {"registry": tables.registry, "prepared": tables.prepared, "features": tables.features}
    return {name: str(path) for name, path in folders.items()} | {"repo": str(settings.features_repo.absolute())}


def _result(total: Tally, *, seconds: float) -> dict[str, Any]:
    groups = {group: sum(total.values[name] for name in names) for group, names in _groups(total.values).items()}
    ok = total.decisions > 0 and total.num_mismatches == total.num_left_out == 0
    rate = total.decisions / seconds if seconds > 0 else 0.0
    _show(total, groups)
    say(
        f"parity: {total.decisions:,} decisions, {total.num_values:,} values, {total.num_mismatches:,} differ, "
        f"{total.num_left_out:,} left out; {seconds:.1f} s ({rate:,.0f} requests/s)"
    )
    if not total.decisions:
        say("parity: nothing was compared, so nothing is proven; serving.audit_share is the share that can be")
    return {
        "ok": ok,
        "decisions": total.decisions,
        "compared": {"decisions": total.decisions, "values": total.num_values, "groups": groups},
        "mismatches": total.mismatches,
        "left_out": total.left_out,
        "left_out_examples": total.left_out_examples,
        "set_aside": total.set_aside,
        "failed_inputs": total.failed_inputs,
        "fallbacks": total.fallbacks,
        "seconds": round(seconds, 3),
        "requests_per_second": round(rate, 1),
    }


def _groups(names: Mapping[str, int]) -> dict[str, list[str]]:
    """Names of features by group, the word before the first dot."""
    in_order = sorted(names, key=_group)
    return {group: list(found) for group, found in itertools.groupby(in_order, key=_group)}


def _group(name: str) -> str:
    return name.split(".", 1)[0]


def _show(total: Tally, groups: Mapping[str, int]) -> None:
    table = Table("feature", "values", "differ", "decisions", "example")
    for group, size in groups.items():
        wrong = {name: found for name, found in total.mismatches.items() if _group(name) == group}
        table.add_row(group, f"{size:,}", f"{sum(found['count'] for found in wrong.values()):,}", "", "")
        for name, found in sorted(wrong.items()):
            table.add_row(f"  {name}", f"{total.values.get(name, 0):,}", *_differing(found))
    for name, found in sorted(total.mismatches.items()):
        if _group(name) not in groups:
            table.add_row(name, "0", *_differing(found))
    console.print(table)
    for what, counts in (("left out", total.left_out), ("set aside", total.set_aside)):
        for reason, count in counts.items():
            example = total.left_out_examples.get(reason) if counts is total.left_out else None
            say(f"{what}: {count:,} {reason}" + (f", e.g. {example}" if example else ""))


def _differing(found: Mapping[str, Any]) -> Iterator[str]:
    one = found["example"]
    place = "" if one["place"] is None else f" at {one['place']}"
    yield f"{found['count']:,}"
    yield f"{found['decisions']:,}"
    yield f"{one['decision_id']}{place}: served {one['served']!r}, offline {one['offline']!r}"
