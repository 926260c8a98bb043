"""One tenant cannot read, change, delete or even suppress anything of another's, though they use the same ids."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from foretaste.contracts.columns import EVENTS, conform
from foretaste.contracts.tenants import SEPARATOR, inside, outside, tenant_of
from foretaste.feedback.decision_log import plain_rows
from foretaste.feedback.redis_session_log import RedisSessionLog
from foretaste.feedback.session_log import LogKind, SessionLogConfig
from foretaste.feedback.stored_row import LAST_US
from foretaste.ops.files import write_parquet
from foretaste.ops.tables import read_prepared
from foretaste.serving.ingress import build_app
from foretaste.serving.intake import Intake
from foretaste.serving.keys import KEYS_FILE, KeyRing, Role, create_key
from foretaste.serving.problems import ConflictError
from foretaste.sessions.prepare import PrepareConfig, prepare
from foretaste.sessions.spread import here
from foretaste.signals.interactions import runs
from foretaste.testing.fakes import two_genre_titles

TENANTS = ("default", "acme", "other")
Ask = Callable[..., Awaitable[httpx.Response]]


class Tenants:
    """Three tenants of one service."""

    def __init__(self, folder: Path, service: Any, now: datetime) -> None:
        path = folder / KEYS_FILE
        self.keys = {name: create_key(path, name, Role.SERVER, clock=lambda: now) for name in TENANTS}
        self.app = build_app(service, max_body_bytes=10_000, keys=KeyRing(path))

    def talk(self, run: Callable[[Ask], Awaitable[None]]) -> None:
        async def through() -> None:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

                async def ask(tenant: str, method: str, path: str, **more: Any) -> httpx.Response:
                    return await client.request(method, path, headers={"x-api-key": self.keys[tenant]}, **more)

                await run(ask)

        asyncio.run(through())


@pytest.fixture
def tenants(tmp_path: Path, bench: Any) -> Tenants:
    return Tenants(tmp_path, bench.service(), bench.clock.now)


def event(bench: Any, title_id: str, **more: Any) -> dict[str, Any]:
    made = {"event_id": "e1", "member_id": "m1", "session_id": "s1", "at": bench.clock.now.isoformat()}
    made |= {"action": "play", "title_id": title_id} | more
    return {name: value for name, value in made.items() if value is not None}


def test_ids_lose_and_take_on_their_tenant() -> None:
    for tenant in TENANTS:
        for name in ("m1", "a b", "é", "guest:x", "acme", "a:b/c"):
            assert (outside(inside(name, tenant)), tenant_of(inside(name, tenant))) == (name, tenant)
    assert inside("m1", "default") == "m1"
    assert len({inside("m1", tenant) for tenant in TENANTS}) == 3


def test_no_id_that_a_client_can_send_is_another_tenants(tenants: Tenants, bench: Any) -> None:
    forged = inside("m1", "acme")

    async def run(ask: Ask) -> None:
        sent = (
            await ask("default", "POST", "/v1/events", json={"events": [event(bench, "t00", member_id=forged)]})
        ).json()
        assert (sent["accepted"], len(sent["rejected"])) == (0, 1)
        for body in ({"session_id": "s", "member_id": forged}, {"session_id": forged}):
            for path in ("/v1/recommend", "/v1/intent"):
                assert (await ask("default", "POST", path, json=body)).status_code == 422
        quoted = forged.replace(SEPARATOR, "%1F")
        for method, path in (("DELETE", "members"), ("GET", "sessions"), ("POST", "members")):
            more = {"json": {"session_id": "s"}} if method == "POST" else {}
            at = f"/v1/{path}/{quoted}" + ("/merge" if method == "POST" else "")
            assert (await ask("default", method, at, **more)).status_code == 422
        assert (await ask("default", "GET", f"/v1/sessions/s?member_id={quoted}")).status_code == 422

    tenants.talk(run)


def test_the_same_event_of_two_tenants_is_two_events_and_each_sees_its_own(tenants: Tenants, bench: Any) -> None:
    async def run(ask: Ask) -> None:
        for tenant, title in zip(TENANTS, ("t00", "t01", "t02"), strict=True):
            for accepted in (1, 0):
                sent = await ask(tenant, "POST", "/v1/events", json={"events": [event(bench, title)]})
                assert sent.json()["accepted"] == accepted
        bench.clock.move(seconds=1)
        for tenant, title in zip(TENANTS, ("t00", "t01", "t02"), strict=True):
            found = (await ask(tenant, "GET", "/v1/sessions/s1", params={"member_id": "m1"})).json()
            assert [(one["event_id"], one["session_id"], one["title_id"]) for one in found["events"]] == [
                ("e1", "s1", title)
            ]
            assert (found["member_id"], found["session_id"], found["freshness"]["last_event_id"]) == ("m1", "s1", "e1")
            for path in ("/v1/recommend", "/v1/intent"):
                told = (await ask(tenant, "POST", path, json={"member_id": "m1", "session_id": "s1"})).json()
                assert told["freshness"]["last_event_id"] == "e1"
                assert SEPARATOR not in str(told)

    tenants.talk(run)
    ids = [[row[name] for name in ("actor_id", "member_id", "session_id", "event_id")] for row in shipped(bench)]
    assert sorted(ids) == sorted([inside(name, tenant) for name in ("m1", "m1", "s1", "e1")] for tenant in TENANTS)


def shipped(bench: Any) -> list[dict[str, Any]]:
    bench.events.ship(bench.sessions)
    rows: list[dict[str, Any]] = bench.events.read().to_pylist()
    return rows


def test_tables_that_are_made_of_events_carry_the_tenant_too(tenants: Tenants, bench: Any, tmp_path: Path) -> None:
    async def run(ask: Ask) -> None:
        for tenant in TENANTS:
            for number in range(6):
                sent = event(bench, f"t0{number}", event_id=f"e{number}")
                assert (await ask(tenant, "POST", "/v1/events", json={"events": [sent]})).json()["accepted"] == 1
                bench.clock.move(hours=5)

    tenants.talk(run)
    shipped(bench)
    raw, out = tmp_path / "raw", tmp_path / "prepared"
    write_parquet(two_genre_titles(), raw / "titles.parquet")
    write_parquet(conform(bench.events.read(), EVENTS, what="events"), raw / "events" / "0.parquet")
    prepare(raw, out, PrepareConfig(num_buckets=2), now=bench.clock.now, collapse=runs, spread=here)
    actors = read_prepared(out, "interactions", columns=["actor_id"])["actor_id"].to_pylist()
    assert sorted(actors) == sorted([inside("m1", tenant) for tenant in TENANTS] * 6)


def test_a_decision_is_its_tenants_alone(tenants: Tenants, bench: Any) -> None:
    async def run(ask: Ask) -> None:
        answer = (await ask("acme", "POST", "/v1/recommend", json={"member_id": "m1", "session_id": "s1"})).json()
        name, shown = (
            answer["decision_id"],
            {"shown": [answer["items"][0]["title_id"]], "at": bench.clock.now.isoformat()},
        )
        for tenant, status in (("acme", 200), ("default", 404), ("other", 404)):
            assert (await ask(tenant, "GET", f"/v1/decisions/{name}")).status_code == status
            assert (await ask(tenant, "POST", f"/v1/decisions/{name}/ack", json=shown)).status_code == status
            assert (await ask(tenant, "POST", f"/v1/decisions/{name}/replay")).status_code == 404  # no models here
        row = (await ask("acme", "GET", f"/v1/decisions/{name}")).json()
        assert (row["member_id"], row["session_id"], row["request"]["member_id"]) == ("m1", "s1", "m1")

    tenants.talk(run)
    (row,) = plain_rows(bench.decisions.read())
    assert (row["member_id"], row["session_id"]) == (inside("m1", "acme"), inside("s1", "acme"))
    assert {ack["member_id"] for ack in bench.acks.read().to_pylist()} == {inside("m1", "acme")}


def test_a_deletion_is_of_ones_own_member_alone(tenants: Tenants, bench: Any) -> None:
    async def run(ask: Ask) -> None:
        for tenant in TENANTS:
            await ask(tenant, "POST", "/v1/events", json={"events": [event(bench, "t00")]})
            guest = event(bench, "t04", member_id=None, event_id="g1", session_id="g")
            await ask(tenant, "POST", "/v1/events", json={"events": [guest]})
        merged = await ask("acme", "POST", "/v1/members/m1/merge", json={"session_id": "g"})
        assert merged.json() == {"merged": 1}
        bench.clock.move(seconds=1)
        gone = (await ask("acme", "DELETE", "/v1/members/m1")).json()
        assert gone["deleted_events"] == 3
        for tenant, seen in (("acme", []), ("default", ["e1"]), ("other", ["e1"])):
            found = (await ask(tenant, "GET", "/v1/sessions/x", params={"member_id": "m1"})).json()
            assert [one["event_id"] for one in found["events"]] == seen
            guests = (await ask(tenant, "GET", "/v1/sessions/g")).json()
            assert [one["event_id"] for one in guests["events"]] == (["g1"] if seen else [])
        late = {"events": [event(bench, "t02", event_id="e2", at="2026-01-02T00:00:00Z")]}
        refused = [(await ask(tenant, "POST", "/v1/events", json=late)).json() for tenant in TENANTS]
        assert [[one["code"] for one in answer["rejected"]] for answer in refused] == [[], ["deleted_member"], []]

    tenants.talk(run)
    assert bench.source.forgotten == [inside("m1", "acme")]
    assert set(bench.tombstones.read()) == {inside("m1", "acme"), "guest:" + inside("g", "acme")}


def test_longest_ids_of_a_tenant_are_stored(tenants: Tenants, bench: Any) -> None:
    async def run(ask: Ask) -> None:
        names = dict.fromkeys(("event_id", "member_id", "session_id"), "😀" * 200)
        sent = (await ask("other", "POST", "/v1/events", json={"events": [event(bench, "t00", **names)]})).json()
        assert (sent["accepted"], sent["rejected"]) == (1, [])

    tenants.talk(run)


@pytest.fixture
def redis_log(redis_url: str, tmp_path: Path) -> Iterator[RedisSessionLog]:
    config = SessionLogConfig(kind=LogKind.REDIS, url=redis_url, prefix=f"tenants-{tmp_path.name}", durable=False)
    with closing(RedisSessionLog(config)) as log:
        yield log


def test_tenants_are_apart_in_redis_too(redis_log: RedisSessionLog, bench: Any) -> None:
    intake = Intake(redis_log, future_minutes=5.0, clock=bench.clock)
    for tenant in TENANTS:
        assert intake.accept([event(bench, "t00"), event(bench, "t01", event_id="e2")], tenant=tenant).accepted == 2
    assert redis_log.delete(inside("m1", "acme"), until_us=LAST_US) == 2
    for tenant, count in (("default", 2), ("acme", 0), ("other", 2)):
        rows, _ = redis_log.read(inside("m1", tenant), limit=10)
        assert [row["event_id"] for row in rows] == [inside(f"e{number + 1}", tenant) for number in range(count)]


class Spy:
    """A service that notes what it is given and refuses."""

    def __init__(self) -> None:
        self.given: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def noted(*arguments: Any, **named: Any) -> Any:
            self.given.append((name, arguments, named))
            raise ConflictError("noted")

        return noted


def body_of(written: dict[str, Any], operation: dict[str, Any]) -> Any:
    """A small body that fits an operation: what is required, by name."""
    if "requestBody" not in operation:
        return None
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    schema = next((one for one in schema.get("anyOf", ()) if "$ref" in one), schema)
    found = written["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    known: dict[str, Any] = {
        "session_id": "s1",
        "member_id": "m1",
        "shown": ["t00"],
        "at": "2026-01-01T00:00:00Z",
        "events": [{}],
        "rewards": [{}],
        "title_ids": ["t00"],
        "candidates": ["t00"],
        "decision_id": "0" * 32,
        "consent": False,
    }
    return {
        name: known[name] for name in found["properties"] if name in found.get("required", ()) or name == "member_id"
    }


def test_every_endpoint_hands_on_the_tenant_of_who_asks(tmp_path: Path) -> None:
    spy = Spy()
    of = Tenants(tmp_path, spy, datetime(2026, 1, 1, tzinfo=UTC))

    async def run(ask: Ask) -> None:
        written = of.app.openapi()
        for path, operations in written["paths"].items():
            for method, operation in operations.items():
                if not path.startswith("/v1/") or path.startswith("/v1/models"):
                    continue
                spy.given.clear()
                at = path.replace("{", "").replace("}", "")
                asked = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
                params = {"member_id": "m1"} if "member_id" in asked else {}
                answer = await ask("acme", method, at, json=body_of(written, operation), params=params)
                assert answer.status_code == 409, (method, path, answer.text)
                assert spy.given, path
                for _, arguments, named in spy.given:
                    told = str([getattr(one, "__dict__", one) for one in arguments])
                    assert named.get("tenant") == "acme" or repr(SEPARATOR)[1:-1] in told, (path, told)

    of.talk(run)
