"""Decisions survive the death of their process, each once, and read back as they were written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from foretaste.contracts.columns import DECISIONS
from foretaste.feedback.decision_log import LINES_AT_ONCE, DecisionLog, DecisionLogConfig, LogFullError
from foretaste.feedback.write_ahead import WriteAhead
from foretaste.testing.decisions import decision

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Iterator[DecisionLog]:
    config = DecisionLogConfig(roll_decisions=4, roll_seconds=60, recent_decisions=2)
    with closing(DecisionLog(tmp_path, config, clock=clock)) as log:
        yield log


def ids(log: DecisionLog) -> list[str]:
    return log.read()["decision_id"].to_pylist()  # type: ignore[no-any-return]


def test_a_decision_reads_back_as_it_was_from_memory_file_and_parquet(log: DecisionLog, tmp_path: Path) -> None:
    first = decision("d1", member_id=None, newest_event_at=None)
    log.append(first)
    assert log.get("d1") == first
    for other in ("d2", "d3"):
        log.append(decision(other))
    assert log.get("d1") == first  # pushed out of memory, still in the write-ahead file
    log.roll()
    assert log.get("d1") == first
    assert [p.suffix for p in tmp_path.iterdir()] == [".parquet"]
    assert log.get("d9") is None


def test_the_table_conforms_to_the_contract(log: DecisionLog) -> None:
    assert log.read().schema == DECISIONS
    log.append(decision("d1"))
    log.roll()
    log.append(decision("d2"))
    table = log.read()
    assert table.schema == DECISIONS
    assert table["decision_id"].to_pylist() == ["d1", "d2"]
    assert table["at"].to_pylist()[0] == NOW
    assert table["items"].to_pylist()[0][0]["propensity"] == decision("d1")["items"][0]["propensity"]


def test_a_line_is_on_disk_before_append_returns(log: DecisionLog, tmp_path: Path) -> None:
    log.append(decision("d1"))
    (file,) = tmp_path.glob("*.jsonl")
    assert json.loads(file.read_text())["decision_id"] == "d1"


def test_the_file_is_rolled_by_count(tmp_path: Path, clock: Clock) -> None:
    log = DecisionLog(tmp_path, DecisionLogConfig(roll_decisions=4), clock=clock)
    for number in range(10):
        log.append(decision(f"d{number}"))
    log.close()
    assert sorted(pq.read_metadata(p).num_rows for p in tmp_path.glob("*.parquet")) == [2, 4, 4]
    assert not list(tmp_path.glob("*.jsonl"))
    assert ids(log) == [f"d{number}" for number in range(10)]


def test_the_file_is_rolled_by_age_also_when_nothing_is_appended(tmp_path: Path, clock: Clock) -> None:
    log = DecisionLog(tmp_path, DecisionLogConfig(roll_seconds=60), clock=clock)
    log.append(decision("d1"))
    clock.now += timedelta(seconds=59)
    log.roll_if_due()
    young = log._current
    assert young is not None
    clock.now += timedelta(seconds=1)
    log.roll_if_due()
    assert log._current is None
    log.append(decision("d2"))
    log.close()
    assert len(list(tmp_path.glob("*.parquet"))) == 2
    assert ids(log) == ["d1", "d2"]


def test_a_dead_logs_file_is_rolled_and_its_torn_line_dropped_and_counted(tmp_path: Path, clock: Clock) -> None:
    lines = [json.dumps(decision("d1")), "{not json", json.dumps({"decision_id": "d3"}), json.dumps(decision("d4"))]
    (tmp_path / "20260101T000000-1-aaaaaaaa-000000.jsonl").write_text("\n".join(lines) + '\n{"decision_id": "d5')
    with closing(DecisionLog(tmp_path, clock=clock)) as log:
        assert ids(log) == ["d1", "d4"]
        assert log.num_dropped == 3
    assert not list(tmp_path.glob("*.jsonl"))


def test_more_lines_than_are_read_at_once_are_all_there_in_order_without_the_bad_ones(
    tmp_path: Path, clock: Clock
) -> None:
    names = [f"d{number}" for number in range(2 * LINES_AT_ONCE + 3)]
    lines = [json.dumps(decision(name)) for name in names]
    bad = (5, LINES_AT_ONCE, len(lines) - 1)
    for number, line in zip(bad, ("{", "[]", '{"decision_id": "x"}'), strict=True):
        lines[number] = line
    (tmp_path / "20260101T000000-1-aaaaaaaa-000000.jsonl").write_text("\n".join(lines) + "\n")
    with closing(DecisionLog(tmp_path, clock=clock)) as log:
        assert ids(log) == [name for number, name in enumerate(names) if number not in bad]
        assert log.num_dropped == 3
        assert log.get(names[LINES_AT_ONCE + 1]) == decision(names[LINES_AT_ONCE + 1])


def test_a_living_logs_file_is_left_alone_but_read(log: DecisionLog, tmp_path: Path, clock: Clock) -> None:
    log.append(decision("d1"))
    with closing(DecisionLog(tmp_path, clock=clock)) as other:
        assert len(list(tmp_path.glob("*.jsonl"))) == 1
        assert other.get("d1") == decision("d1")
        other.append(decision("d2"))
        assert sorted(ids(log)) == sorted(ids(other)) == ["d1", "d2"]
        assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_a_decision_in_both_files_of_one_name_counts_once(log: DecisionLog, tmp_path: Path) -> None:
    log.append(decision("d1"))
    (lines,) = tmp_path.glob("*.jsonl")
    before = lines.read_bytes()
    log.roll()
    lines.write_bytes(before)  # as a process leaves it that dies between the rename and the removal
    assert ids(log) == ["d1"]
    assert log.adopt() == 1
    assert ids(log) == ["d1"]
    assert not lines.exists()


def test_a_file_that_cannot_be_rolled_stays(log: DecisionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    log.append(decision("d1"))
    with monkeypatch.context() as patched:
        patched.setattr("foretaste.feedback.decision_log.write_parquet", full)
        log.roll()
    assert log.num_failed == 1
    assert ids(log) == ["d1"]
    assert log.adopt() == 1
    assert ids(log) == ["d1"]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    file = WriteAhead.create(tmp_path / "a.jsonl")
    assert file is not None
    file.write(b"one")
    whole = file._file

    class Short:
        """A file whose disk takes three more bytes."""

        def write(self, line: bytes) -> int:
            return whole.write(line[:3])

        def __getattr__(self, name: str) -> Any:
            return getattr(whole, name)

    file._file = Short()  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space left"):
        file.write(b"two-and-more")
    file._file = whole
    file.write(b"three")
    assert (tmp_path / "a.jsonl").read_bytes() == b"one\nthree\n"
    file.remove()


def test_half_a_line_that_cannot_be_taken_back_spoils_no_other_decision(
    log: DecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append(decision("d1"))
    write = WriteAhead.write

    class Dead:
        """A disk that took a part of a line and takes nothing back."""

        def __init__(self, whole: Any) -> None:
            self.whole = whole

        def write(self, line: bytes) -> int:
            return int(self.whole.write(line[:20]))

        def truncate(self, _: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.whole, name)

    def half(file: WriteAhead, line: bytes) -> None:
        file._file = Dead(file._file)  # type: ignore[assignment]
        write(file, line)

    monkeypatch.setattr(WriteAhead, "write", half)
    with pytest.raises(OSError, match="Input/output"):
        log.append(decision("d2"))
    monkeypatch.setattr(WriteAhead, "write", write)
    log.append(decision("d3"))
    log.close()
    assert ids(log) == ["d1", "d3"]
    assert log.num_dropped == 1


def test_what_waits_to_be_rolled_is_bounded_and_taken_again_once_it_is(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DecisionLogConfig(roll_decisions=2, max_backlog_mb=0.01)
    with closing(DecisionLog(tmp_path, config, clock=clock)) as log:
        with monkeypatch.context() as patch:
            patch.setattr("foretaste.feedback.decision_log.write_parquet", full_disk)
            appended = until_refused(log, LogFullError)
            assert 5 <= len(appended) < 30
            with pytest.raises(LogFullError, match="wait to be rolled"):
                log.append(decision("late"))
            assert log.backlog_bytes >= 10_000
        log.roll()
        while log.backlog_bytes:
            log.roll_if_due()
            time.sleep(0.01)
        log.append(decision("again"))
        assert sorted(ids(log)) == sorted([*appended, "again"])


def test_a_disk_with_little_left_is_not_filled_to_the_last(tmp_path: Path, clock: Clock) -> None:
    free = [100_000_000]
    with closing(DecisionLog(tmp_path, clock=clock, free_bytes=lambda _: free[0])) as log:
        log.append(decision("d1"))
        free[0] = 63_000_000
        with pytest.raises(LogFullError, match="63000000 bytes left"):
            log.append(decision("d2"))
        free[0] = 65_000_000
        log.append(decision("d3"))
        assert ids(log) == ["d1", "d3"]


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def until_refused(log: DecisionLog, error: type[OSError]) -> list[str]:
    """Append until it raises; names of what was appended."""
    done: list[str] = []
    try:
        while len(done) < 10_000:
            log.append(decision(f"d{len(done)}"))
            done.append(f"d{len(done)}")
    except error:
        return done
    raise AssertionError("never refused")


def test_a_decision_with_missing_or_unknown_columns_is_refused(log: DecisionLog) -> None:
    bad = decision("d1") | {"colour": "red"}
    del bad["seed"]
    with pytest.raises(ValueError, match=r"missing columns \['seed'\], unknown columns \['colour'\]"):
        log.append(bad)


def test_a_closed_log_refuses(tmp_path: Path, clock: Clock) -> None:
    log = DecisionLog(tmp_path, clock=clock)
    log.close()
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.append(decision("d1"))


def test_many_threads_and_a_reader_lose_nothing(tmp_path: Path, clock: Clock) -> None:
    log = DecisionLog(tmp_path, DecisionLogConfig(roll_decisions=7, recent_decisions=0), clock=clock)
    appended: list[str] = []

    def write(thread: int) -> None:
        for number in range(40):
            log.append(decision(f"{thread}-{number}"))
            appended.append(f"{thread}-{number}")

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        before = list(appended)
        seen = ids(log)
        assert set(before) <= set(seen)
        assert len(seen) == len(set(seen))
    log.close()
    assert sorted(ids(log)) == sorted(f"{thread}-{number}" for thread in range(4) for number in range(40))


WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from foretaste.feedback.decision_log import DecisionLog, DecisionLogConfig
from foretaste.testing.decisions import decision
log = DecisionLog(Path(sys.argv[1]), DecisionLogConfig(roll_decisions=10), clock=lambda: datetime.now(UTC))
for number in range(1_000_000):
    log.append(decision(f"{sys.argv[2]}-{number}"))
    print(number, flush=True)
"""


FULL = """
import os, resource, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from foretaste.feedback.decision_log import DecisionLog, DecisionLogConfig
from foretaste.testing.decisions import decision
log = DecisionLog(Path(sys.argv[1]), DecisionLogConfig(roll_decisions=1000), clock=lambda: datetime.now(UTC))
number = refused = 0
while refused < 20:
    limit = 20_000 if number < 60 and refused < 10 else resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    if number == 60:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        log.append(decision(f"d{number}"))
    except OSError:
        refused += 1
        print("refused", flush=True)
        continue
    print(f"d{number}", flush=True)
    number += 1
"""


def test_after_a_full_disk_and_kill_9_everything_acknowledged_is_there_and_nothing_that_was_refused(
    tmp_path: Path, clock: Clock
) -> None:
    told = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=False)
    assert told.returncode == -signal.SIGKILL
    lines = told.stdout.split()
    assert lines.count("refused") == 10
    assert lines[-1] == "d59"
    with closing(DecisionLog(tmp_path, clock=clock)) as log:
        assert ids(log) == [line for line in lines if line != "refused"] == [f"d{number}" for number in range(60)]
        assert log.num_dropped == 0


def test_after_kill_9_everything_acknowledged_is_there_once(tmp_path: Path, clock: Clock) -> None:
    wanted = set()
    for life in ("first", "second"):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), life], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if int(line) == 34:
                    os.kill(process.pid, signal.SIGKILL)
                    break
            last = max([34, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
        assert process.wait() == -signal.SIGKILL
        wanted |= {f"{life}-{number}" for number in range(last + 1)}
    with closing(DecisionLog(tmp_path, clock=clock)) as log:
        found = ids(log)
        assert len(found) == len(set(found))
        assert wanted <= set(found)
        assert len(found) <= len(wanted) + 2  # at most one a life was written and not acknowledged
    assert not list(tmp_path.glob("*.jsonl"))
