"""Of a member who does not consent nothing is stored, whichever way they say so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from foretaste.contracts.columns import EVENTS
from foretaste.feedback.consents import Consents
from foretaste.serving.ingress import build_app

Ask = Callable[..., Awaitable[httpx.Response]]


def talk(bench: Any, run: Callable[[Ask], Awaitable[None]]) -> None:
    async def through() -> None:
        transport = httpx.ASGITransport(app=build_app(bench.service(), max_body_bytes=10_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await run(client.request)

    asyncio.run(through())


def event(bench: Any, number: int, **more: Any) -> dict[str, Any]:
    made = {"event_id": f"n{number}", "member_id": "m1", "session_id": "s1", "at": bench.clock.now.isoformat()}
    return made | {"action": "play", "title_id": "t02"} | more


def files_with(folder: Path, *names: str) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.is_file() and any(name.encode() in p.read_bytes() for name in names)]


def test_an_event_without_consent_is_not_stored_and_the_others_are(bench: Any) -> None:
    async def run(ask: Ask) -> None:
        batch = [event(bench, 1), event(bench, 2, consent=False), event(bench, 3, consent=True)]
        found = (await ask("POST", "/v1/events", json={"events": batch})).json()
        assert (found["accepted"], [(one["index"], one["code"]) for one in found["rejected"]]) == (
            2,
            [(1, "no_consent")],
        )
        bad = (await ask("POST", "/v1/events", json={"events": [event(bench, 4, consent="no")]})).json()
        assert bad["rejected"][0]["message"].startswith("consent")

    talk(bench, run)
    rows = bench.sessions.read("m1", limit=10)[0]
    assert [row["event_id"] for row in rows] == ["n1", "n3"]
    assert all(set(row) <= {*EVENTS.names, "sequence"} for row in rows)


def test_a_list_without_consent_reads_and_leaves_nothing(bench: Any) -> None:
    bench.act("play", "t02")

    async def run(ask: Ask) -> None:
        asked = {"member_id": "m1", "session_id": "s1", "policy": "greedy"}
        known = (await ask("POST", "/v1/recommend", json=asked)).json()
        nobody = (await ask("POST", "/v1/recommend", json={"session_id": "new", "policy": "greedy"})).json()
        found = (await ask("POST", "/v1/recommend", json=asked | {"consent": False})).json()
        assert found["decision_id"] is None
        assert found["freshness"]["last_event_id"] is None
        ids = [[item["title_id"] for item in one["items"]] for one in (known, nobody, found)]
        assert ids[2] == ids[1] != ids[0]
        told = (await ask("POST", "/v1/intent", json={"member_id": "m1", "session_id": "s1", "consent": False})).json()
        assert told["freshness"]["last_event_id"] is None

    talk(bench, run)
    assert bench.decisions.read().num_rows == 2


def test_a_refusal_is_remembered_until_it_is_taken_back(bench: Any, tmp_path: Path) -> None:
    async def run(ask: Ask) -> None:
        said = await ask("PUT", "/v1/members/secret-member/consent", json={"consent": False})
        assert said.json() == {"consent": False}
        who = {"member_id": "secret-member", "session_id": "secret-session"}
        sent = (await ask("POST", "/v1/events", json={"events": [event(bench, 1, **who)]})).json()
        assert [one["code"] for one in sent["rejected"]] == ["no_consent"]
        assert (await ask("POST", "/v1/recommend", json=who)).json()["decision_id"] is None
        merged = await ask("POST", "/v1/members/secret-member/merge", json={"session_id": "s1"})
        assert (merged.status_code, merged.json()["errors"][0]["field"]) == (422, "member_id")
        bench.decisions.roll()
        assert files_with(tmp_path, "secret-session") == []
        assert files_with(tmp_path, "secret-member") == ["consents.jsonl"]
        assert (await ask("DELETE", "/v1/members/secret-member")).status_code == 200
        sent = (await ask("POST", "/v1/events", json={"events": [event(bench, 1, **who)]})).json()
        assert sent["accepted"] == 0
        await ask("PUT", "/v1/members/secret-member/consent", json={"consent": True})
        bench.clock.move(seconds=1)
        sent = (await ask("POST", "/v1/events", json={"events": [event(bench, 2, **who)]})).json()
        assert sent["accepted"] == 1
        assert (await ask("POST", "/v1/recommend", json=who)).json()["decision_id"] is not None

    talk(bench, run)


def test_while_it_is_not_known_who_refuses_nothing_is_stored_and_everybody_gets_a_list(
    bench: Any, tmp_path: Path
) -> None:
    (tmp_path / "consents.jsonl").write_text("nonsense\n")

    async def run(ask: Ask) -> None:
        assert (await ask("POST", "/v1/events", json={"events": [event(bench, 1)]})).status_code == 503
        found = (await ask("POST", "/v1/recommend", json={"member_id": "m1", "session_id": "s1"})).json()
        assert (found["decision_id"], len(found["items"])) == (None, 10)

    talk(bench, run)
    assert bench.sessions.read("m1", limit=10)[0] == []


def test_what_was_said_outlives_the_process_and_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "consents.jsonl"
    Consents(path).note("m1", False, at=1)
    Consents(path).note("m2", False, at=2)
    with path.open("ab") as file:
        file.write(b'{"member_id": "m3", "cons')
    assert Consents(path).refused() == {"m1", "m2"}
    Consents(path).note("m1", True, at=3)
    assert Consents(path).refused() == {"m2"}
    path.write_text("nonsense\n")
    with pytest.raises(ValueError, match="line 1"):
        Consents(path).refused()
