"""The session log in SQLite keeps the contract, and survives what kills its process."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretaste.feedback.session_log import SessionLog, SessionLogConfig
from foretaste.feedback.sqlite_session_log import SqliteSessionLog
from foretaste.testing.contract_session_log import CLAUSES, CONFIG, NOW, K, event, expected


@pytest.mark.parametrize("clause", CLAUSES)
def test_sqlite_keeps_the_contract(clause: str, tmp_path: Path) -> None:
    CLAUSES[clause](functools.partial(SqliteSessionLog, tmp_path / "sessions.db"))


def test_sqlite_is_a_session_log(tmp_path: Path) -> None:
    log: SessionLog = SqliteSessionLog(tmp_path / "sessions.db", CONFIG)
    assert log.read("nobody", limit=1) == ([], 0)
    log.close()


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
        rows, mark = one.read("m1", limit=K)
    assert [row["event_id"] for row in rows] == expected(sent, "m1", limit=K)
    assert mark == len(sent) == sum(not result.duplicate for result in results)


def test_storing_less_than_is_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stored_events 10 is below read_events 200"):
        SqliteSessionLog(tmp_path / "sessions.db", SessionLogConfig(stored_events=10))


@pytest.mark.parametrize(("durable", "wanted"), [(True, 2), (False, 1)])
def test_durable_means_synchronous_full(tmp_path: Path, durable: bool, wanted: int) -> None:
    with closing(SqliteSessionLog(tmp_path / "s.db", SessionLogConfig(durable=durable))) as log:
        connection = log._connection()
        assert connection.execute("PRAGMA synchronous").fetchone() == (wanted,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


WRITER = """
import sys
from pathlib import Path
from foretaste.feedback.sqlite_session_log import SqliteSessionLog
from foretaste.testing.contract_session_log import NOW, event
log = SqliteSessionLog(Path(sys.argv[1]))
for number in range(1_000_000):
    batch = [event(f"{sys.argv[2]}-{number}-{part}", number, member_id=f"m{part}") for part in range(3)]
    log.append(batch, received_at=NOW)
    print(number, flush=True)
"""


def test_after_kill_9_everything_acknowledged_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    acknowledged = {}
    for life in ("first", "second"):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path), life], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if int(line) == 25:
                    os.kill(process.pid, signal.SIGKILL)
                    break
            rest = [line for line in process.stdout.read().split("\n") if line]
        assert process.wait() == -signal.SIGKILL
        acknowledged[life] = max([25, *map(int, rest)])
    with closing(SqliteSessionLog(path)) as log:
        for part in range(3):
            rows, mark = log.read(f"m{part}", limit=10_000)
            found = [row["event_id"] for row in rows]
            assert len(found) == len(set(found)) == mark
            for life, last in acknowledged.items():
                wanted = {f"{life}-{number}-{part}" for number in range(last + 1)}
                assert wanted <= set(found), f"{sorted(wanted - set(found))} were acknowledged and are gone"
