"""HTTP without a network: bodies, headers and errors, around a service that only notes what it is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from foretaste.contracts.decisions import Fallback
from foretaste.contracts.wire import (
    ConsentAnswer,
    ConsentRequest,
    DeletionAnswer,
    Event,
    EventsAnswer,
    EventsRequest,
    FallbackAnswer,
    Freshness,
    IntentAnswer,
    IntentRequest,
    MergeAnswer,
    MergeRequest,
    NextRequest,
    PolicyAnswer,
    Problem,
    RankAnswer,
    RankRequest,
    RecommendAnswer,
    RecommendRequest,
)
from foretaste.contracts.wire_models import ModelsAnswer, PromoteRequest
from foretaste.contracts.wire_records import AckAnswer, AckRequest, ReplayAnswer, ReplayRequest, SessionAnswer
from foretaste.contracts.wire_rewards import RewardsAnswer, RewardsRequest
from foretaste.serving.ingress import build_app
from foretaste.serving.problems import ConflictError, RefusedError

MAX_BODY = 10_000


class Noting:
    """A service that answers with next to nothing."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.is_ready = True
        self.closed = False

    def accept(self, request: EventsRequest, *, tenant: str) -> EventsAnswer:
        self.asked.append(request)
        return EventsAnswer(accepted=len(request.events), duplicate=0, rejected=[])

    def recommend(self, request: RecommendRequest) -> RecommendAnswer:
        self.asked.append(request)
        if request.session_id == "boom":
            raise RuntimeError("secret reason")
        if request.surface != "prequery":
            raise RefusedError("surface", "there is no such surface")
        return RecommendAnswer(
            decision_id="d1",
            items=[],
            intent=None,
            policy=PolicyAnswer(name="greedy", version="1", explored=False),
            freshness=Freshness(last_event_id=None, last_event_at=None, age_seconds=None, stale=[]),
            fallback=FallbackAnswer(used=False, reason=None),
            missing_ids=[],
            took_ms=0.1,
        )

    def next(self, request: NextRequest) -> RecommendAnswer:
        return self.recommend(RecommendRequest(session_id=request.session_id, k=request.k))

    def rank(self, request: RankRequest) -> RankAnswer:
        asked = RecommendRequest(session_id=request.session_id, k=request.k)
        return RankAnswer(**self.recommend(asked).model_dump(), left_out=["t2"])

    def intents(self, request: IntentRequest) -> IntentAnswer:
        self.asked.append(request)
        return IntentAnswer(
            model=None,
            intents=None,
            attention=None,
            top=[],
            top_intent=None,
            segment=None,
            layout=None,
            freshness=Freshness(last_event_id=None, last_event_at=None, age_seconds=None, stale=[]),
            fallback=FallbackAnswer(used=True, reason=Fallback.NO_MODEL),
            took_ms=0.1,
        )

    def consent(self, member_id: str, request: ConsentRequest) -> ConsentAnswer:
        self.asked.append((member_id, request))
        return ConsentAnswer(consent=request.consent)

    def merge(self, member_id: str, request: MergeRequest) -> MergeAnswer:
        self.asked.append((member_id, request))
        if member_id == "down":
            raise ConnectionError("session log: Redis at 10.0.0.1:6379 does not answer")
        return MergeAnswer(merged=2)

    def delete(self, member_id: str) -> DeletionAnswer:
        self.asked.append(member_id)
        return DeletionAnswer(deleted_events=3, deleted_views=1)

    def rewards(self, request: RewardsRequest, *, tenant: str) -> RewardsAnswer:
        return RewardsAnswer(accepted=len(request.rewards), duplicate=0, rejected=[])

    def ack(self, decision_id: str, request: AckRequest, *, tenant: str) -> AckAnswer | None:
        self.asked.append((decision_id, request))
        return None if decision_id != "d1" else AckAnswer(decision_id="d1", recorded=1, shown=["t1"], propensity=1.0)

    def replay(self, decision_id: str, request: ReplayRequest, *, tenant: str) -> ReplayAnswer | None:
        self.asked.append((decision_id, request))
        if decision_id == "gone":
            raise ConflictError("a model of the decision is gone from the registry")
        return None

    def models(self) -> ModelsAnswer:
        return ModelsAnswer(current="r1")

    def promote(self, name: str, request: PromoteRequest) -> ModelsAnswer | None:
        self.asked.append((name, request))
        return self.models() if name == "r1" else None

    def roll_back(self, name: str) -> ModelsAnswer | None:
        return self.models() if name == "r1" else None

    def session(self, session_id: str, member_id: str | None) -> SessionAnswer:
        self.asked.append((session_id, member_id))
        return SessionAnswer(
            member_id=member_id,
            session_id=session_id,
            as_of=datetime(2026, 1, 1, tzinfo=UTC),
            mark=0,
            events=[],
            signals={},
            freshness=Freshness(last_event_id=None, last_event_at=None, age_seconds=None, stale=[]),
            merged_sessions=[],
        )

    def decision(self, decision_id: str, *, tenant: str) -> dict[str, Any] | None:
        return {"decision_id": "d1"} if decision_id == "d1" else None

    def ready(self) -> dict[str, Any]:
        return {"ready": self.is_ready}

    def housekeep(self) -> None:
        self.asked.append("housekeep")

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def service() -> Noting:
    return Noting()


def call(service: Noting, method: str, path: str, **more: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        app = build_app(service, max_body_bytes=MAX_BODY)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **more)

    return asyncio.run(ask())


def post(service: Noting, path: str, body: bytes, content_type: str = "application/json") -> httpx.Response:
    return call(service, "POST", path, content=body, headers={"content-type": content_type})


def assert_problem(answer: httpx.Response, status: int, *, field: str | None = None) -> Problem:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = Problem.model_validate_json(answer.content)
    assert found.status == status
    assert found.request_id == answer.headers["x-request-id"]
    if field is not None:
        assert field in [error.field for error in found.errors], found
    return found


def test_a_good_request_reaches_the_service(service: Noting) -> None:
    answer = call(service, "POST", "/v1/recommend", json={"session_id": "s1", "k": 3})
    assert answer.status_code == 200
    assert RecommendAnswer.model_validate_json(answer.content).decision_id == "d1"
    assert service.asked == [RecommendRequest(session_id="s1", k=3)]


def test_events_reach_the_service_unchecked_one_by_one(service: Noting) -> None:
    answer = call(service, "POST", "/v1/events", json={"events": [{"nonsense": 1}, 5]})
    assert answer.json() == {"accepted": 2, "duplicate": 0, "rejected": []}
    assert service.asked[0].events == [{"nonsense": 1}, 5]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/recommend", {"session_id": "s1", "colour": "red"}, "colour"),
        ("/v1/recommend", {}, "session_id"),
        ("/v1/recommend", {"session_id": "s1", "k": "ten"}, "k"),
        ("/v1/recommend", {"session_id": "s1", "exclude_ids": ["a", 5]}, "exclude_ids.1"),
        ("/v1/recommend", [], ""),
        ("/v1/recommend", None, ""),
        ("/v1/recommend", "text", ""),
        ("/v1/recommend", {"session_id": "s1", "surface": "window"}, "surface"),
        ("/v1/events", {"events": []}, "events"),
        ("/v1/events", {"events": {}}, "events"),
        ("/v1/events", {"events": [{}] * 1_001}, "events"),
        ("/v1/events", {"events": [{}], "member_id": "m1"}, "member_id"),
    ],
)
def test_a_bad_field_is_a_problem_that_names_it(service: Noting, path: str, body: Any, field: str) -> None:
    assert_problem(call(service, "POST", path, json=body), 422, field=field)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"session_id": "s1", "k": NaN}',
        b'{"session_id": "s1", "context": {"a": Infinity}}',
        b"[" * 5_000,
        b'{"session_id": "\\ud800"}',
        b'{"session_id": "\xff"}',
        b"\x00",
    ],
    ids=["torn", "NaN", "Infinity", "deep", "surrogate", "not UTF-8", "zero"],
)
def test_what_is_not_json_is_a_problem(service: Noting, body: bytes) -> None:
    assert "not JSON" in assert_problem(post(service, "/v1/recommend", body), 400).detail
    assert service.asked == []


def test_an_empty_body_is_a_problem(service: Noting) -> None:
    assert_problem(post(service, "/v1/recommend", b""), 422)
    assert_problem(call(service, "POST", "/v1/events"), 422)


def test_deep_but_legal_json_is_refused_by_field(service: Noting) -> None:
    deep = b'{"session_id": "s1", "context": ' + b'{"a":' * 900 + b"1" + b"}" * 901
    assert_problem(post(service, "/v1/recommend", deep), 422)


def test_a_body_that_is_too_large_is_a_problem(service: Noting) -> None:
    body = json.dumps({"session_id": "s1", "context": {"a": "x" * MAX_BODY}}).encode()
    assert_problem(post(service, "/v1/recommend", body), 413)
    assert service.asked == []


def test_a_body_that_does_not_end_is_cut_off(service: Noting) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 * MAX_BODY:
            sent += 1_000
            yield b" " * 1_000

    assert_problem(call(service, "POST", "/v1/recommend", content=endless()), 413)


def test_a_body_at_the_limit_is_taken(service: Noting) -> None:
    body = b'{"session_id": "s1"}'
    assert post(service, "/v1/recommend", body + b" " * (MAX_BODY - len(body))).status_code == 200


def test_json_under_another_name_is_refused(service: Noting) -> None:
    assert_problem(post(service, "/v1/recommend", b'{"session_id": "s1"}', "text/plain"), 422)


def test_an_unexpected_error_is_a_problem_that_keeps_its_reason_to_itself(service: Noting) -> None:
    found = assert_problem(call(service, "POST", "/v1/recommend", json={"session_id": "boom"}), 500)
    assert "secret" not in found.model_dump_json()


def test_unknown_paths_and_methods_are_problems(service: Noting) -> None:
    assert_problem(call(service, "GET", "/v1/nothing"), 404)
    assert_problem(call(service, "GET", "/v1/recommend"), 405)


def test_a_member_is_merged_and_deleted_by_any_legal_name(service: Noting) -> None:
    for name, path in (("m1", "m1"), ("a/merge b", "a%2Fmerge%20b"), ("чл?", "%D1%87%D0%BB%3F")):
        answer = call(service, "POST", f"/v1/members/{path}/merge", json={"session_id": "s1"})
        assert (answer.status_code, answer.json()) == (200, {"merged": 2})
        answer = call(service, "DELETE", f"/v1/members/{path}")
        assert (answer.status_code, answer.json()) == (200, {"deleted_events": 3, "deleted_views": 1})
        assert service.asked == [(name, MergeRequest(session_id="s1")), name]
        service.asked.clear()


def test_a_bad_member_or_session_is_a_problem_that_names_it(service: Noting) -> None:
    assert_problem(call(service, "DELETE", "/v1/members/guest:s1"), 422, field="member_id")
    assert_problem(call(service, "DELETE", f"/v1/members/{'x' * 201}"), 422, field="member_id")
    assert_problem(call(service, "POST", "/v1/members/m1/merge", json={"session_id": ""}), 422, field="session_id")
    assert_problem(call(service, "POST", "/v1/members/m1/merge", json={"session": "s"}), 422, field="session")
    assert service.asked == []


def test_a_store_that_does_not_answer_is_a_problem_that_says_to_try_again(service: Noting) -> None:
    answer = call(service, "POST", "/v1/members/down/merge", json={"session_id": "s1"})
    found = assert_problem(answer, 503)
    assert answer.headers["retry-after"] == "1"
    assert "10.0.0.1" not in found.model_dump_json()


def test_a_decision_is_read_or_not_found(service: Noting) -> None:
    assert call(service, "GET", "/v1/decisions/d1").json() == {"decision_id": "d1"}
    assert "d2" in assert_problem(call(service, "GET", "/v1/decisions/d2"), 404).detail


def test_a_replay_needs_no_body_and_says_why_it_cannot_be(service: Noting) -> None:
    assert_problem(call(service, "POST", "/v1/decisions/d2/replay"), 404)
    assert service.asked == [("d2", ReplayRequest())]
    answer = call(service, "POST", "/v1/decisions/gone/replay", json={"intent_model": "abc"})
    assert "gone from the registry" in assert_problem(answer, 409).detail
    assert_problem(call(service, "POST", "/v1/decisions/d2/replay", json={"model": "abc"}), 422, field="model")


def test_what_was_shown_reaches_the_service_or_is_refused_by_field(service: Noting) -> None:
    good = {"shown": ["t1"], "at": "2026-01-01T00:00:00Z"}
    assert call(service, "POST", "/v1/decisions/d1/ack", json=good).json()["recorded"] == 1
    assert_problem(call(service, "POST", "/v1/decisions/d2/ack", json=good), 404)
    for bad, field in (({"shown": []}, "shown"), ({"shown": [1]}, "shown.0"), ({"at": "now"}, "at")):
        assert_problem(call(service, "POST", "/v1/decisions/d1/ack", json=good | bad), 422, field=field)


def test_a_session_is_asked_for_by_any_legal_name(service: Noting) -> None:
    assert call(service, "GET", "/v1/sessions/a%2Fb", params={"member_id": "m1"}).json()["session_id"] == "a/b"
    assert_problem(call(service, "GET", "/v1/sessions/s1", params={"member_id": "guest:x"}), 422, field="member_id")
    assert service.asked == [("a/b", "m1")]


def test_a_query_parameter_that_there_is_not_is_refused_by_name(service: Noting) -> None:
    answer = call(service, "GET", "/v1/sessions/s1", params={"memberid": "m1"})
    assert_problem(answer, 422, field="memberid")
    assert "there are ['member_id']" in answer.text
    assert service.asked == []


def test_the_request_id_is_echoed_or_made(service: Noting) -> None:
    assert call(service, "GET", "/health/live", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = [call(service, "GET", "/health/live").headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    for bad in ("a b", "x" * 129, "\x7f", ""):
        answer = call(service, "GET", "/health/live", headers={"x-request-id": bad})
        assert answer.headers["x-request-id"] not in (bad, "")


def test_behind_a_proxy_that_echoes_the_request_id_the_app_does_not(service: Noting) -> None:
    async def ask() -> httpx.Response:
        app = build_app(service, max_body_bytes=MAX_BODY, echo_request_id=False)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/v1/recommend", json={}, headers={"x-request-id": "abc-1"})

    answer = asyncio.run(ask())
    assert "x-request-id" not in answer.headers
    assert answer.json()["request_id"] == "abc-1"


def test_health_says_live_and_ready(service: Noting) -> None:
    assert call(service, "GET", "/health/live").status_code == 200
    assert call(service, "GET", "/health/ready").status_code == 200
    service.is_ready = False
    assert call(service, "GET", "/health/ready").status_code == 503


def test_the_openapi_document_describes_every_path_and_event(service: Noting) -> None:
    found = call(service, "GET", "/openapi.json").json()
    assert set(found["paths"]) == {
        "/v1/events",
        "/v1/rewards",
        "/v1/recommend",
        "/v1/recommend/next",
        "/v1/rank",
        "/v1/intent",
        "/v1/decisions/{decision_id}",
        "/v1/decisions/{decision_id}/ack",
        "/v1/decisions/{decision_id}/replay",
        "/v1/sessions/{session_id}",
        "/v1/members/{member_id}",
        "/v1/members/{member_id}/consent",
        "/v1/members/{member_id}/merge",
        "/v1/models",
        "/v1/models/{name}/promote",
        "/v1/models/{name}/rollback",
        "/health/live",
        "/health/ready",
        "/metrics",
    }
    schemas = found["components"]["schemas"]
    event = schemas["EventsRequest"]["properties"]["events"]["items"]
    assert event["additionalProperties"] is False
    assert set(event["properties"]) == set(Event.model_fields)
    assert "Problem" in schemas
    assert "HTTPValidationError" not in json.dumps(found["paths"])


def test_the_service_is_closed_with_the_app(service: Noting) -> None:
    async def live() -> None:
        app = build_app(service, max_body_bytes=MAX_BODY)
        async with app.router.lifespan_context(app):
            assert not service.closed

    asyncio.run(live())
    assert service.closed


def test_a_parameter_that_there_is_not_is_refused_by_name(service: Noting) -> None:
    assert call(service, "GET", "/v1/sessions/s1?member_id=m1").status_code == 200
    for path in ("/v1/sessions/s1?member=m1", "/v1/models?member=m1"):
        answer = call(service, "GET", path)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "member")
    assert call(service, "GET", "/v1/models").json()["current"] == "r1"
    assert call(service, "POST", "/v1/models/r1/promote", json={"share": 0.1}).status_code == 200
    assert call(service, "POST", "/v1/models/r2/rollback").status_code == 404
