"""What the session log stored comes out of the event log once, whole, and gone where it was deleted."""

from __future__ import annotations

import functools
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from foretaste.contracts.columns import LOGGED_EVENTS
from foretaste.feedback import event_log
from foretaste.feedback.event_log import EventLog
from foretaste.feedback.session_log import SessionLog
from foretaste.feedback.sqlite_session_log import SqliteSessionLog
from foretaste.testing.redis_server import open_redis_log
from foretaste.testing.session_log_events import CONFIG, NOW, NOW_US, event


@pytest.fixture(params=["sqlite", "redis"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionLog]:
    opener: Callable[..., SessionLog] = functools.partial(SqliteSessionLog, tmp_path / "sessions.db")
    if request.param == "redis":
        opener = functools.partial(open_redis_log, request.getfixturevalue("redis_url"), uuid.uuid4().hex, False)
    with closing(opener(CONFIG)) as log:
        yield log


@pytest.fixture
def events(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events")


def rows(events: EventLog, *actors: str) -> list[tuple[str, str]]:
    found = events.read(list(actors) or None)
    return list(zip(found["actor_id"].to_pylist(), found["event_id"].to_pylist(), strict=True))


def test_shipped_events_are_as_they_were_stored(log: SessionLog, events: EventLog) -> None:
    assert events.read() == LOGGED_EVENTS.empty_table()
    full = event("ä😀", NOW_US + 7, title_id="t1", query="芝士", played_fraction=0.1, position=3, properties='{"a": 1}')
    (one, other) = log.append([full, event("b", NOW_US, member_id=None)], received_at=NOW)
    assert events.ship(log) == 2
    assert events.ship(log) == 0
    found = events.read()
    assert found.schema == LOGGED_EVENTS
    guest, member = found.to_pylist()
    at = datetime(2026, 1, 2, 0, 0, 0, 7, tzinfo=UTC)
    assert {k: v for k, v in member.items() if v is not None} == full | {
        "actor_id": "m1", "sequence": one.sequence, "received_at": NOW, "at": at
    }  # fmt: skip
    assert (guest["actor_id"], guest["member_id"], guest["sequence"]) == ("guest:s1", None, other.sequence)


def test_only_the_actors_asked_for_are_read(log: SessionLog, events: EventLog) -> None:
    log.append([event(f"e{n}", n, member_id=f"m{n % 3}") for n in range(9)], received_at=NOW)
    events.ship(log)
    assert rows(events, "m1") == [("m1", "e1"), ("m1", "e4"), ("m1", "e7")]
    assert len(rows(events, "m0", "m2", "nobody")) == 6
    assert events.read([]).num_rows == 0


def test_what_was_shipped_twice_is_read_once_with_its_first_sequence(
    log: SessionLog, events: EventLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (first,) = log.append([event("a", 1)], received_at=NOW)
    with monkeypatch.context() as patched:  # a process that dies between the part and the report
        patched.setattr(type(log), "shipped", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            events.ship(log)
    log.append([event("b", 2)], received_at=NOW)
    assert events.ship(log) == 2
    assert len(list((tmp_path / "events").glob("*.parquet"))) == 2
    assert rows(events) == [("m1", "a"), ("m1", "b")]
    assert events.read()["sequence"].to_pylist()[0] == first.sequence
    assert events.compact() == 1
    assert len(list((tmp_path / "events").glob("*.parquet"))) == 1
    assert rows(events) == [("m1", "a"), ("m1", "b")]


def test_a_disk_that_is_full_loses_nothing(log: SessionLog, events: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    log.append([event("a", 1)], received_at=NOW)
    with monkeypatch.context() as patched:
        patched.setattr(event_log, "write_parquet", full)
        with pytest.raises(OSError, match="No space left"):
            events.ship(log)
    assert rows(events) == []
    assert events.ship(log) == 1
    assert rows(events) == [("m1", "a")]


def test_what_a_killed_process_left_unfinished_is_not_read_and_goes(
    log: SessionLog, events: EventLog, tmp_path: Path
) -> None:
    (tmp_path / "events").mkdir()
    half = tmp_path / "events" / ".partial-1234-0.parquet"
    half.write_bytes(b"PAR1 and no more")
    assert events.read().num_rows == 0
    log.append([event("a", 1)], received_at=NOW)
    events.ship(log)
    assert rows(events) == [("m1", "a")]
    assert not half.exists()


def test_two_that_ship_at_once_do_no_harm(log: SessionLog, events: EventLog) -> None:
    log.append([event(f"e{n:03d}", n) for n in range(200)], received_at=NOW)
    threads = [threading.Thread(target=events.ship, args=(log,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events.ship(log)
    assert rows(events) == [("m1", f"e{n:03d}") for n in range(200)]


def test_deletion_leaves_no_row_of_before_and_keeps_those_of_after(log: SessionLog, events: EventLog) -> None:
    soon, later = NOW + timedelta(minutes=2), NOW + timedelta(minutes=4)
    log.append([event("a", NOW_US - 5), event("ahead", NOW_US + 180_000_000)], received_at=NOW)
    log.append([event("x", NOW_US, member_id="m2"), event("g", NOW_US, member_id=None)], received_at=NOW)
    events.ship(log)
    log.append([event("waiting", NOW_US - 4)], received_at=NOW)
    deleted = {"m1": NOW_US + 60_000_000, "guest:s1": NOW_US + 60_000_000, "nobody": NOW_US}
    log.append([event("late", NOW_US + 60_000_000), event("after", NOW_US + 60_000_001)], received_at=soon)
    assert events.ship(log, deleted=deleted) == 1
    assert events.compact(deleted=deleted) == 3
    assert rows(events) == [("m1", "after"), ("m2", "x")]
    assert events.compact(deleted=deleted) == 0
    assert events.compact(deleted={"m1": NOW_US + 300_000_000, "m2": NOW_US + 300_000_000}) == 2
    assert rows(events) == []
    log.append([event("again", NOW_US + 300_000_001)], received_at=later + timedelta(minutes=2))
    events.ship(log, deleted=deleted)
    assert rows(events) == [("m1", "again")]


def test_compaction_joins_small_parts_in_bounds(
    log: SessionLog, events: EventLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(event_log, "ROWS_A_PART", 10)
    for batch in range(7):
        log.append([event(f"e{batch}-{n}", n) for n in range(4)], received_at=NOW)
        events.ship(log)
    before = events.read()
    assert events.compact() == 0
    assert len(list((tmp_path / "events").glob("*.parquet"))) == 4
    assert events.read() == before


def test_a_reader_sees_every_row_once_while_parts_are_joined(
    log: SessionLog, events: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Any] = []
    done = threading.Event()

    def read() -> None:
        known = 0
        while not done.is_set():
            found = rows(events)
            if len(found) != len(set(found)) or len(found) < known:
                failures.append((known, len(found)))
            known = len(found)

    reader = threading.Thread(target=read)
    reader.start()
    for batch in range(12):
        log.append([event(f"e{batch}-{n}", n) for n in range(3)], received_at=NOW)
        events.ship(log)
        if batch % 3 == 2:
            events.compact()
    done.set()
    reader.join()
    assert failures == []
    assert len(rows(events)) == 36
