"""The standing audit compares a share of the answers beside them, alerts on any difference, and never harms them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from polars.exceptions import PanicException

from foretaste.contracts.columns import LOGGED_EVENTS
from foretaste.contracts.wire import EventsRequest, RecommendRequest
from foretaste.feedback.event_log import EVENTS_FOLDER, EventLog
from foretaste.feedback.session_log import SessionLogConfig
from foretaste.ops.files import parquet_files, read_parquet, write_parquet
from foretaste.serving import audit as audits
from foretaste.serving.audit import Audit
from foretaste.serving.config import ServiceConfig, ServingConfig
from foretaste.serving.replay import Replay
from foretaste.serving.service import Service, open_service
from foretaste.serving.tally import Tally
from foretaste.signals import crosses
from foretaste.testing.bundles import file_intent, file_ranker
from foretaste.testing.fakes import FakeClock, two_genre_titles


class Audited:
    """A service without slow views, all of whose answers are audited."""

    def __init__(self, folder: Path) -> None:
        at = datetime(2026, 1, 1, tzinfo=UTC)
        intent = file_intent(folder / "registry", two_genre_titles(), at=at)
        file_ranker(folder / "registry", intent=intent.fingerprint, at=at)
        self.folder, self.clock, self.number = folder, FakeClock(), 0
        self.service = self.open()

    def open(self, share: float = 1.0) -> Service:
        serving = ServingConfig(audit_share=share, session_log=SessionLogConfig(durable=False))
        config = ServiceConfig(workspace=self.folder, features_repo=Path("features"), serving=serving)
        return open_service(config, clock=self.clock)

    def answer(self, count: int, *, on: Service | None = None) -> None:
        for _ in range(count):
            self.number += 1
            who = {"member_id": f"m{self.number % 3}", "session_id": "s"}
            event = who | {"event_id": f"e{self.number}", "action": "play", "title_id": f"t{self.number % 40:02d}"}
            at = (self.clock.now - timedelta(seconds=2)).isoformat()
            (on or self.service).accept(EventsRequest.model_validate({"events": [event | {"at": at}]}))
            (on or self.service).recommend(RecommendRequest.model_validate(who))
            self.clock.move(seconds=3)


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Audited]:
    monkeypatch.setattr(audits, "REST", 0.0)
    monkeypatch.setattr(audits, "ROUND_SECONDS", 60.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    audited = Audited(tmp_path)
    yield audited
    audited.service.close()
    torch.set_num_threads(threads)


def test_what_was_answered_is_compared_beside_the_answers(audited: Audited) -> None:
    audited.answer(30)
    assert audited.service.ready()["audit"]["waiting"] == 30
    worker = threading.Thread(target=audited.service.housekeep)  # of another thread than the answers, as in a service
    worker.start()
    worker.join()
    found = audited.service.ready()
    assert found["audit"]["decisions"] == 30
    assert found["audit"]["values"] > 30 * 500
    assert (found["audit"]["mismatches"], found["audit"]["left_out"]) == ({}, {})
    assert found["audit"]["waiting"] == 0
    assert found["degraded"] == []
    assert found["ready"]


def test_any_difference_is_counted_logged_and_told(audited: Audited, caplog: pytest.LogCaptureFixture) -> None:
    audited.answer(5)
    audited.service.housekeep()
    audited.answer(1)
    folder = audited.folder / "serving" / EVENTS_FOLDER
    for part in parquet_files(folder):  # somebody loses an event of one member
        rows = read_parquet(part)
        write_parquet(rows.filter(pa.compute.not_equal(rows["event_id"], "e3")), part)
    with caplog.at_level(logging.ERROR):
        audited.service.housekeep()
    found = audited.service.ready()
    assert found["audit"]["mismatches"]["decision.num_events_visible"] == 1
    assert "history.title" in found["audit"]["mismatches"]
    assert any("differ from what is stored" in one for one in found["degraded"])
    assert found["ready"]
    assert any("decision.num_events_visible" in one.getMessage() for one in caplog.records)


def test_a_constant_that_differs_between_versions_of_the_code_is_noticed(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    audited.answer(3)
    monkeypatch.setattr(crosses, "LEAST_LOGPROB", -1.0)
    audited.service.housekeep()
    assert "candidate.intent_logprob" in audited.service.ready()["audit"]["mismatches"]


def test_while_another_process_ships_what_was_seen_it_waits(audited: Audited) -> None:
    audited.answer(4)
    with EventLog(audited.folder / "serving" / EVENTS_FOLDER)._alone() as held:
        assert held
        audited.service.housekeep()
        found = audited.service.ready()["audit"]
        assert (found["decisions"], found["waiting"], found["mismatches"]) == (0, 4, {})
    audited.service.housekeep()
    found = audited.service.ready()["audit"]
    assert (found["decisions"], found["waiting"], found["mismatches"]) == (4, 0, {})


def test_only_the_share_is_audited_and_none_where_it_is_zero(audited: Audited) -> None:
    without = audited.open(0.0)
    audited.answer(3, on=without)
    without.housekeep()
    assert without.ready()["audit"] is None
    without.close()
    few = audited.open(0.3)
    audited.answer(60, on=few)
    assert 5 < few.ready()["audit"]["waiting"] < 35
    few.close()


def test_a_deleted_member_leaves_nothing_to_compare(audited: Audited) -> None:
    audited.answer(3)
    audited.service.delete("m1")
    audited.service.housekeep()
    found = audited.service.ready()["audit"]
    assert (found["decisions"], found["set_aside"]) == (2, {audits.DELETED: 1})
    assert found["mismatches"] == {}


class Broken:
    """A replay that fails, or one that takes its time."""

    def __init__(self, timer: FakeClock, seconds: float | None, error: BaseException | None = None) -> None:
        self.timer, self.seconds, self.num_asked = timer, seconds, 0
        self.error = error or RuntimeError("broken")

    def compare(self, decisions: Any, past: Any) -> Any:
        self.num_asked += len(decisions)
        if self.seconds is None:
            raise self.error
        self.timer.seconds += self.seconds
        return Tally(decisions=len(decisions))


def decisions(count: int) -> list[dict[str, Any]]:
    row = {"decision_id": "d", "member_id": "m", "session_id": "s", "at": 1, "features": [], "served": []}
    return [dict(row) for _ in range(count)]


def audit_with(replay: Broken) -> Audit:
    def nothing(actors: list[str]) -> pa.Table:
        return LOGGED_EVENTS.empty_table()

    replaying: Any = replay
    assert not isinstance(replaying, Replay)
    return Audit(replaying, events=nothing, deleted=dict, timer=replay.timer.timer)


@pytest.mark.parametrize("error", [RuntimeError("broken"), PanicException("broken below")])
def test_an_audit_that_fails_says_so_and_goes_on(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    audit = audit_with(Broken(FakeClock(), None, error))
    for one in decisions(3):
        audit.offer(one)
    audit.compare(audit.take())
    assert audit.plain()["set_aside"] == {audits.SKIPPED: 3}
    assert "failed" in caplog.text


def test_an_audit_takes_a_small_share_of_the_time_and_of_the_memory() -> None:
    replay = Broken(FakeClock(), seconds=0.6)
    audit = audit_with(replay)
    for one in decisions(audits.WAITING + 10):
        audit.offer(one)
    assert audit.plain()["waiting"] == audits.WAITING
    audit.compare(audit.take())
    assert replay.num_asked == 2 * audits.AT_ONCE  # the second one ended the round
    skipped = 10 + audits.WAITING - 2 * audits.AT_ONCE
    assert audit.plain()["set_aside"] == {audits.SKIPPED: skipped}
    audit.offer(decisions(1)[0])
    assert audit.take() == []  # it rests
    replay.timer.seconds += audits.REST * 1.3
    assert len(audit.take()) == 1


def test_an_event_log_of_nothing_is_read_as_nothing(tmp_path: Path) -> None:
    assert EventLog(tmp_path / "none").read(["m"]).num_rows == 0
