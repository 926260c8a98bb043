"""Rolled decisions reach their target whole, whatever happens to it, and are found there once they are gone here."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from foretaste.feedback.decision_log import DecisionLog, DecisionLogConfig, decision_tables
from foretaste.feedback.decision_target import LOCK, SHIPPED, Shipper, StoreError, Target
from foretaste.feedback.forgotten import alone_in
from foretaste.feedback.session_log import microseconds
from foretaste.ops import stores
from foretaste.ops.files import PARTIAL
from foretaste.serving.names import decision_name
from foretaste.testing.decisions import decision
from foretaste.testing.fakes import NOW, FakeClock
from foretaste.testing.object_store import s3_server


class Log:
    """A decision log with a target, and the clock that both go by."""

    def __init__(self, folder: Path, target: str, **config: Any) -> None:
        self.clock = FakeClock()
        self.deleted: dict[str, int] = {}
        self.folder = folder
        self.target = target
        self.config = DecisionLogConfig(**({"roll_decisions": 3, "recent_decisions": 0, "target": target} | config))
        self.log = DecisionLog(folder, self.config, clock=self.clock, deleted=lambda: self.deleted)
        self.number = 0

    def add(self, count: int = 3, **more: Any) -> list[str]:
        """Append decisions a second apart, of m0 and m1 in turn, and roll them."""
        names = []
        for _ in range(count):
            at = {"at": microseconds(self.clock()), "features": [], "member_id": f"m{self.number % 2}"}
            names.append(decision_name(self.clock(), bits=self.number))
            self.log.append(decision(names[-1], **(at | more)))
            self.number += 1
            self.clock.move(seconds=1)
        self.log.roll()
        return names

    def ship(self) -> int:
        assert self.log.shipper is not None
        return self.log.shipper.ship(self.deleted)

    @property
    def shipper(self) -> Shipper:
        assert self.log.shipper is not None
        return self.log.shipper

    def here(self) -> set[str]:
        return {path.stem for path in self.folder.glob("*.parquet")}

    def there(self) -> set[str]:
        return set(Target(self.target).names())

    def ids(self) -> list[str]:
        return sorted(self.log.read()["decision_id"].to_pylist())


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path / "log", (tmp_path / "store").as_uri(), keep_days=2.0)
    yield log
    log.log.close()


def test_what_is_rolled_is_shipped_once_and_read_there_once_it_is_gone_here(made: Log, tmp_path: Path) -> None:
    names = made.add(3)
    (file,) = made.here()
    assert made.shipper.waiting[0] == 1
    assert made.shipper.waiting[1] == (made.folder / f"{file}.parquet").stat().st_size
    assert (made.ship(), made.ship(), made.shipper.waiting) == (1, 0, (0, 0))
    assert [path.relative_to(tmp_path / "store") for path in (tmp_path / "store").rglob("*.parquet")] == [
        Path("date=2026-01-02") / f"{file}.parquet"
    ]
    made.clock.move(days=1.9)
    made.ship()
    assert made.here() == {file}, "what was shipped stays for a while"
    made.clock.move(days=0.2)
    names += made.add(2)
    assert made.ship() == 1
    assert file not in made.here()
    assert made.there() == {file} | made.here()
    assert made.ids() == sorted(names)
    assert made.log.get(names[1]) is None, "the request path asks nobody else"
    found = made.log.get(names[1], shipped=True)
    assert found is not None
    assert found == decision(names[1], at=microseconds(NOW + timedelta(seconds=1)), features=[], member_id="m1")
    assert made.log.get(names[4]) == made.log.get(names[4], shipped=True) != None  # noqa: E711
    assert made.log.get("f" * 32, shipped=True) is None
    assert made.log.get("no-name-of-a-decision", shipped=True) is None
    assert sorted(one for t in decision_tables(made.folder, made.target) for one in t["decision_id"].to_pylist()) == (
        sorted(names)
    )


def test_nothing_half_written_is_ever_read(made: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.add(3)
    copy = pafs.copy_files

    def torn(source: str, destination: str, **more: Any) -> None:
        copy(source, destination, **more)
        Path(destination).write_bytes(Path(destination).read_bytes()[:100])

    with monkeypatch.context() as patched:
        patched.setattr("foretaste.feedback.decision_target.pafs.copy_files", torn)
        assert made.ship() == 0
    assert (made.there(), made.shipper.num_failed, made.shipper.down, made.shipper.waiting[0]) == (set(), 1, True, 1)
    (left,) = (tmp_path / "store").rglob("*.parquet")
    assert left.name.startswith(PARTIAL)
    assert made.ship() == 1
    assert (made.there(), made.shipper.down) == (made.here(), False)
    assert not [path for path in (tmp_path / "store").rglob("*") if path.name.startswith(PARTIAL)]


def test_what_died_before_it_was_noted_is_shipped_again_and_read_once(made: Log) -> None:
    names = made.add(3)
    made.ship()
    (made.folder / SHIPPED).unlink()
    assert made.ship() == 1
    assert made.ids() == sorted(names)


def test_one_process_at_a_time_ships(made: Log) -> None:
    made.add(3)
    other = Shipper(made.folder, Target(made.target), keep=timedelta(days=1), clock=made.clock)
    with alone_in(made.folder, lock=LOCK) as held:
        assert held
        assert other.ship({}) == made.ship() == 0
    assert other.ship({}) == 1


def test_deleted_members_leave_the_target_too(made: Log) -> None:
    old = made.add(3) + made.add(2, member_id="m1")
    made.ship()
    made.clock.move(days=3)
    made.ship()
    assert made.here() == set()
    new = made.add(3)
    made.ship()
    assert len(made.there()) == 3
    made.deleted |= {"m1": microseconds(made.clock())}
    made.log.forget(made.deleted)
    made.ship()
    kept = [name for number, name in enumerate(old[:3]) if number % 2 == 0]
    kept += [name for number, name in enumerate(new, start=5) if number % 2 == 0]
    assert made.ids() == sorted(kept)
    assert len(made.there()) == 2, "a file of nobody else goes"
    for path in Target(made.target).names().values():
        assert "m1" not in Target(made.target).read(path)["member_id"].to_pylist()
    made.deleted |= {"m0": microseconds(made.clock())}
    made.log.forget(made.deleted)
    made.ship()
    assert (made.ids(), made.there()) == ([], set())


def test_a_target_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scheme 'ftp' is not known"):
        DecisionLogConfig(target="ftp://somewhere")


@pytest.mark.slow
def test_an_object_store_that_is_away_for_a_while_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("moto")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    stores.filesystem_of.cache_clear()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    target = f"s3://bucket/some/decisions?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    made = Log(tmp_path, target, keep_days=1.0)
    with closing(made.log):
        names = made.add(3)
        assert made.ship() == 0
        assert (made.shipper.num_failed, made.shipper.down, made.shipper.waiting[0]) == (1, True, 1)
        made.clock.move(days=30)
        names += made.add(3)
        assert made.ship() == 0
        assert len(made.here()) == 2, "nothing goes here that is not there"
        with s3_server(port):
            assert made.ship() == 2
            assert made.there() == made.here()
            assert made.ids() == sorted(names)
            made.clock.move(days=2)
            names += made.add(1)
            assert made.ship() == 1
            assert len(made.here()) == 1
            assert made.ids() == sorted(names)
            found = made.log.get(names[4], shipped=True)
            assert found is not None
            assert found["decision_id"] == names[4]
        assert made.log.get(names[6]) is not None
        with pytest.raises(StoreError):
            made.log.get(names[0], shipped=True)
        more = made.add(3)
        made.log.roll_if_due()  # as housekeeping does: in the background
        made.shipper.close({})
        assert made.shipper.down
        assert made.shipper.waiting[0] == 1
        with s3_server(port):
            made.log.roll_if_due()
            end = time.monotonic() + 60
            while made.shipper.waiting[0]:
                assert time.monotonic() < end
                time.sleep(0.05)
            assert len(made.there()) == 1
            assert made.log.get(more[0]) is not None
    stores.filesystem_of.cache_clear()
