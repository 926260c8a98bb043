"""Stores that fail under a whole service: nothing acknowledged is lost, nothing is empty, and all comes back alone."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import httpx
import pytest

from foretaste.serving.ingress import build_app
from foretaste.serving.shedding import Admission, SheddingConfig
from foretaste.testing.fakes import FakeClock


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
