"""What the session log costs, beside the raw client doing the least that could do, operation by operation in turn."""

from __future__ import annotations

import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from foretaste.feedback.redis_session_log import redis_client
from foretaste.feedback.session_log import LogKind, SessionLog, SessionLogConfig, open_session_log
from foretaste.ops.redis_server import redis_server

START = datetime(2026, 1, 2, tzinfo=UTC)
MEMBERS = 100
STORED = 60  # events a member has when reads are timed
LIMIT_MS = {"sqlite": 0.1, "redis": 0.5}
BATCH = 100
TIMES, QUICK_TIMES = 10_000, 2_000

Operation = Callable[[int], Any]


def session_log_figures(*, quick: bool, folder: Path | None = None) -> dict[str, Any]:
    """Time appends and reads of SQLite, durable and not, and of Redis; returns figures, bars and what was skipped.

    Of each: `append_ms` and `read_ms` (medians of one event, of the newest 200), `raw_append_ms` and `raw_read_ms` of
    the bare client in turn with it, their ratios, and `batched_append_ms` an event in batches of 100. The raw client
    of SQLite inserts a row with the same columns and indexes in a transaction; of Redis it sends ZADD, HSET and INCR
    in one transaction. Redis runs on loopback for the time of the run, `redis` with a file that is synced once a
    second and `redis_durable` before every answer. `folder` is the disk to measure (default: the temporary one).
    """
    times = QUICK_TIMES if quick else TIMES
    figures: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for durable in (False, True):
        with _sqlite(durable, folder) as (log, raw_append, raw_read):
            figures["sqlite_durable" if durable else "sqlite"] = _figures(log, raw_append, raw_read, times)
    try:
        for durable in (False, True):
            sync = "always" if durable else "everysec"
            with redis_server("--appendfsync", sync) as url, _redis(url) as (log, raw_append, raw_read):
                figures["redis_durable" if durable else "redis"] = _figures(log, raw_append, raw_read, times)
    except FileNotFoundError:
        skipped["redis"] = "redis-server is not installed"
    return {"figures": {"session_log": {"operations": times, **figures}}, "bars": _bars(figures), "skipped": skipped}


def _bars(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        f"append of an event in {name}, ms": {
            "value": figures[name]["append_ms"],
            "want": f"<= {limit}",
            "holds": figures[name]["append_ms"] <= limit,
        }
        for name, limit in LIMIT_MS.items()
        if name in figures
    }


def _figures(log: SessionLog, raw_append: Operation, raw_read: Operation, times: int) -> dict[str, float]:
    _fill(log, raw_append)
    first = MEMBERS * STORED
    append_ms, raw_append_ms = _in_turn(lambda n: _append(log, first + n, 1), lambda n: raw_append(first + n), times)
    read_ms, raw_read_ms = _in_turn(lambda n: log.read(_member(n), limit=200, before_us=_at(10**7)), raw_read, times)
    batches = max(10, times // BATCH)
    batched, _ = _in_turn(lambda n: _append(log, first + times + n * BATCH, BATCH), lambda _: None, batches)
    return {
        "append_ms": round(append_ms, 4),
        "raw_append_ms": round(raw_append_ms, 4),
        "append_ratio": round(append_ms / raw_append_ms, 2),
        "batched_append_ms": round(batched / BATCH, 4),
        "read_ms": round(read_ms, 4),
        "raw_read_ms": round(raw_read_ms, 4),
        "read_ratio": round(read_ms / raw_read_ms, 2),
    }


def _in_turn(one: Operation, other: Operation, times: int) -> tuple[float, float]:
    """Median milliseconds of each; they take turns, so that what disturbs the machine disturbs both."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(times):
        for operation, into in (
            ((one, taken[0]), (other, taken[1])) if number % 2 else ((other, taken[1]), (one, taken[0]))
        ):
            before = time.perf_counter()
            operation(number)
            into.append(time.perf_counter() - before)
    return statistics.median(taken[0]) * 1e3, statistics.median(taken[1]) * 1e3


def _fill(log: SessionLog, raw_append: Operation) -> None:
    for first in range(0, MEMBERS * STORED, 1_000):
        _append(log, first, 1_000)
    for number in range(MEMBERS * STORED):
        raw_append(number)


def _append(log: SessionLog, number: int, count: int) -> None:
    log.append([_event(n) for n in range(number, number + count)], received_at=START + timedelta(microseconds=number))


def _event(number: int) -> dict[str, Any]:
    return {
        "event_id": f"{number:032x}",
        "member_id": _member(number),
        "session_id": f"s{number // 20}",
        "at": _at(number),
        "action": "play",
        "title_id": f"title-{number % 400:05d}",
        "surface": "prequery",
        "position": number % 10,
        "dwell_seconds": 12.5,
        "played_fraction": 0.25,
    }


def _member(number: int) -> str:
    return f"member-{number % MEMBERS:07d}"


def _at(number: int) -> int:
    return 1_767_312_000_000_000 + number


@contextmanager
def _sqlite(durable: bool, folder: Path | None) -> Iterator[tuple[SessionLog, Operation, Operation]]:
    with (
        tempfile.TemporaryDirectory(dir=folder) as home,
        closing(open_session_log(SessionLogConfig(durable=durable), Path(home))) as log,
        closing(sqlite3.connect(Path(home) / "raw.db", isolation_level=None)) as raw,
    ):
        raw.execute("PRAGMA journal_mode = WAL")
        raw.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        raw.execute(
            "CREATE TABLE events (sequence INTEGER PRIMARY KEY, actor TEXT, event_id TEXT, at INTEGER, shelf INTEGER, "
            "received_at INTEGER, body BLOB, UNIQUE (actor, event_id))"
        )
        raw.execute("CREATE INDEX by_time ON events (actor, at, event_id)")

        def append(number: int) -> None:
            event = _event(number)
            row = (number + 1, event["member_id"], event["event_id"], event["at"], 0, number, orjson.dumps(event))
            raw.execute("BEGIN IMMEDIATE")
            raw.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            raw.execute("COMMIT")

        def read(number: int) -> list[Any]:
            query = "SELECT body FROM events WHERE actor = ? ORDER BY at DESC, event_id DESC LIMIT 200"
            return [orjson.loads(body) for (body,) in raw.execute(query, (_member(number),)).fetchall()]

        yield log, append, read


@contextmanager
def _redis(url: str) -> Iterator[tuple[SessionLog, Operation, Operation]]:
    prefix = f"bench-{uuid.uuid4().hex}"
    config = SessionLogConfig(kind=LogKind.REDIS, url=url, prefix=prefix)
    client = redis_client(config, seconds=config.busy_seconds)

    def append(number: int) -> None:
        event = _event(number)
        with client.pipeline(transaction=True) as pipeline:
            pipeline.zadd(f"{prefix}-raw:e:{event['member_id']}", {event["event_id"]: event["at"]}, nx=True)
            pipeline.hset(f"{prefix}-raw:h:{event['member_id']}", event["event_id"], orjson.dumps(event))
            pipeline.incr(f"{prefix}-raw:n")
            pipeline.execute()

    def read(number: int) -> list[Any]:
        ids = client.zrevrange(f"{prefix}-raw:e:{_member(number)}", 0, 199)
        return [orjson.loads(body) for body in client.hmget(f"{prefix}-raw:h:{_member(number)}", ids)]

    with closing(client), closing(open_session_log(config, Path())) as log:
        yield log, append, read
        for key in client.scan_iter(f"{prefix}*", count=10_000):
            client.delete(key)
