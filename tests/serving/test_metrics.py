"""What a process tells of itself at /metrics."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from foretaste.serving.ingress import build_app
from foretaste.serving.metrics import CONTENT_TYPE, Metrics
from foretaste.serving.shared_metrics import SharedMetrics
from foretaste.serving.shedding import Admission, SheddingConfig
from foretaste.testing.fakes import FakeClock

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    return {
        (one.name.removeprefix("foretaste_"), tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def told(bench: Any, talk: Any) -> tuple[Samples, str]:
    """What /metrics says after some requests."""
    found: list[httpx.Response] = []

    async def whole() -> None:
        service = bench.service()
        admission = Admission(SheddingConfig(in_flight=1, waiting=0), timer=FakeClock().timer)
        app = build_app(service, max_body_bytes=100_000, admission=admission, metrics=service.metrics)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await talk(client, admission)
            found.append(await client.get("/metrics"))
        admission.close()

    asyncio.run(whole())
    assert found[0].headers["content-type"] == CONTENT_TYPE
    return samples(found[0].text), found[0].text


def test_requests_stages_levels_reasons_events_and_ages_are_counted(bench: Any) -> None:
    bench.ranker.failure = RuntimeError("broken")

    async def talk(client: httpx.AsyncClient, _: Admission) -> None:
        event = {"event_id": "e1", "member_id": "m-secret", "session_id": "s-secret", "action": "search"}
        event["at"] = bench.clock.now.isoformat()
        await client.post("/v1/events", json={"events": [event, event, {}]})
        bench.clock.move(seconds=2)
        for _number in range(3):
            await client.post("/v1/recommend", json={"member_id": "m-secret", "session_id": "s-secret"})
        await client.post("/v1/recommend", json={"session_id": 5})
        await client.get("/v1/decisions/0123456789abcdef0123456789abcdef")
        for path in ("/wp-admin", "/v1/m-secret"):
            assert (await client.get(path)).status_code == 404

    found, text = told(bench, talk)
    assert found["requests_total", (("endpoint", "/v1/recommend"), ("status", "200"))] == 3
    assert found["requests_total", (("endpoint", "/v1/recommend"), ("status", "422"))] == 1
    assert found["requests_total", (("endpoint", "/v1/decisions/{decision_id}"), ("status", "404"))] == 1
    assert found["requests_total", (("endpoint", "other"), ("status", "404"))] == 2
    assert found["request_seconds_count", (("endpoint", "/v1/events"),)] == 1
    assert found["stage_seconds_count", (("stage", "intent"),)] == 3
    assert found["stage_seconds_count", (("stage", "decision_log"),)] == 3
    assert found["answers_total", (("level", "intent"),)] == 3
    assert found["fallbacks_total", (("reason", "ranker_failed"),)] == 3
    outcomes = {name: found["events_total", (("outcome", name),)] for name in ("accepted", "duplicate", "rejected")}
    assert outcomes == {"accepted": 1, "duplicate": 1, "rejected": 1}
    assert found["newest_event_age_seconds_sum", ()] == 6.0
    assert found["decision_log_backlog_bytes", ()] == bench.decisions.backlog_bytes > 0
    assert "secret" not in text


def test_breakers_queue_and_sheds_are_told(bench: Any) -> None:
    async def talk(client: httpx.AsyncClient, admission: Admission) -> None:
        bench.source.failure = ConnectionError("store down")
        for _ in range(5):
            await client.post("/v1/recommend", json={"session_id": "s"})
        await admission.enter()
        assert (await client.post("/v1/recommend", json={"session_id": "s"})).status_code == 429

    found, _ = told(bench, talk)
    stores = {labels[0][1] for name, labels in found if name == "breaker_state"}
    assert stores == {"session_log", "features", "decision_log", "session_log_writes"}
    assert found["answers_pending", (("state", "in_flight"),)] == 1
    assert found["sheds_total", (("reason", "queue_full"),)] == 1
    assert found["sheds_total", (("reason", "decision_log"),)] == 0
    assert found["requests_total", (("endpoint", "/v1/recommend"), ("status", "429"))] == 1


def test_numbers_that_others_give_are_looked_up_when_asked_for() -> None:
    metrics, gini = Metrics(), {"gini": 0.25}
    metrics.watch_all("concentration", "of what was shown", "measure", lambda: gini)
    gini["coverage"] = 0.5
    found = samples(metrics.text().decode())
    assert found["concentration", (("measure", "gini"),)] == 0.25
    assert found["concentration", (("measure", "coverage"),)] == 0.5


def test_every_name_says_whose_it_is() -> None:
    names = re.findall(r"^# TYPE (\S+)", Metrics().text().decode(), flags=re.MULTILINE)
    assert names
    assert all(name.startswith("foretaste_") for name in names)


def test_each_process_tells_of_all_that_are_alive(tmp_path: Path) -> None:
    clock = FakeClock()
    mine, other = (Metrics(), Metrics())
    one, two = (SharedMetrics(tmp_path, each, clock=clock, fresh_seconds=60.0) for each in (mine, other))
    mine.request("/v1/events", 200, 0.5)
    for _ in range(3):
        other.request("/v1/events", 200, 0.25)
    two.publish()
    other.request("/v1/events", 200, 0.25)  # after it was left: told next time

    def counts(shared: SharedMetrics) -> dict[str, float]:
        found = samples(shared.text().decode())
        return {dict(labels)["process"]: value for (name, labels), value in found.items() if name == "requests_total"}

    assert counts(one) == {one.name: 1, two.name: 3}
    assert counts(two) == {two.name: 4}
    assert one.text().decode().count("# TYPE foretaste_requests_total counter") == 1
    clock.move(seconds=61)
    assert counts(one) == {one.name: 1}
    (tmp_path / "half.prom").write_text("nonsense")
    clock.move(seconds=600)
    one.publish()
    assert [file.name for file in tmp_path.glob("*.prom")].count(f"{two.name}.prom") == 0
    one.withdraw()
    assert [file.name for file in tmp_path.glob("*.prom")] == ["half.prom"]
