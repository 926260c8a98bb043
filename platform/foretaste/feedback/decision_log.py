"""Every answer on disk before it is sent: a write-ahead file of JSON lines a process, rolled to Parquet.

    decisions/
      20260102T030405-41-5f2c9a10-000001.jsonl      being written; held by the process that writes it
      20260102T030405-41-5f2c9a10-000000.parquet    rolled: the same decisions, as DECISIONS

A line is handed to the operating system before `append` returns, so it survives the death of the process, not of the
machine. Where there is no room, on the disk or within the bound of what waits to be rolled, a decision is refused, so
that none is lost that was answered. A file that nobody holds is a dead process's; the next log that opens the folder
rolls it. A decision stands in the Parquet file or in the write-ahead file of one name, and while both are there the
Parquet file counts. Where a target is set, rolled files are shipped there in the background (`decision_target`).
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, field_validator

from foretaste.contracts.columns import AT, DECISIONS, conform
from foretaste.contracts.config import Frozen
from foretaste.feedback.decision_target import Shipper, Target, find_shipped
from foretaste.feedback.forgotten import forget_decisions, of_deleted
from foretaste.feedback.write_ahead import LINES, WriteAhead, whole_lines
from foretaste.ops.files import PARTIAL, write_parquet
from foretaste.ops.memory import give_back
from foretaste.ops.stores import checked

TABLE = ".parquet"

_COLUMNS = frozenset(DECISIONS.names)
_NUMBERED_TIMES = pa.schema(
    [pa.field(f.name, pa.int64(), nullable=f.nullable) if f.type == AT else f for f in DECISIONS]
)
_log = logging.getLogger(__name__)


class DecisionLogConfig(Frozen):
    """When decisions are rolled to Parquet, and how many are kept at hand."""

    roll_decisions: int = Field(2_000, ge=1, description="decisions in a write-ahead file before it is rolled")
    roll_seconds: float = Field(300.0, gt=0, description="seconds after its first decision before a file is rolled")
    recent_decisions: int = Field(2_000, ge=0, description="newest decisions kept in memory for reading back")
    max_backlog_mb: float = Field(
        512.0, gt=0, description="megabytes of a process's decisions that wait to be rolled; beyond it none is taken"
    )
    min_free_mb: float = Field(
        64.0, ge=0, description="megabytes that the disk must have left for a decision to be taken; 0: any"
    )
    target: str | None = Field(
        None,
        description="URI where rolled files are shipped to, e.g. s3://bucket/decisions?region=eu-west-1; of this log",
    )
    keep_days: float = Field(7.0, ge=0, description="days that a file which was shipped stays on this machine, too")

    @field_validator("target")
    @classmethod
    def _known_scheme(cls, target: str | None) -> str | None:
        return None if target is None else checked(target)


LINES_AT_ONCE = 64
"""Of a write-ahead file: as objects of Python its decisions take ten times the room."""


class LogFullError(OSError):
    """There is no room for a decision: nothing of it was stored, and its answer must not go out."""


def free_bytes_of(folder: Path) -> int:
    """Bytes that an ordinary user may still write to the disk of a folder."""
    about = os.statvfs(folder)
    return about.f_bavail * about.f_frsize


class DecisionLog:
    """An append-only log of DECISIONS rows; each log has files of its own, any number share a folder."""

    def __init__(
        self,
        folder: Path,
        config: DecisionLogConfig | None = None,
        *,
        clock: Callable[[], datetime],
        deleted: Callable[[], Mapping[str, int]] = dict,
        free_bytes: Callable[[Path], int] = free_bytes_of,
    ) -> None:
        """Open the log at `folder` and roll what dead processes left there; `clock` gives aware times.

        `deleted` says up to when (microseconds) which actors are deleted: their decisions are not rolled.
        """
        self.config = config or DecisionLogConfig()
        self.num_dropped = 0  # torn or unreadable lines, left out while rolling
        self.num_failed = 0  # times that a file could not be rolled; it stays and is tried again
        self._folder = folder
        self._clock = clock
        self._deleted = deleted
        self._name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._target = None if self.config.target is None else Target(self.config.target)
        self.shipper = (
            None
            if self._target is None
            else Shipper(folder, self._target, keep=timedelta(days=self.config.keep_days), clock=clock)
        )
        """Brings rolled files to the target; None without one."""
        self._free_bytes = free_bytes
        self._unrolled: dict[str, int] = {}  # bytes by name of the files that are full or could not be rolled
        self._roll_again = False
        self._number = 0
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._current: WriteAhead | None = None
        self._first_at: datetime | None = None
        self._closed = False
        self._full: queue.SimpleQueue[WriteAhead | None] = queue.SimpleQueue()
        folder.mkdir(parents=True, exist_ok=True)
        self.adopt()
        self._roller = threading.Thread(target=self._roll_queued, name="decision-log-roller", daemon=True)
        self._roller.start()

    def append(self, decision: Mapping[str, Any]) -> None:
        """Write one decision; every column of DECISIONS has to be there, times in microseconds since 1970.

        Raises ValueError naming the columns that are missing or too many, or where the log is closed; LogFullError
        where there is no room, OSError where the disk fails: in either case nothing of the decision is stored.
        """
        if decision.keys() != _COLUMNS:
            missing, more = sorted(_COLUMNS - decision.keys()), sorted(decision.keys() - _COLUMNS)
            raise ValueError(f"decision: missing columns {missing}, unknown columns {more}")
        line = orjson.dumps(decision)
        with self._lock:
            if self._closed:
                raise ValueError(f"decision log {self._folder}: is closed")
            self._roll_if_due()
            self._check_room()
            if self._current is None:
                self._current, self._first_at = self._open(), self._clock()
            self._write(self._current, line)
            self._recent[decision["decision_id"]] = line
            while len(self._recent) > self.config.recent_decisions:
                self._recent.popitem(last=False)

    @property
    def backlog_bytes(self) -> int:
        """Bytes of this process's decisions that are not rolled; does not wait for a disk that hangs."""
        return self._backlog()

    def get(self, decision_id: str, *, shipped: bool = False) -> dict[str, Any] | None:
        """Find a decision of any process, as it was appended; None where there is none.

        Where it is `shipped` and not here any more it is looked for at the target, too, which takes longer; raises
        OSError where that does not answer.
        """
        line = self._recent.get(decision_id)  # without the lock, which is held while a disk hangs
        if line is not None:
            row: dict[str, Any] = orjson.loads(line)
            return row
        for name in reversed(_names(self._folder)):
            found = _load(self._folder / name, decision_id=decision_id)
            if found.num_rows:
                return plain_rows(found)[0]
        if shipped and self._target is not None:
            found = find_shipped(self._target, decision_id, days=self._days_of(decision_id))
            return plain_rows(found)[0] if found.num_rows else None
        return None

    def read(self) -> pa.Table:
        """Give all decisions of all processes, rolled or not, shipped or not, as DECISIONS."""
        return pa.concat_tables([DECISIONS.empty_table(), *decision_tables(self._folder, self.config.target)])

    def roll(self) -> None:
        """Roll what is written so far, in this thread; nothing to do where nothing is."""
        with self._lock:
            full = self._retire()
        if full is not None:
            self._roll(full)

    def roll_if_due(self) -> None:
        """Have the file rolled in the background where it is old enough, and try again what could not be rolled.

        What is rolled is shipped in the background, too, where there is a target.
        """
        with self._lock:
            self._roll_if_due()
            again, self._roll_again = self._roll_again, False
        if again:
            self.adopt()
        if self.shipper is not None:
            self.shipper.begin(self._deleted())

    def forget(self, deleted: Mapping[str, int]) -> int:
        """Remove the rolled decisions of deleted actors (see `past.before_deletion`); returns how many.

        One process at a time, another one returns 0 at once. What is not rolled goes when it is.
        """
        with self._lock:
            self._recent.clear()
        return forget_decisions(self._folder, deleted)

    def adopt(self) -> int:
        """Roll the write-ahead files that no living process holds; returns how many."""
        taken = [WriteAhead.take(path) for path in sorted(self._folder.glob(f"*{LINES}"))]
        dead = [file for file in taken if file is not None]
        for file in dead:
            self._roll(file)
        return len(dead)

    def close(self) -> None:
        """Roll everything and refuse more. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            last = self._retire()
        self._full.put(last)
        self._full.put(None)
        self._roller.join()
        if self.shipper is not None:
            self.shipper.close(self._deleted())

    def _days_of(self, decision_id: str) -> list[str]:
        """Days of the files that can have a decision: a file is named by when it was begun."""
        try:
            at = datetime.fromtimestamp(int(decision_id[:12], 16) / 1e3, UTC)
        except (ValueError, OverflowError):
            return []
        num = 2 + int(self.config.roll_seconds // 86_400)
        return [f"{at - timedelta(days=back):%Y%m%d}" for back in range(num)]

    def _open(self) -> WriteAhead:
        while True:
            path = self._folder / f"{self._clock():%Y%m%dT%H%M%S}-{self._name}-{self._number:06d}{LINES}"
            self._number += 1
            file = WriteAhead.create(path)
            if file is not None:
                return file

    def _roll_if_due(self) -> None:
        if self._current is None or self._first_at is None:
            return
        old = (self._clock() - self._first_at).total_seconds() >= self.config.roll_seconds
        if old or self._current.num_lines >= self.config.roll_decisions:
            self._full.put(self._retire())

    def _retire(self) -> WriteAhead | None:
        """Write no more to the current file."""
        full, self._current = self._current, None
        if full is not None:
            self._unrolled[full.path.name] = full.num_bytes
        return full

    def _write(self, file: WriteAhead, line: bytes) -> None:
        try:
            file.write(line)
        except OSError:
            if file.broken:
                self._full.put(self._retire())
            raise

    def _check_room(self) -> None:
        most = self.config.max_backlog_mb * 1e6
        if (waiting := self._backlog()) >= most:
            if self._current is not None:  # it may be all that waits
                self._full.put(self._retire())
            raise LogFullError(errno.ENOSPC, f"{waiting} bytes of decisions wait to be rolled, at most {most:.0f}")
        least = self.config.min_free_mb * 1e6
        if least and (free := self._free_bytes(self._folder)) < least:
            raise LogFullError(errno.ENOSPC, f"the disk has {free} bytes left, at least {least:.0f} have to be")

    def _backlog(self) -> int:
        current = self._current
        return sum(list(self._unrolled.values())) + (0 if current is None else current.num_bytes)

    def _roll_queued(self) -> None:
        while (full := self._full.get()) is not None:
            self._roll(full)
            give_back()

    def _roll(self, file: WriteAhead) -> None:
        """Write the Parquet file of a write-ahead file, then remove that; what fails is left as it was."""
        try:
            table, num_dropped = _table(file.path)
            table = table.filter(pc.invert(of_deleted(table, self._deleted())))
            if table.num_rows:
                write_parquet(table, file.path.with_suffix(TABLE))
            file.remove()
        except OSError:
            self.num_failed += 1
            _log.exception("decision log: %s could not be rolled and stays", file.path.name)
            file.release()
            with self._lock:
                self._unrolled.setdefault(file.path.name, file.path.stat().st_size if file.path.exists() else 0)
                self._roll_again = True
            return
        with self._lock:
            self._unrolled.pop(file.path.name, None)
        if num_dropped:
            self.num_dropped += num_dropped
            _log.warning("decision log: dropped %d unreadable lines of %s", num_dropped, file.path.name)


def decision_tables(
    folder: Path, target: str | None = None, *, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Give the decisions of all processes file by file, rolled or not, as DECISIONS; changes nothing in the folder.

    With a `target` (URI) also those that are only there; raises OSError where it does not answer. `columns` are those
    that are wanted, by default all.
    """
    there, here = None if target is None else Target(target), set()
    for name in _names(folder):
        table = _load(folder / name, columns=columns)
        if table.num_rows:  # it may have been removed here meanwhile
            here.add(name)
        yield table
    if there is not None:
        for path in (path for name, path in there.names().items() if name not in here):
            table = there.read(path)
            yield table if columns is None else table.select(list(columns))


def plain_rows(decisions: pa.Table) -> list[dict[str, Any]]:
    """Make DECISIONS rows as they were appended, times in microseconds since 1970."""
    rows: list[dict[str, Any]] = decisions.cast(_NUMBERED_TIMES).to_pylist()
    return rows


def _names(folder: Path) -> list[str]:
    files = [f for f in folder.iterdir() if f.suffix in (LINES, TABLE) and not f.name.startswith(PARTIAL)]
    return sorted({file.stem for file in files})


def _load(path: Path, *, decision_id: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
    """Decisions of one file, rolled or not; it may be rolled while this looks, hence the second try."""
    wanted = None if decision_id is None else [("decision_id", "==", decision_id)]
    schema = DECISIONS if columns is None else pa.schema([DECISIONS.field(name) for name in columns])
    for attempt in (path.with_suffix(TABLE), path.with_suffix(LINES), path.with_suffix(TABLE)):
        try:
            if attempt.suffix == TABLE:
                there = None if columns is None else [name for name in columns if name in pq.read_schema(attempt).names]
                table = pq.read_table(attempt, columns=there, filters=wanted, partitioning=None)
                return conform(table, schema, what=attempt.name)
            return _table(attempt, decision_id=decision_id)[0].select(schema.names)
        except FileNotFoundError:
            continue
    return schema.empty_table()


def _table(path: Path, *, decision_id: str | None = None) -> tuple[pa.Table, int]:
    """Decisions of a write-ahead file, by default all, and how many of its lines could not be read."""
    lines, num_bad = whole_lines(path)
    if decision_id is not None:
        needle = decision_id.encode()
        lines = [line for line in lines if needle in line]
    tables = [DECISIONS.empty_table()]
    for begin in range(0, len(lines), LINES_AT_ONCE):
        rows, bad = _rows(lines[begin : begin + LINES_AT_ONCE])
        if decision_id is not None:
            rows = [row for row in rows if row["decision_id"] == decision_id]
        table, misfits = _fitting(rows)
        tables.append(table)
        num_bad += bad + misfits
    return pa.concat_tables(tables), num_bad


def _rows(lines: Sequence[bytes]) -> tuple[list[dict[str, Any]], int]:
    """Decisions of lines, and how many are none."""
    rows = []
    for line in lines:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(row, dict) and "decision_id" in row:
            rows.append(row)
    return rows, len(lines) - len(rows)


def _fitting(rows: list[dict[str, Any]]) -> tuple[pa.Table, int]:
    """The rows that DECISIONS can hold, and how many it cannot."""
    try:
        return _conformed(rows), 0
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, AttributeError):
        good = [row for row in rows if _fits(row)]
        return _conformed(good), len(rows) - len(good)


def _conformed(rows: list[Any]) -> pa.Table:
    return conform(pa.Table.from_pylist(rows, schema=DECISIONS), DECISIONS, what="decisions")


def _fits(row: Any) -> bool:
    try:
        _conformed([row])
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, AttributeError):
        return False
    return True
