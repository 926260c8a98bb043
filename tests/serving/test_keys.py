"""Who has no key, another's, an old one or too much to ask stays out; and nobody learns a key from us."""

from __future__ import annotations

import asyncio
import logging
import stat
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from foretaste.contracts.tenants import checked_tenant
from foretaste.jobs.keys import first_key, keys, own_key
from foretaste.jobs.settings import Settings
from foretaste.serving.gate import Gate, permitted
from foretaste.serving.ingress import build_app
from foretaste.serving.keys import KEYS_FILE, Caller, KeyRing, Rate, Role, create_key, read_keys, revoke_key
from foretaste.serving.rates import TokenBucket
from foretaste.testing.fakes import FakeClock

CLOCK = FakeClock()
Ask = Callable[..., Awaitable[httpx.Response]]


def make(path: Path, tenant: str = "acme", role: Role = Role.SERVER, rate: Rate | None = None) -> str:
    return create_key(path, tenant, role, clock=CLOCK, rate=rate)


def talk(bench: Any, ring: KeyRing | None, run: Callable[[Ask], Awaitable[None]], **more: Any) -> None:
    async def through() -> None:
        app = build_app(bench.service(), max_body_bytes=10_000, keys=ring, **more)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await run(client.request)

    asyncio.run(through())


def test_a_key_is_kept_as_a_digest_that_only_its_owner_can_read(tmp_path: Path) -> None:
    path = tmp_path / KEYS_FILE
    key = make(path)
    assert KeyRing(path).caller(key) == Caller(tenant="acme", role=Role.SERVER, key=key.split("_")[1])
    assert key.split("_")[2] not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key.split("_")[2] not in repr(read_keys(path))
    assert read_keys(path).keys[0].digest not in repr(read_keys(path))


def test_every_other_key_is_none(tmp_path: Path) -> None:
    path = tmp_path / KEYS_FILE
    key, other = make(path), make(path, "other")
    ring = KeyRing(path)
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    mixed = f"ft_{other.split('_')[1]}_{key.split('_')[2]}"
    digest = f"ft_{key.split('_')[1]}_{read_keys(path).keys[0].digest}"
    for bad in (
        "",
        "ft_",
        key.upper(),
        key + " ",
        " " + key,
        key + "0",
        wrong,
        mixed,
        digest,
        "x" * 10_000,
        "чл",
        key[3:],
    ):
        assert ring.caller(bad) is None, bad
    unknown = KeyRing(tmp_path / "absent.json")
    assert unknown.caller(key) is None
    assert unknown.caller("ft_" + "0" * 8 + "_" + "0" * 64) is None


def test_two_keys_count_while_one_takes_over_from_the_other(tmp_path: Path) -> None:
    path = tmp_path / KEYS_FILE
    ring, old = KeyRing(path), make(path)
    assert ring.caller(old) is not None
    new = make(path)
    assert None not in (ring.caller(old), ring.caller(new))
    revoke_key(path, old.split("_")[1])
    assert ring.caller(old) is None
    assert ring.caller(new) is not None
    with pytest.raises(ValueError, match=new.split("_")[1]):
        revoke_key(path, "00000000")


def test_keys_that_are_made_at_once_all_count(tmp_path: Path) -> None:
    path, made = tmp_path / KEYS_FILE, list[str]()
    threads = [threading.Thread(target=lambda: made.append(make(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ring = KeyRing(path)
    assert len(made) == 8
    assert all(ring.caller(key) is not None for key in made)


def test_a_damaged_file_lets_nobody_new_in_and_its_error_tells_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / KEYS_FILE
    ring, key = KeyRing(path), make(path)
    assert ring.caller(key) is not None
    digest = read_keys(path).keys[0].digest
    path.write_text(path.read_text().replace('"salt"', '"pepper"'))
    assert ring.caller(key) is not None
    assert KeyRing(path).caller(key) is None
    assert digest not in caplog.text
    path.unlink()
    assert ring.caller(key) is None


def test_who_has_no_key_may_look_at_nothing_but_health(tmp_path: Path, bench: Any) -> None:
    key = make(tmp_path / KEYS_FILE)

    async def run(ask: Ask) -> None:
        written = (await ask("GET", "/openapi.json")).json()
        asked = [(m, p) for p, of in written["paths"].items() for m in of if not p.startswith(("/health", "/metrics"))]
        assert len(asked) >= 9
        for method, path in [*asked, ("get", "/v1/nothing"), ("get", "//v1/intent"), ("get", "/nothing")]:
            nobody: list[Any] = [{}, {"x-api-key": "ft_0_0"}, {b"x-api-key": "é".encode()}]
            for headers in nobody:
                answer = await ask(method, path.replace("{", "").replace("}", ""), headers=headers)
                assert answer.status_code == 401, (method, path)
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["www-authenticate"] == "ApiKey"
                assert answer.json()["request_id"] == answer.headers["x-request-id"]
        for path in ("/health/live", "/health/ready", "/openapi.json", "/docs"):
            assert (await ask("GET", path)).status_code == 200
        twice = await ask("POST", "/v1/recommend", headers=[("x-api-key", key), ("x-api-key", key)], json={})
        assert twice.status_code == 401
        good = await ask("POST", "/v1/recommend", headers={"x-api-key": key}, json={"session_id": "s1"})
        assert good.status_code == 200
        security = written["paths"]["/v1/recommend"]["post"]["security"]
        assert list(security[0]) == list(written["components"]["securitySchemes"])

    talk(bench, KeyRing(tmp_path / KEYS_FILE), run)


def test_a_key_never_comes_back_in_an_answer_or_a_log(
    tmp_path: Path, bench: Any, caplog: pytest.LogCaptureFixture
) -> None:
    key = make(tmp_path / KEYS_FILE)
    caplog.set_level(logging.DEBUG)

    async def run(ask: Ask) -> None:
        for headers, body in (
            ({"x-api-key": key}, {"session_id": "s1"}),
            ({"x-api-key": key + "x"}, {}),
            ({"x-api-key": key}, {"k": key[:0]}),
        ):
            answer = await ask("POST", "/v1/recommend", headers=headers, json=body)
            assert key not in answer.text + str(answer.headers)

    talk(bench, KeyRing(tmp_path / KEYS_FILE), run)
    assert key.split("_")[2] not in caplog.text


@pytest.mark.parametrize(
    ("path", "least"),
    [
        ("/v1/events", Role.CLIENT),
        ("/v1/recommend", Role.CLIENT),
        ("/v1/intent", Role.CLIENT),
        ("/v1/decisions/d1/ack", Role.CLIENT),
        ("/v1/decisions/d1", Role.SERVER),
        ("/v1/decisions/d1/replay", Role.SERVER),
        ("/v1/sessions/s1", Role.SERVER),
        ("/v1/members/m1", Role.SERVER),
        ("/v1/members/m1/merge", Role.SERVER),
        ("/v1/members/x/ack", Role.SERVER),
        ("/v1/models", Role.SERVER),
        ("/v1/models/intent/promote", Role.OPERATOR),
    ],
)
def test_a_role_may_what_those_below_it_may_and_no_more(path: str, least: Role) -> None:
    order = list(Role)
    assert [permitted(role, path) for role in order] == [order.index(role) >= order.index(least) for role in order]


def test_a_browsers_key_cannot_delete(tmp_path: Path, bench: Any) -> None:
    key = make(tmp_path / KEYS_FILE, role=Role.CLIENT)

    async def run(ask: Ask) -> None:
        refused = await ask("DELETE", "/v1/members/m1", headers={"x-api-key": key})
        assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
        assert (
            await ask("POST", "/v1/intent", headers={"x-api-key": key}, json={"session_id": "s"})
        ).status_code == 200

    talk(bench, KeyRing(tmp_path / KEYS_FILE), run)


def test_who_asks_too_often_is_told_when_to_come_again_and_others_are_not(tmp_path: Path, bench: Any) -> None:
    path, seconds = tmp_path / KEYS_FILE, [0.0]
    busy, other = make(path, rate=Rate(per_second=0.5, burst=3)), make(path, "other")
    app = Gate(build_app(bench.service(), max_body_bytes=10_000), keys=KeyRing(path), timer=lambda: seconds[0])

    async def run() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:

            async def ask(key: str) -> httpx.Response:
                return await client.post("/v1/intent", headers={"x-api-key": key}, json={"session_id": "s"})

            assert [(await ask(busy)).status_code for _ in range(4)] == [200, 200, 200, 429]
            refused = await ask(busy)
            assert (refused.headers["retry-after"], refused.headers["content-type"]) == (
                "2",
                "application/problem+json",
            )
            assert (await ask(other)).status_code == 200
            seconds[0] += 2
            assert [(await ask(busy)).status_code for _ in range(2)] == [200, 429]
            make(path, rate=Rate(per_second=100, burst=50))
            assert (await ask(busy)).status_code == 200

    asyncio.run(run())


def test_a_bucket_never_gives_more_than_its_rate_and_its_burst() -> None:
    now = [0.0]
    bucket, taken = TokenBucket(10, 5, timer=lambda: now[0]), 0
    for step in range(1_000):
        now[0] = step * 0.01
        taken += bucket.take() == 0
        assert taken <= 5 + 10 * now[0] + 1e-9
    assert taken >= 5 + 10 * now[0] - 1
    with pytest.raises(ValueError, match="per_second"):
        TokenBucket(0, 5, timer=lambda: 0.0)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/sessions/" + "x" * 5_000, {}, 414),
        ("/v1/sessions/x?member_id=" + "x" * 5_000, {}, 414),
        ("/v1/sessions/x", {"x-large": "x" * 20_000}, 431),
        ("/v1/sessions/x", {f"x-{number}": "1" for number in range(120)}, 431),
    ],
)
def test_what_is_too_large_before_its_body_is_refused(
    bench: Any, path: str, headers: dict[str, str], status: int
) -> None:
    async def run(ask: Ask) -> None:
        answer = await ask("GET", path, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")

    talk(bench, None, run)


@pytest.mark.parametrize("name", ["", "Acme", "a b", "a" * 33, "-a", "a\x1fb", "guest:", "é"])
def test_a_tenant_has_a_plain_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tenant"):
        checked_tenant(name)
    with pytest.raises(ValueError, match="tenant"):
        make(tmp_path / KEYS_FILE, name)


def test_the_verbs_make_list_and_revoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(workspace=tmp_path)
    made = keys(settings, "create", tenant="acme", role="client", per_second=5)
    key = capsys.readouterr().out.strip()
    ring = KeyRing(settings.tables.serving / KEYS_FILE)
    assert ring.caller(key) == Caller(tenant="acme", role=Role.CLIENT, key=made["key"])
    assert ring.rates == {"acme": Rate(per_second=5, burst=10)}
    assert keys(settings, "list")["keys"] == [made]
    assert keys(settings, "list", tenant="other")["keys"] == []
    told = capsys.readouterr()
    assert made["key"] in told.err
    assert key.split("_")[2] not in told.err + told.out
    keys(settings, "revoke", key=made["key"])
    assert keys(settings, "list")["keys"] == []
    for wrong, word in (({"burst": 3}, "--rate"), ({"per_second": -1.0}, "--rate")):
        with pytest.raises(ValueError, match=word):
            keys(settings, "create", **wrong)
    with pytest.raises(ValueError, match="--key"):
        keys(settings, "revoke")


def test_a_service_of_this_machine_has_a_key_and_one_for_others_needs_one(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path)
    with pytest.raises(ValueError, match="foretaste keys create"):
        first_key(settings, "0.0.0.0")
    assert own_key(settings.tables, {}) is None
    for host in ("127.0.0.1", "localhost", "::1"):
        first_key(settings, host)
    found = own_key(settings.tables, {})
    assert found is not None
    ring = KeyRing(settings.tables.serving / KEYS_FILE)
    assert ring.caller(found) == Caller(tenant="default", role=Role.OPERATOR, key=found.split("_")[1])
    assert own_key(settings.tables, {"FORETASTE_API_KEY": "other"}) == "other"
    assert stat.S_IMODE((settings.tables.serving / "local.key").stat().st_mode) == 0o600
    first_key(settings, "0.0.0.0")
    assert len(keys(settings, "list")["keys"]) == 1
