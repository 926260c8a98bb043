"""The session log in SQLite keeps the contract, and refuses a file of another version."""

from __future__ import annotations

import functools
import os
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretaste.feedback.session_log import SessionLog, SessionLogConfig, open_session_log
from foretaste.feedback.sqlite_session_log import SqliteSessionLog
from foretaste.testing.contract_session_log import CLAUSES
from foretaste.testing.session_log_events import CONFIG, NOW, K, event, expected


@pytest.mark.parametrize("clause", CLAUSES)
def test_sqlite_keeps_the_contract(clause: str, tmp_path: Path) -> None:
    CLAUSES[clause](functools.partial(SqliteSessionLog, tmp_path / "sessions.db"))


def test_sqlite_is_the_log_that_is_opened_by_default(tmp_path: Path) -> None:
    log: SessionLog = open_session_log(CONFIG, tmp_path)
    with closing(log):
        assert log.read("nobody", limit=1) == ([], 0)
        assert (tmp_path / "sessions.db").is_file()


events = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=14, unique_by=lambda pair: pair[0])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=events, cut=st.integers(0, 14), repeat=st.data())
def test_any_split_with_redelivery_reads_as_the_plain_set(
    tmp_path: Path, events: list[tuple[int, int]], cut: int, repeat: st.DataObject
) -> None:
    path = tmp_path / f"{os.urandom(6).hex()}.db"
    sent = [event(f"e{number}", at) for number, at in events]
    order = repeat.draw(st.permutations(sent + sent[:cut]))
    with closing(SqliteSessionLog(path, CONFIG)) as one, closing(SqliteSessionLog(path, CONFIG)) as other:
        results = one.append(order[:cut], received_at=NOW) + other.append(order[cut:], received_at=NOW)
        rows, _ = one.read("m1", limit=K)
        assert [row["event_id"] for row in rows] == expected(sent, "m1", limit=K)
        assert len(one.pending(100)) == len(sent) == sum(not result.duplicate for result in results)


def test_storing_less_than_is_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stored_events 10 is below read_events 200"):
        SqliteSessionLog(tmp_path / "sessions.db", SessionLogConfig(stored_events=10))


def test_a_file_of_another_version_is_refused_by_its_name_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with closing(sqlite3.connect(path)) as old:
        old.execute("CREATE TABLE events (actor TEXT, event_id TEXT)")
    with pytest.raises(ValueError, match=r"sessions\.db: is of version 1, wanted 2; move the file away"):
        SqliteSessionLog(path)
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 9")
    with pytest.raises(ValueError, match="is of version 9, wanted 2"):
        SqliteSessionLog(path)


def test_housekeeping_removes_what_is_expired_and_shipped(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"window_days": 1.0, "guest_days": 1.0})
    now = SqliteSessionLog(tmp_path / "sessions.db", config)
    with closing(now) as log:
        at = 1_767_312_000_000_000
        sent = [event(f"e{n}", at, member_id=None if n % 2 else "m1") for n in range(600)]
        log.append([*sent, event("i", at, action="impression", title_id="t1")], received_at=NOW)
        log.merge("s1", "m2", received_at=NOW)
        assert log.expire(now=NOW + timedelta(days=9)) == 0
        while waiting := log.pending(1_000):
            log.shipped(waiting)
        assert log.expire(now=NOW + timedelta(days=2)) == 0
        assert log.expire(now=NOW + timedelta(days=2, microseconds=1)) == 901
        assert log.merged("m2") == []


@pytest.mark.parametrize(("durable", "wanted"), [(True, 2), (False, 1)])
def test_durable_means_synchronous_full(tmp_path: Path, durable: bool, wanted: int) -> None:
    with closing(SqliteSessionLog(tmp_path / "s.db", SessionLogConfig(durable=durable))) as log:
        connection = log._connection()
        assert connection.execute("PRAGMA synchronous").fetchone() == (wanted,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
