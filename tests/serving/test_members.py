"""A guest becomes a member, a member is forgotten: over HTTP, each safe to repeat, whatever fails in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from foretaste.feedback.session_log import microseconds
from foretaste.serving.ingress import build_app

Talk = Callable[[httpx.AsyncClient, Any], Awaitable[None]]


def through(bench: Any, talk: Talk) -> None:
    async def run() -> None:
        service = bench.service()
        app = build_app(service, max_body_bytes=100_000)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await talk(client, service)

    asyncio.run(run())


def seen(bench: Any, actor: str) -> list[str]:
    return [row["event_id"] for row in bench.sessions.read(actor, limit=100)[0]]


def kept(bench: Any) -> list[tuple[str, str]]:
    table = bench.events.read()
    return list(zip(table["actor_id"].to_pylist(), table["event_id"].to_pylist(), strict=True))


def test_what_a_guest_did_is_the_members_after_a_merge(bench: Any) -> None:
    bench.act("play", "t00", member_id=None)
    bench.act("play", "t02")

    async def talk(client: httpx.AsyncClient, service: Any) -> None:
        asked = {"member_id": "m1", "session_id": "s2", "policy": "greedy", "dry_run": True}
        for merged in (1, 0):
            answer = await client.post("/v1/members/m1/merge", json={"session_id": "s1"})
            assert (answer.status_code, answer.json()) == (200, {"merged": merged})
        found = (await client.post("/v1/recommend", json=asked)).json()
        assert found["freshness"]["last_event_id"] == "e2"
        assert seen(bench, "m1") == ["e1", "e2"]
        service.housekeep()
        assert kept(bench) == [("guest:s1", "e1"), ("m1", "e2"), ("m1", "e1")]

    through(bench, talk)


def test_a_deleted_member_is_nowhere_and_may_come_back(bench: Any) -> None:
    bench.act("play", "t00", member_id=None)
    old = bench.act("play", "t02")
    bench.act("impression", "t04")
    bench.act("play", "t06", member_id="m2")

    async def talk(client: httpx.AsyncClient, service: Any) -> None:
        await client.post("/v1/members/m1/merge", json={"session_id": "s1"})
        service.housekeep()
        bench.act("play", "t08")  # waits to be shipped
        bench.clock.move(seconds=1.0)
        answer = await client.delete("/v1/members/m1")
        assert (answer.status_code, answer.json()) == (200, {"deleted_events": 5, "deleted_views": 1})
        assert bench.source.forgotten == ["m1"]
        assert (seen(bench, "m1"), seen(bench, "guest:s1"), seen(bench, "m2")) == ([], [], ["e4"])
        at = microseconds(bench.clock.now)
        assert bench.tombstones.read() == {"m1": at, "guest:s1": at}
        service.housekeep()
        assert kept(bench) == [("m2", "e4")]
        again = (await client.post("/v1/events", json={"events": [old, old | {"member_id": None}]})).json()
        assert [(one["index"], one["code"]) for one in again["rejected"]] == [
            (0, "deleted_member"),
            (1, "deleted_member"),
        ]
        assert all("member_id" in one["message"] for one in again["rejected"])
        bench.clock.move(seconds=1.0)
        fresh = bench.act("play", "t00")["event_id"]
        service.housekeep()
        assert kept(bench) == [("m1", fresh), ("m2", "e4")]
        assert seen(bench, "m1") == [fresh]

    through(bench, talk)


def test_a_deletion_that_was_cut_off_is_completed_by_the_next(bench: Any) -> None:
    bench.act("play", "t02")

    async def talk(client: httpx.AsyncClient, service: Any) -> None:
        bench.source.failure = RuntimeError("the store is down")
        assert (await client.delete("/v1/members/m1")).status_code == 500
        service.housekeep()
        assert kept(bench) == [], "the tombstone was first"
        assert seen(bench, "m1") == [], "the events did not wait for the views"
        bench.source.failure = None
        assert (await client.delete("/v1/members/m1")).json() == {"deleted_events": 0, "deleted_views": 1}
        assert seen(bench, "m1") == []

    through(bench, talk)


def test_a_guest_of_before_a_deletion_is_not_merged_back(bench: Any) -> None:
    bench.act("play", "t02", member_id=None)

    async def talk(client: httpx.AsyncClient, _: Any) -> None:
        await client.delete("/v1/members/m1")
        bench.clock.move(seconds=1.0)
        bench.act("play", "t04", member_id=None)
        answer = await client.post("/v1/members/m1/merge", json={"session_id": "s1"})
        assert answer.json() == {"merged": 1}
        assert seen(bench, "m1") == ["e2"]

    through(bench, talk)


def test_closing_ships_and_one_step_that_fails_keeps_no_other_from_its_turn(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.act("play", "t02")
    service = bench.service()
    with monkeypatch.context() as patched:
        patched.setattr(bench.decisions, "roll_if_due", lambda: 1 / 0)
        with pytest.raises(ExceptionGroup, match="housekeeping"):
            service.housekeep()
    assert kept(bench) == [("m1", "e1")]
    bench.act("play", "t04")
    service.close()
    assert kept(bench) == [("m1", "e1"), ("m1", "e2")]


def test_what_is_done_while_a_slow_deletion_is_under_way_stays(bench: Any) -> None:
    """The same deletion, sent again since the first took long, was answered; then the first goes on."""
    bench.act("play", "t00")
    service, sessions = bench.service(), bench.sessions
    real = sessions.delete
    since: list[str] = []

    def slow(actor: str, **bounds: Any) -> int:
        if not since:
            since.append("on")
            assert service.delete("m1").deleted_events == 1
            bench.clock.move(seconds=60.0)
            since.append(bench.act("play", "t02")["event_id"])
        removed: int = real(actor, **bounds)
        return removed

    sessions.delete = slow
    assert service.delete("m1").deleted_events == 0
    assert seen(bench, "m1") == since[1:]


def test_a_deletion_reaches_events_of_a_clock_that_is_ahead(bench: Any) -> None:
    bench.act("play", "t00", at=(bench.clock.now + timedelta(minutes=2)).isoformat())
    service = bench.service()
    assert service.delete("m1").deleted_events == 1
    assert seen(bench, "m1") == []
    service.housekeep()
    assert kept(bench) == []


def test_events_that_were_loaded_from_far_ahead_go_and_do_not_keep_who_was_deleted_away(bench: Any) -> None:
    far = microseconds(bench.clock.now + timedelta(days=400))
    row = {"event_id": "far", "member_id": "m1", "session_id": "s1", "at": far, "action": "play", "title_id": "t00"}
    bench.sessions.append([row], received_at=bench.clock.now)
    assert bench.service().delete("m1").deleted_events == 1
    bench.clock.move(seconds=301.0)
    back = bench.act("play", "t02")["event_id"]
    assert seen(bench, "m1") == [back]
