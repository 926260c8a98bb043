"""Models over HTTP: what is filed, what answers, promotion and rollback, for operators alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from foretaste.ops.releases import rollout
from foretaste.serving.ingress import build_app
from foretaste.serving.keys import KEYS_FILE, KeyRing, Role, create_key
from foretaste.serving.service import Service
from foretaste.testing.shop import Shop

Ask = Callable[..., Awaitable[httpx.Response]]


def talk(service: Service, run: Callable[[Ask], Awaitable[None]], keys: KeyRing | None = None) -> None:
    async def through() -> None:
        app = build_app(service, max_body_bytes=10_000, keys=keys)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            await run(client.request)

    asyncio.run(through())


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    return found


def test_promotion_and_rollback_count_at_once_where_they_are_asked_for(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    old, new = shop.release(1), shop.release(2)
    shop.promote(old)

    async def run(ask: Ask) -> None:
        told = (await ask("GET", "/v1/models")).json()
        assert [(one["release"], one["roles"]) for one in told["releases"]] == [(old, ["main"]), (new, [])]
        assert (told["current"], told["previous"], told["arms"], told["shadow"]) == (old, None, [], None)
        assert [one["release"] for one in told["replicas"]] == [old]
        before = (await ask("POST", "/v1/recommend", json={"session_id": "s", "policy": "greedy"})).json()
        told = (await ask("POST", f"/v1/models/{new}/promote")).json()
        assert (told["current"], told["previous"]) == (new, old)
        assert [one["release"] for one in told["replicas"]] == [new]
        assert (await ask("GET", "/health/ready")).json()["release"] == new
        assert f'foretaste_release{{release="{new}"}} 1.0' in service.metrics.text().decode()
        after = (await ask("POST", "/v1/recommend", json={"session_id": "s", "policy": "greedy"})).json()
        assert before["items"] != after["items"]
        again = (await ask("POST", f"/v1/models/{new}/promote", json={})).json()
        assert again["previous"] == old, "the same again changes nothing"
        told = (await ask("POST", f"/v1/models/{new}/rollback")).json()
        assert (told["current"], told["previous"]) == (old, None)
        found = problem(await ask("POST", f"/v1/models/{new}/rollback"), 409)
        assert "nothing to take back" in found["detail"]
        assert (
            "no release was promoted before" in problem(await ask("POST", f"/v1/models/{old}/rollback"), 409)["detail"]
        )
        assert "no release nonsense" in problem(await ask("POST", "/v1/models/nonsense/promote"), 404)["detail"]
        problem(await ask("POST", "/v1/models/nonsense/rollback"), 404)

    with closing(shop.open()) as service:
        talk(service, run)


def test_a_release_that_is_refused_is_not_rolled_out(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    old, bad = shop.release(1), shop.release(2)
    shop.promote(old)
    shop.spoil(bad)

    async def run(ask: Ask) -> None:
        for body in ({}, {"share": 0.1}, {"shadow": True}):
            found = problem(await ask("POST", f"/v1/models/{bad}/promote", json=body), 409)
            assert "fingerprint" in found["detail"]
        told = (await ask("GET", "/v1/models")).json()
        assert (told["current"], told["warnings"]) == (old, [])

    with closing(shop.open()) as service:
        talk(service, run)
    assert rollout(shop.registry).names == {old}  # type: ignore[union-attr]


def test_what_is_wrong_with_a_promotion_is_named(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    old, new = shop.release(1), shop.release(2)
    shop.promote(old)

    async def run(ask: Ask) -> None:
        for body, field in (
            ({"share": 0}, "share"),
            ({"share": 1.01}, "share"),
            ({"share": 0.00001}, "share"),
            ({"share": 0.5, "arm": "main"}, "arm"),
            ({"share": 0.5, "arm": "A b"}, "arm"),
            ({"arm": "b"}, ""),
            ({"shadow": True, "share": 0.5}, ""),
            ({"shadow": 1}, "shadow"),
        ):
            found = problem(await ask("POST", f"/v1/models/{new}/promote", json=body), 422)
            assert found["errors"][0]["field"] == field, (body, found)
        assert (await ask("POST", f"/v1/models/{new}/promote", json={"share": 0.7})).status_code == 200
        found = problem(await ask("POST", f"/v1/models/{new}/promote", json={"share": 0.4, "arm": "b"}), 422)
        assert "more than the other arms leave (canary 0.7)" in found["detail"]

    with closing(shop.open()) as service:
        talk(service, run)


def test_replicas_tell_what_they_have_loaded_until_they_are_gone(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    old, new = shop.release(1), shop.release(2)
    shop.promote(old)
    with closing(shop.open()) as service:
        with closing(shop.open()) as other:
            shop.promote(new)
            other.housekeep()
            assert sorted(str(one.release) for one in service.models().replicas) == sorted((old, new))
            shop.clock.move(minutes=5)
            assert [one.release for one in service.models().replicas] == [old], "what is old is not told"
            other.housekeep()
            assert len(service.models().replicas) == 2
        assert [one.release for one in service.models().replicas] == [old]


def test_a_rollout_that_cannot_be_read_is_a_warning_and_a_conflict(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    old, new = shop.release(1), shop.release(2)
    shop.promote(old)

    async def run(ask: Ask) -> None:
        (shop.registry / "releases" / "rollout.json").write_text("{")
        told = (await ask("GET", "/v1/models")).json()
        assert "cannot be read" in told["warnings"][0]
        assert "cannot be read" in problem(await ask("POST", f"/v1/models/{new}/promote"), 409)["detail"]
        assert (await ask("POST", "/v1/recommend", json={"session_id": "s"})).status_code == 200

    with closing(shop.open()) as service:
        talk(service, run)


def test_only_an_operator_changes_what_answers(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    name = shop.release(1)
    shop.promote(name)
    file = tmp_path / "serving" / KEYS_FILE
    keys = {role: create_key(file, "acme", role, clock=shop.clock) for role in Role}

    async def run(ask: Ask) -> None:
        for role, (look, change) in {
            Role.CLIENT: (403, 403),
            Role.SERVER: (200, 403),
            Role.OPERATOR: (200, 200),
        }.items():
            headers = {"X-API-Key": keys[role]}
            assert (await ask("GET", "/v1/models", headers=headers)).status_code == look
            assert (await ask("POST", f"/v1/models/{name}/promote", headers=headers)).status_code == change

    with closing(shop.open()) as service:
        talk(service, run, KeyRing(file))
