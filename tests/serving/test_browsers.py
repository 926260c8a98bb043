"""A page of an origin that is allowed may ask, key and all; another's browser is told nothing that lets it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from foretaste.serving.browsers import allow_browsers
from foretaste.serving.ingress import build_app
from foretaste.serving.keys import KEYS_FILE, KeyRing, Role, create_key

OURS, OTHER = "https://example.org", "https://elsewhere.example"


def test_only_pages_of_allowed_origins_may_ask(bench: Any, tmp_path: Path) -> None:
    key = create_key(tmp_path / KEYS_FILE, "acme", Role.CLIENT, clock=bench.clock)
    app = build_app(bench.service(), max_body_bytes=10_000, keys=KeyRing(tmp_path / KEYS_FILE))
    allow_browsers(app, [OURS])

    async def run() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            wanted = {
                "access-control-request-method": "POST",
                "access-control-request-headers": "x-api-key,content-type",
            }
            asked = await client.options("/v1/recommend", headers={"origin": OURS} | wanted)
            assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, OURS)
            refused = await client.options("/v1/recommend", headers={"origin": OTHER} | wanted)
            assert "access-control-allow-origin" not in refused.headers
            deleting = await client.options(
                "/v1/members/m1", headers={"origin": OURS, "access-control-request-method": "DELETE"}
            )
            assert deleting.status_code == 400
            for headers, status in (({"x-api-key": key}, 200), ({}, 401)):
                answer = await client.post(
                    "/v1/recommend", json={"session_id": "s1"}, headers={"origin": OURS} | headers
                )
                assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, OURS)
                assert "access-control-allow-credentials" not in answer.headers

    asyncio.run(run())
