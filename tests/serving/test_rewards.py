"""Feedback that no event tells is taken over HTTP: durable, once, about a decision of the tenant, and joined."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from foretaste.contracts.columns import REPORTED
from foretaste.contracts.wire import ConsentRequest, RecommendRequest
from foretaste.feedback.reports import ReportLog
from foretaste.feedback.session_log import SessionLogConfig
from foretaste.jobs.outcomes import join
from foretaste.jobs.settings import Settings
from foretaste.ops.files import read_parquet
from foretaste.serving.config import ServiceConfig, ServingConfig
from foretaste.serving.ingress import build_app
from foretaste.serving.keys import KEYS_FILE, KeyRing, Role, create_key
from foretaste.serving.service import Service, open_service
from foretaste.serving.tenancy import request_inside
from foretaste.sessions.spread import here
from foretaste.testing.bundles import file_intent
from foretaste.testing.fakes import FakeClock, two_genre_titles

LOG = SessionLogConfig(durable=False, window_days=2.0)
CLOCK = FakeClock()
Send = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rewards")
    file_intent(folder / "registry", two_genre_titles(), at=datetime(2026, 1, 1, tzinfo=UTC), seed=1)
    return folder


def opened(folder: Path) -> Service:
    serving = ServingConfig(audit_share=0.0, session_log=LOG)
    return open_service(ServiceConfig(workspace=folder, features_repo=Path("features"), serving=serving), clock=CLOCK)


def asked(service: Service, member: str, tenant: str = "default") -> tuple[str, list[str]]:
    request = RecommendRequest.model_validate({"member_id": member, "session_id": f"of {member}", "k": 3})
    found = service.recommend(request_inside(request, tenant))
    assert found.decision_id is not None
    return found.decision_id, [item.title_id for item in found.items]


def reward(reward_id: str, decision_id: str, **values: Any) -> dict[str, Any]:
    row = {"reward_id": reward_id, "decision_id": decision_id, "feedback": "survey", "value": 4.0}
    return row | {"at": CLOCK.now.isoformat()} | values


def talk(service: Service, run: Callable[[Send], Awaitable[None]], keys: KeyRing | None = None) -> None:
    async def through() -> None:
        app = build_app(service, max_body_bytes=20_000, keys=keys)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            async def send(*rewards: Any, key: str = "") -> httpx.Response:
                headers = {"x-api-key": key} if key else {}
                return await client.post("/v1/rewards", json={"rewards": list(rewards)}, headers=headers)

            await run(send)

    asyncio.run(through())


def test_what_is_accepted_survives_and_the_same_again_changes_nothing(folder: Path) -> None:
    with closing(opened(folder)) as service:
        decision, titles = asked(service, "m1")

        async def run(send: Send) -> None:
            first = (await send(reward("r1", decision), reward("r2", decision, title_id=titles[0], value=0))).json()
            assert first == {"accepted": 2, "duplicate": 0, "rejected": []}
            again = (
                await send(reward("r1", decision, value=1.0), reward("r3", decision), reward("r3", decision))
            ).json()
            assert again == {"accepted": 1, "duplicate": 2, "rejected": []}

        talk(service, run)
    with closing(ReportLog(folder / "serving", durable=False)) as log:
        found = {row["reward_id"]: row for row in log.read().to_pylist()}
        assert log.read().schema == REPORTED
    assert {name: (row["value"], row["title_id"], row["member_id"]) for name, row in found.items()} == {
        "r1": (4.0, None, "m1"),
        "r2": (0.0, titles[0], "m1"),
        "r3": (4.0, None, "m1"),
    }
    assert len(list((folder / "serving" / "rewards").glob("*.parquet"))) == 1


def test_each_bad_one_is_rejected_with_its_reason_and_the_others_are_stored(folder: Path) -> None:
    with closing(opened(folder)) as service:
        decision, _ = asked(service, "m2")
        service.consent("refuses", ConsentRequest(consent=True))
        theirs, _ = asked(service, "refuses")
        service.consent("refuses", ConsentRequest(consent=False))
        hour = timedelta(hours=1)

        async def run(send: Send) -> None:
            answer = (
                await send(
                    reward("b0", decision, value="4"),
                    reward("b1", decision, value=True),
                    reward("b2", decision, feedback="Survey!"),
                    reward("b3", "0" * 32),
                    reward("b4", decision, title_id="not there"),
                    reward("b5", decision, at=(CLOCK.now + hour).isoformat()),
                    reward("b6", decision, at=(CLOCK.now - hour).isoformat()),
                    reward("b7", theirs),
                    reward("b8", decision, colour="red"),
                    17,
                    reward("good", decision),
                )
            ).json()
            assert (answer["accepted"], answer["duplicate"]) == (1, 0)
            codes = {one["index"]: one["code"] for one in answer["rejected"]}
            invalid = dict.fromkeys((0, 1, 2, 8, 9), "invalid")
            assert codes == invalid | {
                3: "unknown_decision",
                4: "not_on_list",
                5: "future_time",
                6: "before_decision",
                7: "no_consent",
            }
            assert "value" in answer["rejected"][0]["message"]
            whole = await send()
            assert whole.status_code == 422
            assert whole.headers["content-type"] == "application/problem+json"
            assert whole.json()["errors"][0]["field"] == "rewards"

        talk(service, run)


def test_a_tenant_reaches_no_decision_and_no_reward_of_another(folder: Path) -> None:
    path = folder / "serving" / KEYS_FILE
    keys = {name: create_key(path, name, Role.SERVER, clock=lambda: CLOCK.now) for name in ("acme", "other")}
    web = create_key(path, "acme", Role.CLIENT, clock=lambda: CLOCK.now)
    with closing(opened(folder)) as service:
        mine, _ = asked(service, "m1", "acme")
        theirs, _ = asked(service, "m1", "other")

        async def run(send: Send) -> None:
            foreign = (await send(reward("same", theirs), key=keys["acme"])).json()
            assert [one["code"] for one in foreign["rejected"]] == ["unknown_decision"]
            for tenant, decision in (("acme", mine), ("other", theirs)):  # one name is two rewards
                assert (await send(reward("same", decision), key=keys[tenant])).json()["accepted"] == 1
            assert (await send(reward("x", mine), key=web)).status_code == 403
            assert (await send(reward("x", mine))).status_code == 401

        talk(service, run, KeyRing(path))


def test_a_deleted_member_leaves_no_reward_behind(folder: Path) -> None:
    with closing(opened(folder)) as service:
        decision, _ = asked(service, "gone")

        async def run(send: Send) -> None:
            assert (await send(reward("g1", decision))).json()["accepted"] == 1
            service.housekeep()
            CLOCK.move(seconds=1)
            service.delete("gone")
            assert [one["code"] for one in (await send(reward("g2", decision))).json()["rejected"]] == [
                "unknown_decision"
            ]

        talk(service, run)
        CLOCK.move(hours=2)
        service.housekeep()
    with closing(ReportLog(folder / "serving", durable=False)) as log:
        assert "gone" not in log.read()["member_id"].to_pylist()


def test_a_log_that_takes_nothing_is_a_503_that_is_worth_trying_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    def full(*_: Any) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    with closing(opened(folder)) as service:
        decision, _ = asked(service, "m3")
        monkeypatch.setattr(ReportLog, "append", full)

        async def run(send: Send) -> None:
            answer = await send(reward("f", decision))
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) >= 1

        talk(service, run)


def test_rewards_reach_the_outcomes_of_their_decision(folder: Path) -> None:
    with closing(opened(folder)) as service:
        decision, titles = asked(service, "m4")

        async def run(send: Send) -> None:
            assert (await send(reward("o1", decision, value=5.0))).json()["accepted"] == 1

        talk(service, run)
    CLOCK.move(hours=1)
    found = join(Settings(workspace=folder), as_of=CLOCK.now.isoformat(), spread=here)
    rows = [row for row in read_parquet(Path(found["out"])).to_pylist() if row["decision_id"] == decision]
    assert {row["title_id"] for row in rows} == set(titles)
    assert {(one["feedback"], one["value"]) for row in rows for one in row["reported"]} == {("survey", 5.0)}
