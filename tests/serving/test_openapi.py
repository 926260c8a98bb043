"""The service answers as its OpenAPI document says, whatever is asked; and what is wrong with a body is named.

FORETASTE_FUZZ=10000 asks so many times instead of a few.
"""

from __future__ import annotations

import asyncio
import os
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from foretaste.serving.ingress import build_app
from foretaste.serving.keys import KEYS_FILE, KeyRing, Role, create_key

ASKED = int(os.environ.get("FORETASTE_FUZZ", "400"))
EXAMPLES = max(6, ASKED // 40)
PATHS = (
    "/v1/events",
    "/v1/rewards",
    "/v1/recommend",
    "/v1/recommend/next",
    "/v1/rank",
    "/v1/intent",
    "/v1/members/{member_id}",
    "/v1/members/{member_id}/merge",
    "/v1/members/{member_id}/consent",
    "/v1/decisions/{decision_id}",
    "/v1/decisions/{decision_id}/ack",
    "/v1/decisions/{decision_id}/replay",
    "/v1/sessions/{session_id}",
    "/v1/models",
    "/v1/models/{name}/promote",
    "/v1/models/{name}/rollback",
    "/health/live",
    "/health/ready",
    "/metrics",
)
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
EASY = list(HealthCheck)
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    10**30,
    "",
    "x" * 300,
    "\x00",
    "\u2028",
    "NaN",
    [],
    [[]],
    {},
    {"a": {}},
    [None],
]
WRONG: dict[str, list[Any]] = {
    "string": [value for value in ODD if not isinstance(value, str) and value is not None],
    "integer": [value for value in ODD if not isinstance(value, int) or isinstance(value, bool)][1:],
    "number": [value for value in ODD if not isinstance(value, int | float) or isinstance(value, bool)][1:],
    "boolean": [value for value in ODD if not isinstance(value, bool) and value is not None],
    "array": [value for value in ODD if not isinstance(value, list) and value is not None],
    "object": [value for value in ODD if not isinstance(value, dict) and value is not None],
}
GOOD: dict[str, dict[str, Any]] = {
    "/v1/recommend": {"session_id": "s1", "member_id": "m1", "k": 5, "exclude_ids": ["t01"], "context": {"a": 1}},
    "/v1/intent": {"session_id": "s1", "member_id": "m1", "context": {"a": 1}, "explain": "none"},
    "/v1/rank": {"session_id": "s1", "candidates": ["t01", "t02"], "k": 2},
    "/v1/recommend/next": {"session_id": "s1", "decision_id": "0" * 32, "k": 2},
    "/v1/members/m1/merge": {"session_id": "s1"},
    "/v1/members/m1/consent": {"consent": True},
    "/v1/decisions/d1/ack": {"shown": ["t01"], "at": "2026-01-01T00:00:00Z"},
    "/v1/decisions/d1/replay": {"intent_model": "abc"},
    "/v1/models/r1/promote": {"share": 0.5, "arm": "b"},
}
EVENT: dict[str, Any] = {
    "event_id": "e1",
    "member_id": "m1",
    "at": "2026-01-01T00:00:00Z",
    "action": "play",
    "title_id": "t01",
}
EVENT |= {"position": 1, "dwell_seconds": 1.5, "properties": {"a": 1}, "query": "x"}


@pytest.fixture
def app(bench: Any, tmp_path: Path) -> tuple[Any, dict[str, str]]:
    key = create_key(tmp_path / KEYS_FILE, "acme", Role.OPERATOR, clock=bench.clock)
    app = build_app(bench.service(), max_body_bytes=100_000, keys=KeyRing(tmp_path / KEYS_FILE))
    return app, {"X-API-Key": key}


@pytest.mark.parametrize("path", PATHS)
def test_whatever_is_asked_the_answer_is_one_that_the_document_has(app: Any, path: str) -> None:
    served, headers = app
    schema = schemathesis.openapi.from_dict(served.openapi())
    found = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    operations = [one for one in found if one.path == path]
    assert operations
    for operation in operations:
        takes = bool(operation.body) or any(True for _ in operation.iter_parameters())
        asked(served, headers, operation, GenerationMode.POSITIVE, CHECKS)
        if takes:
            one_by_one = path in ("/v1/events", "/v1/rewards")
            refusing = [] if one_by_one else [checks.negative_data_rejection]
            asked(served, headers, operation, GenerationMode.NEGATIVE, CHECKS + refusing)


def asked(served: Any, headers: dict[str, str], operation: Any, mode: GenerationMode, wanted: list[Any]) -> None:
    """Ask an operation for what its schema allows, or does not, and check each answer."""

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=EASY)
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        case.validate_response(sent(served, case, headers), checks=wanted)

    ask()


def sent(served: Any, case: Any, headers: dict[str, str]) -> httpx.Response:
    """Ask without a network, and without the app's start and end."""
    asked = case.as_transport_kwargs(base_url="http://test", headers=headers)
    if "data" in asked:
        asked["content"] = asked.pop("data")

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app=served, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport) as client:
            request = client.build_request(**{name: value for name, value in asked.items() if name != "cookies"})
            answer = await client.send(request)
            answer.elapsed = timedelta(0)
            return answer

    return asyncio.run(run())


def test_the_document_has_every_path_that_is_tried(app: Any) -> None:
    assert set(app[0].openapi()["paths"]) == set(PATHS)


def kind(value: Any) -> str:
    names = {bool: "boolean", str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    return names[type(value)]


def spoiled(body: dict[str, Any], dice: random.Random) -> tuple[dict[str, Any], str]:
    """A body with one thing wrong, and the field that is."""
    name = dice.choice(sorted(body))
    way = dice.randrange(4)
    if way == 0:
        unknown = dice.choice(["colour", "__proto__", "Session_id", "", "a.b", "$where", "\u2028"])
        return body | {unknown: dice.choice(ODD)}, unknown
    value = body[name]
    if way == 1 and isinstance(value, list):
        return body | {name: [*value, dice.choice(WRONG["string"])]}, f"{name}.{len(value)}"
    if way == 2 and name == "context":
        return body | {name: {"k": dice.choice([[], {}, [1]])}}, f"{name}.k"
    return body | {name: dice.choice(WRONG[kind(value)])}, name


def test_what_is_wrong_with_a_body_is_refused_by_its_field(app: Any) -> None:
    dice, (served, headers) = random.Random(7), app

    async def run() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=served), base_url="http://test") as client:
            for _ in range(ASKED // 2):
                path = dice.choice(sorted(GOOD))
                body, field = spoiled(GOOD[path], dice)
                method = "PUT" if path.endswith("consent") else "POST"
                answer = await client.request(method, path, json=body, headers=headers)
                assert answer.status_code == 422, (path, body, answer.text)
                fields = [error["field"] for error in answer.json()["errors"]]
                assert any(found == field or found.startswith(f"{field}.") for found in fields), (path, body, fields)
            for _ in range(ASKED // 2):
                event, field = spoiled(EVENT, dice)
                answer = await client.post("/v1/events", json={"events": [EVENT, event]}, headers=headers)
                assert answer.status_code == 200, (event, answer.text)
                (rejected,) = answer.json()["rejected"]
                assert rejected["index"] == 1
                assert rejected["message"].startswith(field[:20]), (event, rejected)

    asyncio.run(run())
