"""Preparation killed at random moments: what was committed stays readable and whole, and the next run goes on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from foretaste.contracts.columns import EVENTS, TITLES
from foretaste.ops.files import PARTIAL, read_json, write_parquet
from foretaste.ops.tables import read_prepared
from foretaste.sessions.journal import listed
from foretaste.sessions.prepare import PrepareConfig, prepare
from foretaste.sessions.spread import here
from foretaste.signals.interactions import runs

NOW = datetime(2026, 1, 31, tzinfo=UTC)
KILLS = 20
SERVER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from foretaste.sessions.prepare import PrepareConfig, prepare
from foretaste.sessions.spread import here
from foretaste.signals.interactions import runs

import os
for line in sys.stdin:
    child = os.fork()  # what is killed is a copy, so that each kill need not wait for imports
    if child == 0:
        raw, out, full = line.split()
        config = PrepareConfig(num_buckets=3, piece_rows=400, compact_share=1e9)
        now = datetime(2026, 1, 31, tzinfo=UTC)
        prepare(Path(raw), Path(out), config, now=now, collapse=runs, spread=here, full=full == "full")
        os._exit(0)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(status, flush=True)
"""
TABLES = ("interactions", "acts", "impressions")
CONFIG = PrepareConfig(num_buckets=3, piece_rows=400, compact_share=1e9)


def _events(number: int, rows: int) -> pa.Table:
    dice = random.Random(number)
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
    events = [
        {
            "event_id": f"e{number}-{i:05d}",
            "member_id": f"m{dice.randrange(60)}",
            "at": start + timedelta(minutes=dice.randrange(-400, 1440)),
            "action": dice.choice(("play", "detail", "impression")),
            "title_id": f"t{dice.randrange(11)}",
        }
        for i in range(rows)
    ]
    return pa.Table.from_pylist(events, schema=EVENTS)


def _tables(out: Path) -> dict[str, pa.Table]:
    return {name: read_prepared(out, name) for name in TABLES}


@pytest.fixture
def server() -> Any:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    yield process
    process.communicate()


def _run(server: Any, raw: Path, out: Path, *, full: bool, after: float | None) -> tuple[bool, float]:
    """Run once, killed `after` seconds; whether it came to its end, and how long it lived."""
    began = time.monotonic()
    server.stdin.write(f"{raw} {out} {'full' if full else '-'}\n")
    child = int(server.stdout.readline())
    if after is not None:
        time.sleep(after)
        with_signal = signal.SIGKILL
        subprocess.run(["kill", f"-{with_signal.value}", str(child)], check=False, stderr=subprocess.DEVNULL)
    return int(server.stdout.readline()) == 0, time.monotonic() - began


def test_killed_at_twenty_random_moments_the_tables_are_always_those_before_or_after(
    tmp_path: Path, server: Any
) -> None:
    dice = random.Random(7)
    raw, out, calm = tmp_path / "raw", tmp_path / "out", tmp_path / "calm"
    titles = [{"title_id": f"t{i}", "kind": "movie", "genres": [], "artworks": []} for i in range(11)]
    write_parquet(pa.Table.from_pylist(titles, schema=TITLES), raw / "titles.parquet")
    for part in range(5):
        write_parquet(_events(0, 2_000).slice(part * 400, 400), raw / "events" / f"0-{part}.parquet")
    done, seconds = _run(server, raw, out, full=True, after=None)
    assert done
    prepare(raw, calm, CONFIG, now=NOW, collapse=runs, spread=here)
    kills = number = 0
    while kills < KILLS and number < KILLS:
        number += 1
        before = _tables(out)
        write_parquet(_events(number, 300), raw / "events" / f"{number}.parquet")
        full = number % 2 == 0
        prepare(raw, calm, CONFIG, now=NOW, collapse=runs, spread=here, full=full)
        after = _tables(calm)
        assert not after["acts"].equals(before["acts"])
        finished = False
        for _ in range(5):
            finished, _ = _run(server, raw, out, full=full, after=dice.uniform(0, seconds))
            kills += not finished
            found = _tables(out)
            assert found["acts"].num_rows in (before["acts"].num_rows, after["acts"].num_rows)
            wanted = before if found["acts"].num_rows == before["acts"].num_rows else after
            for name in TABLES:
                assert found[name].equals(wanted[name]), name
            if finished:
                break
        done, _ = _run(server, raw, out, full=full and not finished, after=None)
        assert done
        assert all(_tables(out)[name].equals(after[name]) for name in TABLES)
    assert kills >= KILLS
    prepare(raw, out, CONFIG, now=NOW, collapse=runs, spread=here)
    manifest = read_json(out / "manifest.json")
    left = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert left == {*listed(manifest), "manifest.json", ".lock"}
    assert not [name for name in left if PARTIAL in name]
    counts = {name: manifest["counts"][name] for name in ("events", "duplicates", "interactions", "sessions")}
    once = prepare(raw, tmp_path / "once", CONFIG, now=NOW, collapse=runs, spread=here)
    assert counts == {name: once["counts"][name] for name in counts}


def test_a_killed_run_is_gone_on_with_where_it_was(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    titles = [{"title_id": f"t{i}", "kind": "movie", "genres": [], "artworks": []} for i in range(11)]
    write_parquet(pa.Table.from_pylist(titles, schema=TITLES), raw / "titles.parquet")
    for part in range(4):
        write_parquet(_events(part, 300), raw / "events" / f"{part}.parquet")
    made = []

    def dies(*arrays: Any) -> Any:
        made.append(len(arrays[0]))
        if len(made) == 2:
            raise KeyboardInterrupt
        return runs(*arrays)

    with pytest.raises(KeyboardInterrupt):
        prepare(raw, out, CONFIG, now=NOW, collapse=dies, spread=here)
    before = {path.name: path.stat().st_mtime_ns for path in (out / ".journal" / "done").iterdir()}
    assert len(before) == 4 + 1  # files and buckets that were finished
    staged = {path: path.stat().st_mtime_ns for path in (out / ".journal" / "events").glob("*.arrow")}
    made_before = {path: path.stat().st_mtime_ns for path in out.rglob("acts/*/*.parquet")}
    made.clear()

    def counted(*arrays: Any) -> Any:
        made.append(len(arrays[0]))
        assert {path: path.stat().st_mtime_ns for path in (out / ".journal" / "events").glob("*.arrow")} == staged
        return runs(*arrays)

    prepare(raw, out, CONFIG, now=NOW, collapse=counted, spread=here)
    assert len(made) == 2  # of three buckets one was finished
    assert all(path.stat().st_mtime_ns == at for path, at in made_before.items())
    assert not (out / ".journal").exists()
    prepare(raw, tmp_path / "once", CONFIG, now=NOW, collapse=runs, spread=here)
    assert all(_tables(out)[name].equals(_tables(tmp_path / "once")[name]) for name in TABLES)
