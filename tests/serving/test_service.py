"""One replica's worth of service, through HTTP without a network, on fakes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from foretaste.feedback.session_log import microseconds
from foretaste.serving.config import ServiceConfig
from foretaste.serving.ingress import build_app
from foretaste.serving.shedding import Admission, SheddingConfig

LOCAL = Path(__file__).parents[2] / "deployments" / "local"


def through(bench: Any, talk: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def run() -> None:
        patient = Admission(SheddingConfig(target_ms=60_000, burst_ms=60_000), timer=time.perf_counter)
        app = build_app(bench.service(), max_body_bytes=100_000, admission=patient)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await talk(client)

    asyncio.run(run())


def test_a_decision_is_readable_by_its_name_and_nonsense_is_not_looked_for(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        answer = (await client.post("/v1/recommend", json={"session_id": "s1", "k": 3, "policy": "greedy"})).json()
        found = (await client.get(f"/v1/decisions/{answer['decision_id']}")).json()
        assert found["at"] == "2026-01-02T03:04:05Z"
        assert found["newest_event_at"] is None
        assert found["request"]["k"] == 3
        assert found["policy_params"] == {"epsilon": 0.0}
        assert [item["title_id"] for item in found["items"]] == [item["title_id"] for item in answer["items"]]
        assert (await client.get(f"/v1/decisions/{'0' * 32}")).status_code == 404
        monkeypatch.setattr(bench.decisions, "get", None)
        assert (await client.get("/v1/decisions/nonsense")).status_code == 404

    through(bench, talk)


def test_an_unknown_surface_is_a_problem_that_names_the_field(bench: Any) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/recommend", json={"session_id": "s1", "surface": "window"})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "surface"

    through(bench, talk)


def test_many_at_once_are_all_answered_and_logged(bench: Any) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        def event(number: int) -> dict[str, Any]:
            at = bench.clock.now.isoformat()
            return {"event_id": f"e{number}", "session_id": f"s{number % 3}", "at": at, "action": "search"}

        sent = [client.post("/v1/events", json={"events": [event(number // 2)]}) for number in range(60)]
        asked = [client.post("/v1/recommend", json={"session_id": f"s{number % 3}"}) for number in range(60)]
        answers = await asyncio.gather(*sent, *asked)
        assert {answer.status_code for answer in answers} == {200}
        assert sum(answer.json()["accepted"] for answer in answers[:60]) == 30
        names = {answer.json()["decision_id"] for answer in answers[60:]}
        assert len(names) == 60
        assert set(bench.decisions.read()["decision_id"].to_pylist()) == names

    through(bench, talk)


def test_housekeeping_does_what_is_due(bench: Any) -> None:
    service = bench.service()
    service.housekeep()
    bench.act("play", "t00")
    bench.ask()
    bench.source.asof_ms += 1
    bench.clock.move(days=31)
    service.housekeep()
    asof = microseconds(bench.clock.now)
    assert bench.sessions.read("m1", limit=10, before_us=asof)[0] == []
    views = service._recommender.lineup.main.loaded.views
    assert views.read("m1", asof=0).titles.newest_ms == bench.source.asof_ms
    bench.decisions.close()
    assert bench.decisions.read().num_rows == 1


@pytest.mark.parametrize(("name", "topology"), [("serve.yaml", "fused"), ("serve-composed.yaml", "composed")])
def test_the_local_deployments_are_those_that_serve_and_the_service_know(name: str, topology: str) -> None:
    schema = pytest.importorskip("ray.serve.schema")
    found = yaml.safe_load((LOCAL / name).read_text())
    schema.ServeDeploySchema.model_validate(found)
    (application,) = found["applications"]
    assert application["import_path"] == "foretaste.serving.graph:build"
    config = ServiceConfig.model_validate(application["args"])
    assert config.serving.topology == topology
    assert (found["http_options"]["host"], found["http_options"]["port"]) == (config.serving.host, config.serving.port)


pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")  # of ray.serve's own schema
