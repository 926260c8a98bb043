"""A deletion takes the decisions that saw anything of before, from every file, and no other."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from foretaste.feedback.decision_log import DecisionLog, DecisionLogConfig
from foretaste.feedback.forgotten import DELETING_US, before_deletion
from foretaste.testing.decisions import NOW_US, decision
from foretaste.testing.fakes import FakeClock

GONE = NOW_US


def known(**features: int) -> list[dict[str, str]]:
    return [{"name": name, "value": str(value)} for name, value in features.items()]


@pytest.mark.parametrize(
    ("at", "features", "goes"),
    [
        (GONE, {}, True),
        (GONE + 1, {}, False),
        (GONE + 1, {"oldest_event_at": GONE + 1, "oldest_sequence": GONE + 1}, False),
        (GONE + 9, {"oldest_event_at": GONE, "oldest_sequence": GONE + 1}, True),
        (GONE + 9, {"oldest_event_at": GONE + 1, "oldest_sequence": GONE}, True),
        (GONE + 9, {"members_asof_ms": GONE // 1000}, True),
        (GONE + 9, {"members_asof_ms": -1}, False),
        (GONE + DELETING_US + 1, {"oldest_event_at": GONE}, False),  # a fault, and to be found as one
    ],
)
def test_a_decision_goes_where_it_saw_anything_of_before(at: int, features: dict[str, int], goes: bool) -> None:
    row: dict[str, Any] = {"actor_id": "m1", "at": at, "features": known(**features)}
    assert before_deletion(row, {"m1": GONE}) == goes
    assert not before_deletion(row | {"actor_id": "m2"}, {"m1": GONE})


def test_decisions_of_deleted_actors_go_from_rolled_files_and_are_not_rolled(tmp_path: Path) -> None:
    deleted: dict[str, int] = {}
    config = DecisionLogConfig(roll_decisions=3)
    with closing(DecisionLog(tmp_path, config, clock=FakeClock(), deleted=lambda: deleted)) as log:
        for number in range(6):
            log.append(decision(f"d{number}", member_id=f"m{number % 2}", at=GONE + number, features=[]))
        log.append(decision("guest", member_id=None, session_id="s9"))
        log.append(decision("later", member_id="m1", at=GONE + 100, features=[]))
        log.roll()
        assert log.read().num_rows == 8
        log.append(decision("waits", member_id="m1", at=GONE))
        deleted |= {"m1": GONE + 3, "guest:s9": GONE}
        assert log.forget(deleted) == 3
        assert log.forget(deleted) == 0
        assert log.get("d1") is None
    with closing(DecisionLog(tmp_path, clock=FakeClock())) as log:
        assert sorted(log.read()["decision_id"].to_pylist()) == ["d0", "d2", "d4", "d5", "later"]


def test_nothing_is_written_where_nobody_was_deleted(tmp_path: Path) -> None:
    with closing(DecisionLog(tmp_path, clock=FakeClock())) as log:
        log.append(decision("d0"))
        log.roll()
        before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        assert log.forget({}) == log.forget({"m7": GONE}) == 0
        after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
        assert after.items() <= before.items()
