"""`foretaste bench prepare`: preparation against a hand-written polars program for the same tables, in the same run.

The log is synthetic: members come back for sessions of some fifteen events, half of them impressions; one event in a
thousand is delivered twice and one in two thousand is bad.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil

from foretaste.contracts.columns import EVENTS, TITLES
from foretaste.jobs.cluster import cluster
from foretaste.jobs.settings import Settings
from foretaste.ops.files import write_parquet
from foretaste.ops.memory import peak_memory
from foretaste.ops.tables import read_prepared
from foretaste.ops.telemetry import say
from foretaste.sessions import prepare as stage
from foretaste.sessions.prepare import PrepareConfig
from foretaste.sessions.spread import by_size, on_ray
from foretaste.signals.interactions import runs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EVENTS_A_MEMBER = 50
EVENTS_A_FILE = 1_000_000
TITLES_N = 5_000
QUICK_EVENTS = 200_000
NEW_SHARE = 0.01
LATE = 200
"""Late events beside the new sessions of the second run."""
DAY_US = 86_400_000_000
START_US = 1_735_689_600_000_000  # 2025-01-01
DAYS = 300


def prepare_bench(settings: Settings, *, events: int = 10_000_000, quick: bool = False) -> dict[str, Any]:
    """Prepare so many events, twice each way, then 1% more, then twice as many; returns figures and bars.

    The bars on time and on memory are of 10M events on a machine that does nothing else; with `quick` they are shown
    and not judged.
    """
    num = QUICK_EVENTS if quick else events
    root = settings.tables.root / "bench" / "prepare"
    shutil.rmtree(root, ignore_errors=True)
    raw, out = root / "raw", root / "prepared"
    figures: dict[str, Any] = {"events": num, "load_average": os.getloadavg(), "cpus": os.cpu_count()}
    say(f"bench prepare: writing {num:,} events")
    generate(raw, num)
    config = PrepareConfig(max_bad_share=0.05)
    with cluster(settings.cluster):
        idle = tree_now()
        with peak_memory() as peak:
            _prepare(raw, out, config)
        say(f"  peak {peak.gib:.2f} GiB, idle {idle / 2**30:.2f} GiB")
        ours, theirs, cpu = [], [], []
        for _ in range(1 if quick else 2):  # memory is not watched here: to look at it takes time
            shutil.rmtree(out, ignore_errors=True)
            used = _cpu_seconds()
            ours.append(_timed(lambda: _prepare(raw, out, config)))
            used, children = _cpu_seconds() - used, _cpu_of_children()
            theirs.append(_timed(lambda: _in_a_process(raw, root / "polars")))
            cpu.append({"foretaste": round(used, 1), "polars": round(_cpu_of_children() - children, 1)})
            say(f"  foretaste {ours[-1]:.1f} s, polars {theirs[-1]:.1f} s; of CPU {cpu[-1]}")
        figures["seconds"] = {"foretaste": ours, "polars": theirs}
        figures["cpu_seconds"] = cpu
        figures["load_average_at_the_end"] = os.getloadavg()
        figures["rows_per_second"] = round(num / min(ours))
        store = settings.cluster.object_store_mib / 1024
        figures["peak_gib"] = {"all": round(peak.gib, 3), "idle": round(idle / 2**30, 3), "object_store": store}
        equal = same(out, root / "polars")
        figures["equal"] = equal
        added(raw, num)
        again = _timed(lambda: _prepare(raw, out, config))
        said = _manifest(out)["run"]
        figures["incremental"] = {"seconds": again, **said}
        shutil.rmtree(root / "once", ignore_errors=True)
        _prepare(raw, root / "once", config)
        figures["incremental"]["equal_to_one_run"] = all(
            _checksum(_rows(out, t)) == _checksum(_rows(root / "once", t))
            for t in ("interactions", "acts", "impressions")
        )
        say(f"  {said['events']:,} more events: {again:.2f} s ({said['mode']})")
        double = None
        if not quick:
            shutil.rmtree(root)
            generate(raw, 2 * num)
            with peak_memory() as large:
                figures["seconds_of_twice_as_many"] = _timed(lambda: _prepare(raw, out, config))
            double = large.gib / peak.gib
            figures["peak_gib"]["twice_as_many"] = round(large.gib, 3)
    shutil.rmtree(root, ignore_errors=True)
    skipped = {} if not quick else {"bars": "quick: too few events for time and memory to mean anything"}
    bars = {
        "tables equal those of polars": _bar(float(all(equal.values())), 1.0, at_least=True),
        "incremental tables equal those of one run": _bar(
            float(figures["incremental"]["equal_to_one_run"]), 1.0, at_least=True
        ),
    }
    if not quick:
        bars |= {
            "wall time over polars": _bar(min(ours) / min(theirs), 1.5),
            "peak memory above the object store, GiB": _bar(peak.gib - store, 2.0),
            "incremental run of 1% over full run": _bar(again / min(ours), 0.05),
            "memory of twice the events over memory": _bar(double or 0.0, 1.2),
        }
    return {"bench": "prepare", "figures": figures, "bars": bars, "skipped": skipped}


def _cpu_seconds() -> float:
    """CPU time of this process and all that runs below it, Ray included."""
    me = psutil.Process()
    total = 0.0
    for one in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total += sum(one.cpu_times()[:2])
    return total


def _cpu_of_children() -> float:
    """CPU time of child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tree_now() -> int:
    """What this process and its descendants use before the work, in bytes."""
    from foretaste.ops.memory import tree_bytes

    return tree_bytes(psutil.Process())


def generate(raw: Path, num: int, *, seed: int = 0) -> None:
    """Write a log of `num` events of num/50 members with a catalogue, files in order of time."""
    dice = np.random.default_rng(seed)
    members = max(num // EVENTS_A_MEMBER, 10)
    titles = pl.DataFrame({"title_id": [f"t{i:05d}" for i in range(TITLES_N)]}).with_columns(
        kind=pl.lit("movie"), genres=pl.lit([], dtype=pl.List(pl.String)), artworks=pl.lit([], dtype=pl.List(pl.String))
    )
    blank = [pl.lit(None).alias(f.name) for f in TITLES if f.name not in titles.columns]
    write_parquet(titles.with_columns(blank).select(TITLES.names).to_arrow().cast(TITLES), raw / "titles.parquet")
    files = -(-num // EVENTS_A_FILE)
    for number in range(files):
        rows = min(EVENTS_A_FILE, num - number * EVENTS_A_FILE)
        first, days = START_US + number * DAYS * DAY_US // files, DAYS / files
        frame = _sessions(dice, rows, members, first, days, name=f"f{number:03d}", faults=True)
        write_parquet(frame.to_arrow().cast(EVENTS), raw / "events" / f"{number:03d}.parquet")


def added(raw: Path, num: int) -> None:
    """Write 1% more: whole sessions after the end of time, and a few events that are months late."""
    dice = np.random.default_rng(1)
    members = max(num // EVENTS_A_MEMBER, 10)
    end = START_US + (DAYS + 1) * DAY_US
    rows = round(num * NEW_SHARE)
    new = _sessions(dice, rows, members, end, 2.0, name="new", faults=False)
    late = _sessions(dice, min(LATE, rows), members, START_US + 100 * DAY_US, 50.0, name="late", faults=False)
    write_parquet(pl.concat([new, late]).to_arrow().cast(EVENTS), raw / "events" / "new.parquet")


ACTIONS = ("impression", "detail", "play", "stop", "search", "browse")
SHARES = (0.5, 0.15, 0.15, 0.1, 0.05, 0.05)


def _sessions(
    dice: np.random.Generator, rows: int, members: int, first_us: int, days: float, *, name: str, faults: bool
) -> pl.DataFrame:
    """Sessions of about fifteen events with breaks of seconds to minutes, in order of time."""
    sizes = dice.geometric(1 / 15, size=rows // 10 + 2)
    sizes = sizes[: int(np.searchsorted(np.cumsum(sizes), rows)) + 1]
    session = np.repeat(np.arange(len(sizes)), sizes)[:rows]
    start = np.sort(dice.integers(0, int(days * DAY_US), len(sizes)))
    gap = dice.exponential(60e6, rows).astype(np.int64)
    opens = np.flatnonzero(np.diff(session, prepend=-1))
    since = np.cumsum(gap)
    since -= np.repeat(since[opens], np.diff(np.append(opens, rows)))
    member = dice.integers(0, members, len(sizes))[session]
    action = dice.choice(len(ACTIONS), size=rows, p=SHARES)
    title = (dice.zipf(1.2, rows) % TITLES_N).astype(np.int64)
    named = np.isin(action, [0, 1, 2, 3])
    stop = action == 3
    frame = pl.DataFrame(
        {
            "event_id": pl.Series(np.arange(rows)).cast(pl.String).str.zfill(9).str.replace("^", f"{name}-"),
            "member_id": pl.Series(member).cast(pl.String).str.zfill(7).str.replace("^", "m"),
            "at": pl.Series(first_us + start[session] + since).cast(pl.Datetime("us", "UTC")),
            "action": pl.Series(ACTIONS).gather(action),
            "title_id": pl.Series(title).cast(pl.String).str.zfill(5).str.replace("^", "t"),
            "position": pl.Series(dice.integers(0, 20, rows), dtype=pl.Int32),
            "dwell_seconds": dice.exponential(600, rows).round(),
            "played_fraction": dice.uniform(0, 1, rows).round(3),
            "named": named,
            "stop": stop,
            "bad": dice.uniform(size=rows) < (0.0005 if faults else 0.0),
        }
    )
    frame = frame.with_columns(
        title_id=pl.when("named").then("title_id"),
        query=pl.when(pl.col("action") == "search").then(pl.lit("something")),
        dwell_seconds=pl.when("stop").then("dwell_seconds"),
        played_fraction=pl.when("stop").then("played_fraction"),
        action=pl.when("bad").then(pl.lit("watch")).otherwise("action"),
        surface=pl.lit("home"),
        device=pl.lit("tv"),
        country=pl.lit("NL"),
    )
    if faults:  # delivered again, somewhere later in the file
        again = np.flatnonzero(dice.uniform(size=rows) < 0.001)
        frame = pl.concat([frame, frame[again]]).head(rows + len(again))
    missing = [pl.lit(None, dtype=pl.String).alias(n) for n in EVENTS.names if n not in frame.columns]
    return frame.with_columns(missing).select(EVENTS.names)


def _prepare(raw: Path, out: Path, config: PrepareConfig) -> None:
    stage.prepare(raw, out, config, now=NOW, collapse=runs, spread=by_size(on_ray))


def _in_a_process(raw: Path, out: Path) -> None:
    """The comparator in a process of its own, so that neither has the other's memory or threads."""
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "foretaste.jobs.polars_prepare", str(raw), str(out)], check=True)


def _manifest(out: Path) -> dict[str, Any]:
    from foretaste.ops.tables import read_manifest

    return read_manifest(out)


def same(out: Path, other: Path) -> dict[str, bool]:
    """Compare tables by rows and by a checksum that does not depend on their order."""
    found = {}
    for table in ("interactions", "acts", "impressions"):
        mine, theirs = _checksum(_rows(out, table)), _checksum(pl.read_parquet(other / f"{table}.parquet"))
        found[table] = mine == theirs
    sessions = pl.read_parquet(other / "counts.parquet").row(0, named=True)["sessions"]
    return found | {"sessions": _manifest(out)["counts"]["sessions"] == sessions}


def _rows(out: Path, table: str) -> pl.DataFrame:
    rows = pl.from_arrow(read_prepared(out, table))
    assert isinstance(rows, pl.DataFrame)
    return rows.drop("split_time", strict=False) if table == "interactions" else rows


def _checksum(rows: pl.DataFrame) -> tuple[int, list[tuple[str, int]]]:
    """Rows and, by column, the sum of the hashes of (key, value): one changed cell changes it."""
    rows = rows.drop("split_time", strict=False)
    gc.collect()
    whole = rows.select(sorted(rows.columns)).hash_rows(seed=1)
    return rows.height, [("rows", int(whole.cast(pl.UInt64).to_numpy().sum(dtype=np.uint64)))]


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _bar(value: float, want: float, *, at_least: bool = False) -> dict[str, Any]:
    holds = value >= want if at_least else value <= want
    return {"value": round(value, 4), "want": f"{'>=' if at_least else '<='} {want}", "holds": holds}
