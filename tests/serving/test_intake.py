"""Events on their way in: each on its own, none twice, none of the future."""

from __future__ import annotations

import json
from typing import Any

import pytest

from foretaste.serving.intake import Intake

GOOD = {"event_id": "e1", "member_id": "m1", "session_id": "s1", "action": "play", "title_id": "t00"}


def test_good_events_are_stored_and_the_same_again_is_a_duplicate(bench: Any) -> None:
    event = GOOD | {"at": bench.clock.now.isoformat(), "properties": {"ä": [1, None]}, "position": 3}
    first = bench.intake.accept([event, event | {"event_id": "e2", "title_id": "not in the catalogue"}])
    assert (first.accepted, first.duplicate, first.rejected) == (2, 0, [])
    again = bench.intake.accept([event, event | {"event_id": "e3"}])
    assert (again.accepted, again.duplicate) == (1, 1)
    rows, _ = bench.sessions.read("m1", limit=10)
    assert [row["event_id"] for row in rows] == ["e1", "e2", "e3"]
    assert rows[0]["at"] == 1_767_323_045_000_000
    assert json.loads(rows[0]["properties"]) == {"ä": [1, None]}
    assert rows[1]["title_id"] == "not in the catalogue"


def test_an_event_twice_in_one_batch_counts_once(bench: Any) -> None:
    event = GOOD | {"at": 1_767_323_045_000}
    answer = bench.intake.accept([event, event])
    assert (answer.accepted, answer.duplicate) == (1, 1)


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        ({"at": "2026-01-02T03:09:05.001Z"}, "future_time", "at"),
        ({"at": "yesterday"}, "invalid", "at"),
        ({"at": 1_767_323_045}, "invalid", "at"),
        ({"action": "steal"}, "invalid", "action"),
        ({"title_id": None}, "missing_title", "title_id"),
        ({"member_id": None, "session_id": None}, "missing_actor", "member_id"),
        ({"colour": "red"}, "invalid", "colour"),
        ({"dwell_seconds": float("nan")}, "invalid", "dwell_seconds"),
        ({"member_id": "guest:s1"}, "invalid", "member_id"),
    ],
)
def test_a_bad_event_is_rejected_with_its_place_and_the_others_are_stored(
    bench: Any, change: dict[str, Any], code: str, named: str
) -> None:
    good = GOOD | {"at": "2026-01-02T03:09:05Z"}  # exactly five minutes ahead
    answer = bench.intake.accept([good, good | {"event_id": "e2"} | change, good | {"event_id": "e3"}])
    assert (answer.accepted, answer.duplicate) == (2, 0)
    (rejected,) = answer.rejected
    assert (rejected.index, rejected.code) == (1, code)
    assert named in rejected.message
    assert len(bench.sessions.read("m1", limit=10)[0]) == 2


@pytest.mark.parametrize("raw", [None, 5, "text", [], [{}], {}, True])
def test_what_is_no_event_is_rejected(bench: Any, raw: Any) -> None:
    answer = bench.intake.accept([raw])
    assert (answer.accepted, [r.code for r in answer.rejected]) == (0, ["invalid"])


def test_properties_nested_without_end_are_rejected(bench: Any) -> None:
    deep: Any = 1
    for _ in range(900):
        deep = {"a": deep}
    answer = bench.intake.accept([GOOD | {"at": 1_767_323_045_000, "properties": deep}])
    (rejected,) = answer.rejected
    assert (answer.accepted, rejected.code) == (0, "invalid")
    assert "properties" in rejected.message


def test_a_rejection_does_not_repeat_a_key_as_long_as_the_body(bench: Any) -> None:
    (rejected,) = bench.intake.accept([GOOD | {"at": 1_767_323_045_000, "x" * 100_000: 1}]).rejected
    assert len(rejected.message) <= 500


def test_a_guest_cannot_be_named_as_a_member(bench: Any) -> None:
    bench.act("play", "t00", member_id=None)
    answer = bench.intake.accept([GOOD | {"member_id": "guest:s1", "at": 1_767_323_045_000}])
    assert answer.accepted == 0
    assert len(bench.sessions.read("guest:s1", limit=10)[0]) == 1


def test_an_event_that_is_stored_while_its_member_is_deleted_does_not_stay(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = bench.sessions.append

    def and_delete(rows: Any, *, received_at: Any) -> Any:
        done = append(rows, received_at=received_at)
        bench.tombstones.add("m1", rows[0]["at"])
        return done

    early = GOOD | {"at": 1_767_323_045_000}
    later = GOOD | {"event_id": "e2", "at": 1_767_323_046_000}
    other = GOOD | {"event_id": "e3", "member_id": "m2", "at": 1_767_323_045_000}
    intake = Intake(bench.sessions, future_minutes=5, clock=bench.clock, deleted=bench.tombstones.read)
    monkeypatch.setattr(bench.sessions, "append", and_delete)
    assert intake.accept([early, later, other]).accepted == 3
    monkeypatch.undo()
    assert [row["event_id"] for row in bench.sessions.read("m1", limit=10)[0]] == ["e2"]
    assert [row["event_id"] for row in bench.sessions.read("m2", limit=10)[0]] == ["e3"]
    assert intake.accept([early]).rejected[0].code == "deleted_member"
