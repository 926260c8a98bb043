"""Stores that fail under a whole service: nothing acknowledged is lost, nothing is empty, and all comes back alone."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from foretaste.feedback.decision_log import DecisionLog
from foretaste.ops.files import write_parquet
from foretaste.serving.budget import DECISION_LOG, BudgetConfig, guards
from foretaste.serving.ingress import build_app
from foretaste.serving.shedding import Admission, SheddingConfig, ShedError
from foretaste.testing.fakes import FakeClock, two_genre_titles


def through(bench: Any, service: Any, talk: Any) -> None:
    async def whole() -> None:
        admission = Admission(SheddingConfig(), timer=FakeClock().timer)
        transport = httpx.ASGITransport(app=build_app(service, max_body_bytes=100_000, admission=admission))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await talk(client)
        admission.close()

    asyncio.run(whole())


def batch(number: int, bench: Any) -> dict[str, Any]:
    at = bench.clock.now.isoformat()
    return {"events": [{"event_id": f"e{number}", "session_id": "s", "at": at, "action": "play", "title_id": "t00"}]}


@pytest.mark.parametrize("error", [sqlite3.OperationalError("database or disk is full"), ConnectionError("gone")])
def test_events_are_refused_while_the_session_log_takes_none_and_taken_when_it_is_back(
    bench: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked = []

    def down(*_: object, **__: object) -> None:
        asked.append(1)
        raise error

    service = bench.service()
    service._writes._timer = bench.clock.timer

    async def talk(client: httpx.AsyncClient) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(bench.sessions, "append", down)
            for number in range(8):
                answer = await client.post("/v1/events", json=batch(number, bench))
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "1"
                assert answer.headers["content-type"] == "application/problem+json"
            assert len(asked) == 5, "a store that is down is left alone"
            assert (await client.post("/v1/recommend", json={"session_id": "s"})).status_code == 200
        bench.clock.seconds += 2.0
        for number in range(8):
            answer = await client.post("/v1/events", json=batch(number, bench))
            assert answer.json() == {"accepted": 1, "duplicate": 0, "rejected": []}

    through(bench, service, talk)


def test_a_bad_batch_is_no_failure_of_the_store(bench: Any) -> None:
    service = bench.service()

    async def talk(client: httpx.AsyncClient) -> None:
        for number in range(10):
            assert (await client.post("/v1/events", json={"events": [{"event_id": f"e{number}"}]})).status_code == 200
        assert (await client.post("/v1/events", json=batch(99, bench))).json()["accepted"] == 1

    through(bench, service, talk)


UNDER_PRESSURE = """
import os, resource, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from foretaste.contracts.wire import EventsRequest, RecommendRequest
from foretaste.serving.config import ServiceConfig
from foretaste.serving.service import open_service
from foretaste.serving.shedding import ShedError
seconds = [0.0]
config = ServiceConfig(workspace=Path(sys.argv[1]), features_repo=Path("features"))
service = open_service(config, timer=lambda: seconds[0])
shed = 0
for number in range(1_000_000):
    seconds[0] += 1.0
    full = 20 <= number < 40
    used = max(file.stat().st_size for file in (Path(sys.argv[1]) / "serving" / "decisions").iterdir()) if full else 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (used or resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        answer = service.recommend(RecommendRequest(session_id=f"s{number % 3}", k=5))
        print(answer.decision_id, flush=True)
    except ShedError:
        shed += 1
    if number == 60:
        print(f"shed {shed}", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_with_a_full_disk_in_between_and_kill_9_every_answered_decision_is_on_disk(tmp_path: Path) -> None:
    """A file may not grow any more from the 20th request to the 40th; every request comes a second after the other."""
    write_parquet(two_genre_titles(), tmp_path / "prepared" / "titles.parquet")
    told = subprocess.run(
        [sys.executable, "-c", UNDER_PRESSURE, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=False
    )
    assert told.returncode == -signal.SIGKILL
    *answered, shed = told.stdout.strip().split("\n")
    assert 20 <= int(shed.removeprefix("shed ")) <= 22, "two more at most, until the rest of the breaker is over"
    assert len(answered) == 61 - int(shed.removeprefix("shed "))
    with closing(DecisionLog(tmp_path / "serving" / "decisions", clock=FakeClock())) as log:
        assert sorted(log.read()["decision_id"].to_pylist()) == sorted(answered)
        assert log.num_dropped == 0


def test_a_disk_that_hangs_sheds_and_no_answer_waits_for_it_for_long(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, released, late = bench.decisions.append, threading.Event(), []

    def hangs(row: Any) -> None:
        assert released.wait(30)
        append(row)
        late.append(row["decision_id"])

    recommender = bench.recommender()
    recommender.guards = guards(BudgetConfig(), bench.config.breaker, budget_ms=30_000.0, timer=bench.clock.timer)
    recommender.guards[DECISION_LOG].deadline_ms = 20.0
    with monkeypatch.context() as patch:
        patch.setattr(bench.decisions, "append", hangs)
        for _ in range(7):
            with pytest.raises(ShedError):
                bench.ask(on=recommender)
    released.set()
    bench.clock.seconds += 10.0
    recommender.guards[DECISION_LOG].deadline_ms = 10_000.0
    name = bench.ask(on=recommender).decision_id
    stored = set(bench.decisions.read()["decision_id"].to_pylist())
    assert stored >= {name, *late}, "what was stored too late was not answered; nobody knows its name"
    assert len(late) <= 5, "what is left alone is not asked"
