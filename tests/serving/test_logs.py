"""Each request leaves one line that says what happened and not to whom; and a body has a bottom."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from foretaste.serving.ingress import build_app
from foretaste.serving.keys import KEYS_FILE, KeyRing, Role, create_key
from foretaste.serving.logs import LogFormat, configure
from foretaste.serving.nesting import MAX_DEPTH, FieldError, checked_depth

Ask = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    logger = logging.getLogger("foretaste")
    level, written = logger.level, io.StringIO()
    configure(LogFormat.JSON, written)
    yield written
    configure(LogFormat.NONE)
    logger.setLevel(level)
    logger.propagate = True


def talk(bench: Any, run: Callable[[Ask], Awaitable[None]], **more: Any) -> None:
    async def through() -> None:
        app = build_app(bench.service(), max_body_bytes=10_000, **more)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await run(client.request)

    asyncio.run(through())


def test_a_line_says_what_happened_and_not_to_whom(bench: Any, stream: io.StringIO, tmp_path: Path) -> None:
    key = create_key(tmp_path / KEYS_FILE, "acme", Role.SERVER, clock=bench.clock)

    async def run(ask: Ask) -> None:
        headers = {"x-api-key": key, "x-request-id": "r1"}
        body = {"member_id": "secret-member", "session_id": "secret-session", "exclude_ids": ["secret-title"]}
        await ask("POST", "/v1/recommend", headers=headers, json=body)
        event = {"member_id": "secret-member", "event_id": "secret-event", "action": "search", "query": "secret words"}
        await ask("POST", "/v1/events", headers=headers, json={"events": [event | {"at": bench.clock.now.isoformat()}]})
        await ask("DELETE", "/v1/members/secret-member", headers=headers)
        await ask("GET", "/v1/sessions/secret-session?member_id=secret-member", headers=headers)
        await ask("POST", "/v1/recommend", headers=headers, json={"secret-field": "secret-value"})
        await ask("GET", "/v1/sessions/secret-session", headers={"x-api-key": key[:-4] + "0000"})
        await ask("GET", "/secret-path", headers=headers)

    talk(bench, run, keys=KeyRing(tmp_path / KEYS_FILE))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(one["endpoint"], one["status"], one["tenant"]) for one in lines] == [
        ("/v1/recommend", 200, "acme"),
        ("/v1/events", 200, "acme"),
        ("/v1/members/{member_id:path}", 200, "acme"),
        ("/v1/sessions/{session_id:path}", 200, "acme"),
        ("/v1/recommend", 422, "acme"),
        ("none", 401, None),
        ("none", 404, "acme"),
    ]
    assert {one["request_id"] for one in lines[:5]} == {"r1"}
    assert all(one["ms"] >= 0 and one["at"].endswith("Z") for one in lines)
    assert "secret" not in stream.getvalue()
    assert key.split("_")[2] not in stream.getvalue()


def test_a_trouble_is_told_by_type_and_place_with_its_request_and_not_in_its_words(
    bench: Any, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("secret-member cannot be read")

    monkeypatch.setattr("foretaste.serving.service.Service.recommend", broken)

    async def run(ask: Ask) -> None:
        answer = await ask("POST", "/v1/recommend", headers={"x-request-id": "r7"}, json={"session_id": "s1"})
        assert answer.status_code == 500

    talk(bench, run)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (trouble,) = [one for one in lines if one["level"] == "error"]
    assert trouble["error"] == "ValueError"
    assert any(frame.endswith(" broken") for frame in trouble["trace"])
    assert "r7" in trouble["message"]
    assert "secret" not in stream.getvalue()
    assert [one["status"] for one in lines if one["logger"] == "foretaste.access"] == [500]


def test_lines_are_text_where_that_is_wanted(stream: io.StringIO) -> None:
    configure(LogFormat.TEXT, stream)
    logging.getLogger("foretaste.x").warning("the disk is %s", "full")
    assert "level=warning logger=foretaste.x message=the disk is full" in stream.getvalue()
    configure(LogFormat.NONE)
    before = stream.getvalue()
    logging.getLogger("foretaste.x").info("nothing")
    assert stream.getvalue() == before


def nested(depth: int) -> Any:
    value: Any = 1
    for number in range(depth):
        value = {"a": value} if number % 2 else [value]
    return value


def test_what_is_nested_too_deep_is_refused_by_field(bench: Any) -> None:
    assert checked_depth(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    with pytest.raises(FieldError):
        checked_depth(nested(MAX_DEPTH + 1))

    async def run(ask: Ask) -> None:
        deep = {"session_id": "s1", "context": {"a": nested(MAX_DEPTH)}}
        answer = await ask("POST", "/v1/recommend", json=deep)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert answer.json()["errors"][0]["field"].startswith("context.a.")

    talk(bench, run)
