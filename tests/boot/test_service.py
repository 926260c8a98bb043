"""The rendered RayService, booted: probes hold, strangers are refused, requests are answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from foretaste.contracts.wire import RecommendAnswer
from foretaste.testing.boot import operator
from foretaste.testing.boot.booted import Booted, application, probed
from foretaste.testing.boot.machine import Pod
from foretaste.testing.bundles import file_intent, file_ranker
from foretaste.testing.fakes import two_genre_titles
from foretaste.testing.manifests.objects import Manifests

pytestmark = [pytest.mark.long, pytest.mark.cluster, pytest.mark.timeout(1_800)]

APPLICATIONS = "/api/serve/applications/"
UP_SECONDS = 600.0


@pytest.fixture(scope="module", params=["local", "prod"])
def service(
    request: pytest.FixtureRequest, boot: Callable[[str], Booted], overlay: Callable[[str], Manifests], workspace: Path
) -> Iterator[tuple[Booted, dict[str, Any]]]:
    """An overlay's RayService with its stores, before anybody told it what to serve."""
    now = datetime.now(UTC)
    if not (workspace / "registry").is_dir():
        intent = file_intent(workspace / "registry", two_genre_titles(), at=now)
        file_ranker(workspace / "registry", intent=intent.fingerprint, at=now)
    one, booted = overlay(request.param).named("RayService", "foretaste"), boot(request.param)
    booted.store("foretaste-redis")
    if "gcsFaultToleranceOptions" in one["spec"]["rayClusterConfig"]:
        booted.store("foretaste-gcs-redis")
    booted.ray(one)
    yield booted, one
    for pod in booted.pods.values():
        pod.kill()


def ask(of: Pod, at: Pod, path: str, key: str, body: dict[str, Any]) -> tuple[int, Any]:
    """Post to a worker from another pod."""
    words = ["curl", "-s", "-m", "30", "-w", "\n%{http_code}", f"http://{at.spec.name}:{operator.SERVE_PORT}{path}"]
    words += ["-H", f"X-API-Key: {key}", "-H", "content-type: application/json", "-d", json.dumps(body)]
    text, _, status = of.run(words).stdout.rpartition("\n")
    return int(status), json.loads(text)


def test_the_service_boots_refuses_strangers_and_answers_on_every_worker(
    service: tuple[Booted, dict[str, Any]],
) -> None:
    booted, one = service
    token, told = booted.token(one), application(one)
    assert len(booted.workers) == one["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["minReplicas"]
    for wrong, status in ((None, 401), ("another", 403)):
        assert booted.dashboard(APPLICATIONS, method="PUT", body=told, token=wrong)[0] == status
        assert booted.dashboard("/api/jobs/", method="POST", body={"entrypoint": "true"}, token=wrong)[0] == status
    assert booted.dashboard("/api/jobs/", token=token) == (200, "[]")

    assert booted.dashboard(APPLICATIONS, method="PUT", body=told, token=token)[0] == 200
    found: dict[str, Any] = {}

    def answers() -> bool:
        status, text = booted.dashboard(APPLICATIONS, token=token)
        found.update(json.loads(text)["applications"].get("foretaste", {}) if status == 200 else {})
        assert found.get("status") != "DEPLOY_FAILED", found["message"]
        return found.get("status") == "RUNNING"

    booted.until(answers, booted.head, seconds=UP_SECONDS)
    replicas = found["deployments"]["foretaste"]["replicas"]
    wanted = told["applications"][0]["deployments"][0]["autoscaling_config"]["min_replicas"]
    assert [replica["state"] for replica in replicas] == ["RUNNING"] * wanted
    assert {replica["node_ip"] for replica in replicas} == {worker.address for worker in booted.workers}
    assert probed(booted.head, operator.HEAD_PROBE)
    for worker in booted.workers:
        booted.until(partial(probed, worker, operator.SERVE_PROBE), worker)

    made = booted.head.run(["foretaste", "keys", "create", "--workspace", "/srv/foretaste/workspace"])
    key = made.stdout.strip().splitlines()[-1]
    for number, worker in enumerate(booted.workers):
        event = {"event_id": f"e{number}", "member_id": "m1", "session_id": "s1", "action": "play", "title_id": "t00"}
        event["at"] = datetime.now(UTC).isoformat()
        assert ask(booted.head, worker, "/v1/events", key, {"events": [event]})[0] == 200
    for number, worker in enumerate(booted.workers):
        body = {"member_id": "m1", "session_id": "s1", "surface": "prequery", "k": 3}
        assert ask(booted.head, worker, "/v1/recommend", "no-key", body)[0] == 401
        status, told_list = ask(booted.head, worker, "/v1/recommend", key, body)
        assert status == 200, (number, told_list)
        answer = RecommendAnswer.model_validate(told_list)
        assert len(answer.items) == 3
        assert answer.freshness.last_event_id == f"e{len(booted.workers) - 1}"  # whichever worker took it: Redis has it
