"""Two processes answer under faults; every value that they served is made again, and what was changed is noticed."""

from __future__ import annotations

import contextlib
import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from foretaste.feedback.decision_log import decision_tables
from foretaste.feedback.event_log import EventLog
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs.parity import DELETED, parity
from foretaste.jobs.processes import ServiceProcess
from foretaste.jobs.traffic import Sent, drive
from foretaste.ops.files import parquet_files, write_parquet
from foretaste.serving.config import ServiceConfig
from foretaste.sessions.spread import here

REQUESTS = 5_000
FREQUENT = {
    "housekeeping_seconds": 0.5,
    "title_refresh_seconds": 1.0,
    "decision_log": {"roll_decisions": 300, "recent_decisions": 50},
    "controls": {"diversity": 0.2, "protected": 2, "max_move": 1, "long_term": 0.3},
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def two(config: ServiceConfig, log: Path) -> Iterator[list[ServiceProcess]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ServiceProcess(config, port=free_port(), log=log / f"{name}.txt")) for name in "ab"]


def under_faults(small: Any, folder: Path, *, requests: int) -> Sent:
    """Traffic with everything that goes wrong: a kill in the middle, publications and loads, deletions, merges."""
    with two(small.service, folder) as (first, second):

        def restart() -> None:
            second.kill()
            second.start()

        milestones = [
            (0.15, small.publish),
            (0.35, restart),
            (0.55, lambda: small.publish(late=True)),
            (0.75, small.publish),
        ]
        return drive([first.url, second.url], small.world, requests=requests, milestones=milestones)


def session_log(kind: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    if kind == "sqlite":
        return {"kind": "sqlite", "durable": False}
    return {"kind": "redis", "url": request.getfixturevalue("redis_url"), "prefix": f"parity-{free_port()}"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_every_value_served_under_faults_is_made_again(
    kind: str, make: Callable[..., Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    log = session_log(kind, request)
    made = make(tmp_path, **FREQUENT, session_log=log, features_url=log.get("url"))
    sent = under_faults(made, tmp_path, requests=REQUESTS)
    assert sent.refused == []
    assert len(sent.answered) == REQUESTS
    assert sent.num_milestones == 4
    for what in ("duplicate", "rejected future_time", "sent twice at once", "repeated", "merged", "deleted"):
        assert sent.counts[what] >= REQUESTS / 1_000, (what, sent.counts)
    found = parity(made.settings, spread=here)
    assert (found["mismatches"], found["left_out"], found["ok"]) == ({}, {}, True), found
    tables = list(decision_tables(made.settings.tables.serving / "decisions"))
    logged = [name for table in tables for name in table["decision_id"].to_pylist()]
    assert len(logged) == len(set(logged))
    deleted = Tombstones(made.settings.tables.serving / TOMBSTONES_FILE).read()
    missing = sent.answered.keys() - set(logged)  # a request that died with its process may be logged, too
    assert {sent.answered[name] for name in missing} <= deleted.keys()
    assert found["decisions"] + found["set_aside"].get(DELETED, 0) == len(logged)
    assert set(found["set_aside"]) <= {DELETED}
    assert found["decisions"] > 0.7 * REQUESTS
    assert found["compared"]["values"] > 1_000 * found["decisions"]
    versions = {
        one["value"]
        for table in tables
        for features in table["features"].to_pylist()
        for one in features
        if one["name"] == "titles_asof_ms"
    }
    assert len(versions) > 3
    kinds = Counter(kind for table in tables for kind in table["kind"].to_pylist())
    assert min(kinds[kind] for kind in ("recommend", "next", "rank")) > REQUESTS / 100, kinds
    held = [one for table in tables for one in table["controls"].to_pylist() if json.loads(one)["before"]]
    assert len(held) > REQUESTS / 20
    tampered(made)


def tampered(made: Any) -> None:
    """The same logs with one thing changed: it has to be found, under its name, with an example."""
    events = EventLog(made.settings.tables.serving / "events")
    events.compact()
    part = parquet_files(made.settings.tables.serving / "events")[0]
    whole = EventLog(made.settings.tables.serving / "events").read()
    rows = whole.to_pylist()
    played = [number for number, row in enumerate(rows) if row["action"] == "play"]
    chosen = set(played[::10])
    longer = [
        row | {"dwell_seconds": (row["dwell_seconds"] or 0.0) + 1.0} if number in chosen else row
        for number, row in enumerate(rows)
    ]
    fewer = [row for number, row in enumerate(rows) if number not in chosen]
    for changed, feature in ((longer, "history.dwell"), (fewer, "decision.num_events_visible")):
        with replaced(part.parent, pa.Table.from_pylist(changed, schema=whole.schema)):
            found = parity(made.settings, limit=500, spread=here)
        assert feature in found["mismatches"], found["mismatches"].keys()
        assert found["mismatches"][feature]["example"]["decision_id"]
        assert not found["ok"]


@contextlib.contextmanager
def replaced(folder: Path, table: pa.Table) -> Iterator[None]:
    """Another event log in the place of the one that is there, for as long as it takes."""
    aside = folder.with_name("events-aside")
    folder.rename(aside)
    try:
        write_parquet(table, folder / "changed.parquet")
        yield
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        aside.rename(folder)
