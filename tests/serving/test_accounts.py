"""Any answer can be made again, what was shown of it is known once and for all, and a session can be looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from foretaste.contracts.columns import ACKS
from foretaste.contracts.wire import EventsRequest, NextRequest, RecommendRequest
from foretaste.contracts.wire_records import AckRequest, ReplayRequest
from foretaste.feedback.acks import AckLog
from foretaste.feedback.session_log import SessionLogConfig
from foretaste.serving.config import ServiceConfig, ServingConfig
from foretaste.serving.ingress import build_app
from foretaste.serving.problems import RefusedError
from foretaste.serving.service import Service, open_service
from foretaste.serving.tenancy import request_inside
from foretaste.testing.bundles import file_intent, file_ranker
from foretaste.testing.fakes import FakeClock, two_genre_titles

TITLES = two_genre_titles()
LOG = SessionLogConfig(durable=False, read_events=12, window_days=2.0)
N = 24
AT = datetime(2026, 1, 1, tzinfo=UTC)
Ask = Callable[..., Awaitable[httpx.Response]]


class Place:
    """A workspace with a clock; services of it open and close."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, FakeClock()
        self.serving = ServingConfig(audit_share=0.0, epsilon=0.4, session_log=LOG, budget_ms=60_000)

    def open(self, **serving: Any) -> Service:
        config = self.serving.model_copy(update=serving)
        workspace = ServiceConfig(workspace=self.folder, features_repo=Path("features"), serving=config)
        return open_service(workspace, clock=self.clock)

    def file(self, seed: int, *, titles: pa.Table = TITLES) -> tuple[str, str]:
        at = AT + timedelta(days=seed)
        intent = file_intent(self.folder / "registry", titles, at=at, seed=seed)
        ranker = file_ranker(self.folder / "registry", intent=intent.fingerprint, at=at, seed=seed, by_dice=True)
        return intent.fingerprint, ranker.fingerprint

    def act(self, service: Service, number: int, **who: Any) -> None:
        dice = np.random.default_rng(number)
        event = {"event_id": f"e{number}", "at": self.clock.now.isoformat(), "action": "play"}
        event |= who | {"title_id": f"t{dice.integers(40):02d}"}
        service.accept(EventsRequest.model_validate({"events": [event]}))
        self.clock.move(seconds=30)

    def ask(self, service: Service, **request: Any) -> str:
        found = service.recommend(RecommendRequest.model_validate({"session_id": "s1", "k": 6} | request))
        assert found.decision_id is not None
        return found.decision_id


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("accounts"))
    place.file(1)
    return place


@pytest.fixture(scope="module")
def asked(place: Place) -> list[str]:
    """Answers of two models, to members and guests, by dice and without, while events come."""
    names = []
    for part in (1, 2):
        place.file(part)
        with closing(place.open()) as service:
            for number in range(N // 2):
                who = {"session_id": f"g{number % 3}"} if number % 4 == 0 else {"member_id": f"m{number % 2}"}
                place.act(service, part * 100 + number, **who)
                policy = {"policy": "greedy"} if number % 5 == 0 else {}
                names.append(place.ask(service, **who, **policy, exclude_ids=["t07"]))
            service.housekeep()
    return names


def talk(service: Service, run: Callable[[Ask], Awaitable[None]]) -> None:
    async def through() -> None:
        transport = httpx.ASGITransport(app=build_app(service, max_body_bytes=10_000), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await run(client.request)

    asyncio.run(through())


def test_every_decision_is_made_again_after_a_restart_though_none_was_audited(place: Place, asked: list[str]) -> None:
    async def run(ask: Ask) -> None:
        for name in asked:
            logged = (await ask("GET", f"/v1/decisions/{name}")).json()
            assert logged["served"] is None
            found = (await ask("POST", f"/v1/decisions/{name}/replay")).json()
            assert (found["identical"], found["differences"], found["stages"]) == (True, [], [])
            assert found["intent_model"] == logged["intent_model"]
            for again, before in zip(found["items"], logged["items"], strict=True):
                assert {name: again[name] for name in ("title_id", "score", "propensity", "position", "source")} == {
                    name: before[name] for name in ("title_id", "score", "propensity", "position", "source")
                }

    with closing(place.open()) as service:
        talk(service, run)


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken")


def test_answers_of_broken_stages_are_made_again_as_broken_as_they_were(
    place: Place, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(place.open()) as service:
        models = service._recommender.models
        parts = {
            "ranker": (models.ranker, "scores"),
            "intent": (models.intent, "predict"),
            "log": (service._sessions, "read"),
        }
        names: dict[str, str] = {}
        for number, (part, (whole, method)) in enumerate(parts.items()):
            with monkeypatch.context() as patch:
                patch.setattr(whole, method, broken)
                names[part] = place.ask(service, member_id="m0", filter="kind == 'movie'", context={"n": number})

        async def run(ask: Ask) -> None:
            for part, name in names.items():
                logged = (await ask("GET", f"/v1/decisions/{name}")).json()
                assert logged["fallback"] is not None, part
                assert logged["items"], part
                found = (await ask("POST", f"/v1/decisions/{name}/replay")).json()
                assert (found["identical"], found["differences"]) == (True, []), part

        talk(service, run)


def test_what_is_not_shipped_yet_is_seen_by_a_replay_and_what_came_later_is_not(place: Place, asked: list[str]) -> None:
    with closing(place.open()) as service:
        place.act(service, 300, member_id="m9")
        name = place.ask(service, member_id="m9")
        place.act(service, 301, member_id="m9")

        async def run(ask: Ask) -> None:
            assert (await ask("POST", f"/v1/decisions/{name}/replay")).json()["identical"]
            assert (await ask("GET", f"/v1/decisions/{name}")).json()["num_events_visible"] == 1

        talk(service, run)


def test_a_decision_of_a_tenant_is_made_again_for_that_tenant_alone(place: Place, asked: list[str]) -> None:
    with closing(place.open(audit_share=1.0)) as service:
        event = {"event_id": "e1", "at": place.clock.now.isoformat(), "action": "play", "title_id": "t02"}
        service.accept(EventsRequest.model_validate({"events": [event | {"member_id": "m0"}]}), tenant="acme")
        place.clock.move(seconds=1)
        request = RecommendRequest(member_id="m0", session_id="s1")
        answer = service.recommend(request_inside(request, "acme"))
        assert answer.decision_id is not None
        assert answer.freshness.last_event_id == "e1"
        found = service.replay(answer.decision_id, ReplayRequest(), tenant="acme")
        assert found is not None
        assert found.identical
        assert service.replay(answer.decision_id, ReplayRequest()) is None
        service.housekeep()
        audit = service.ready()["audit"]
        assert (audit["decisions"], audit["mismatches"], audit["left_out"]) == (1, {}, {})


def test_another_model_gives_a_diff_by_stage(place: Place, asked: list[str]) -> None:
    first, second = (place.file(part) for part in (1, 2))

    async def run(ask: Ask) -> None:
        path = f"/v1/decisions/{asked[0]}/replay"
        found = (await ask("POST", path, json={"intent_model": second[0]})).json()
        assert (found["identical"], found["intent_model"], found["ranker_model"]) == (True, *second)
        stages = {one["stage"]: one for one in found["stages"]}
        assert list(stages) == ["session_log", "signals", "features", "intent", "pool", "ranker", "policy"]
        assert [one["same"] for one in found["stages"]][:3] == [True, True, False] or stages["session_log"]["same"]
        assert not stages["intent"]["same"]
        assert {one["name"] for one in stages["intent"]["values"]} >= {"intent.scores", "intent.embedding"}
        slate = [item["title_id"] for item in found["items"]]
        logged = [item["title_id"] for item in (await ask("GET", f"/v1/decisions/{asked[0]}")).json()["items"]]
        assert stages["policy"]["entered"] == [title for title in slate if title not in logged]
        assert stages["policy"]["left"] == [title for title in logged if title not in slate]
        same = (await ask("POST", path, json={"ranker_model": first[1]})).json()
        assert [one["same"] for one in same["stages"]] == [True] * 7
        assert (await ask("POST", path, json={"intent_model": "no such"})).status_code == 422
        mixed = (await ask("POST", path, json={"intent_model": first[0], "ranker_model": second[1]})).json()
        assert mixed["errors"][0]["field"] == "ranker_model"

    with closing(place.open()) as service:
        talk(service, run)


def test_a_model_of_another_catalogue_is_refused_by_field(place: Place, asked: list[str]) -> None:
    other = place.file(3, titles=two_genre_titles(30))
    place.file(4)

    async def run(ask: Ask) -> None:
        found = await ask("POST", f"/v1/decisions/{asked[0]}/replay", json={"intent_model": other[0]})
        assert found.status_code == 422
        assert "another catalogue" in found.json()["detail"]

    with closing(place.open()) as service:
        talk(service, run)


def test_a_decision_that_was_tampered_with_is_not_identical(place: Place, asked: list[str]) -> None:
    with closing(place.open()) as service:
        name = place.ask(service, member_id="m0")
        decisions = service._decisions
        row = decisions.get(name)
        assert row is not None
        scores = [row["candidate_scores"][0] + 1, *row["candidate_scores"][1:]]
        decisions.append(row | {"decision_id": "0" * 32, "candidate_scores": scores})

        async def run(ask: Ask) -> None:
            found = (await ask("POST", f"/v1/decisions/{'0' * 32}/replay")).json()
            assert not found["identical"]
            assert {one["name"] for one in found["differences"]} == {"decision.scores"}

        talk(service, run)


def test_a_decision_whose_model_is_gone_is_a_conflict_that_says_so(place: Place, asked: list[str]) -> None:
    with closing(place.open()) as service:
        row = service._decisions.get(asked[0])
        assert row is not None
        service._decisions.append(row | {"decision_id": "1" * 32, "intent_model": "aaaaaaaaaaaa"})

        async def run(ask: Ask) -> None:
            found = await ask("POST", f"/v1/decisions/{'1' * 32}/replay")
            assert (found.status_code, "gone from the registry" in found.json()["detail"]) == (409, True)
            assert (await ask("POST", f"/v1/decisions/{'2' * 32}/replay")).status_code == 404

        talk(service, run)


def test_what_was_shown_is_known_once_and_leaves_the_propensity_of_the_part(place: Place, asked: list[str]) -> None:
    name = asked[1]

    async def run(ask: Ask) -> None:
        items = (await ask("GET", f"/v1/decisions/{name}")).json()["items"]
        titles = [item["title_id"] for item in items]
        path, at = f"/v1/decisions/{name}/ack", place.clock.now.isoformat()
        for recorded in (2, 0):
            found = (await ask("POST", path, json={"shown": titles[:2], "at": at})).json()
            assert (found["recorded"], found["shown"]) == (recorded, titles[:2])
            assert found["propensity"] == items[0]["propensity"] * items[1]["propensity"]
        more = (await ask("POST", path, json={"shown": [titles[1], titles[3]], "at": at})).json()
        assert (more["recorded"], more["shown"]) == (1, [titles[0], titles[1], titles[3]])
        product = np.prod([item["propensity"] for item in items[:4]])
        assert more["propensity"] == pytest.approx(product)
        for shown, field in (
            (["t07"], "shown.0"),
            ([titles[0], "nobody knows it"], "shown.1"),
            (titles[:2][::-1], "shown.1"),
            ([titles[0]] * 2, "shown.1"),
        ):
            refused = await ask("POST", path, json={"shown": shown, "at": at})
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, field)
        late = (place.clock.now + timedelta(hours=1)).isoformat()
        refused = await ask("POST", path, json={"shown": titles[:1], "at": late})
        assert refused.json()["errors"][0]["field"] == "at"
        for unknown in ("2" * 32, "nonsense"):
            answer = await ask("POST", f"/v1/decisions/{unknown}/ack", json={"shown": titles, "at": at})
            assert answer.status_code == 404

    with closing(place.open()) as service:
        talk(service, run)
    with closing(AckLog(place.folder / "serving")) as log:
        assert log.of(name) == [row["title_id"] for row in log.read().to_pylist()]
        assert log.read().schema == ACKS
        assert [path.suffix for path in (place.folder / "serving" / "acks").iterdir() if path.suffix] == [".parquet"]


def test_a_list_that_goes_on_is_made_again_and_acknowledged_by_its_own_places(place: Place, asked: list[str]) -> None:
    who = {"member_id": "m1", "session_id": "s1"}
    with closing(place.open()) as service:
        first = place.ask(service, **who)
        page = service.next(NextRequest(**who, decision_id=first, k=4))
        assert page.decision_id is not None
        assert [item.position for item in page.items] == [6, 7, 8, 9]
        found = service.replay(page.decision_id, ReplayRequest())
        assert found is not None
        assert found.identical
        assert [(item.title_id, item.position) for item in found.items] == [
            (item.title_id, item.position) for item in page.items
        ]
        shown = AckRequest(shown=[page.items[0].title_id], at=place.clock.now)
        known = service.ack(page.decision_id, shown)
        assert known is not None
        assert known.propensity == page.items[0].propensity


def test_what_was_shown_to_a_deleted_member_is_nowhere(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.file(1)
    with closing(place.open()) as service:
        names = {who: place.ask(service, member_id=who) for who in ("m1", "m2")}

        async def run(ask: Ask) -> None:
            for shipped in (True, False):
                for name in names.values():
                    items = (await ask("GET", f"/v1/decisions/{name}")).json()["items"]
                    shown = [items[2 if shipped else 4]["title_id"]]
                    body = {"shown": shown, "at": place.clock.now.isoformat()}
                    assert (await ask("POST", f"/v1/decisions/{name}/ack", json=body)).json()["recorded"] == 1
                if shipped:
                    service.housekeep()
            assert (await ask("DELETE", "/v1/members/m1")).status_code == 200
            assert (await ask("GET", f"/v1/decisions/{names['m1']}")).status_code == 404
            body = {"shown": ["t01"], "at": place.clock.now.isoformat()}
            assert (await ask("POST", f"/v1/decisions/{names['m1']}/ack", json=body)).status_code == 404
            place.clock.move(hours=2)
            service.housekeep()

        talk(service, run)
        found = service._told[0].read().to_pylist()
        assert {(row["member_id"], row["decision_id"]) for row in found} == {("m2", names["m2"])}
        assert len(found) == 2


def test_no_list_goes_on_from_one_of_before_a_deletion_in_any_process(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.file(1)
    who = {"member_id": "m1", "session_id": "s1"}
    with closing(place.open()) as one, closing(place.open()) as other:
        first = place.ask(one, **who)
        place.clock.move(seconds=1)
        place.ask(one, **who)
        assert one._decisions.get(first) is not None
        assert one.next(NextRequest(**who, decision_id=first)).items
        other.delete("m1")
        place.clock.move(seconds=1)
        with pytest.raises(RefusedError, match="there is no decision"):
            one.next(NextRequest(**who, decision_id=first))
        name = place.ask(one, **who, shown_id=first)
        row = one._decisions.get(name)
        assert row is not None
        assert row["previous_id"] is None


def test_a_session_tells_what_an_answer_would_read_and_stores_nothing(place: Place, asked: list[str]) -> None:
    async def run(ask: Ask) -> None:
        found = (await ask("GET", "/v1/sessions/g0")).json()
        assert (found["member_id"], found["session_id"]) == (None, "g0")
        times = [event["at"] for event in found["events"]]
        assert times == sorted(times)
        assert len(times) > 1
        assert all(event["session_id"] == "g0" and event["known"] for event in found["events"])
        of_member = (await ask("GET", "/v1/sessions/any", params={"member_id": "m1"})).json()
        assert of_member["freshness"]["last_event_id"] == of_member["events"][-1]["event_id"]
        told = (
            await ask("POST", "/v1/intent", json={"session_id": "any", "member_id": "m1", "explain": "stages"})
        ).json()
        assert of_member["signals"] == told["signals"]
        assert (await ask("GET", "/v1/sessions/nobody")).json()["events"] == []

    with closing(place.open()) as service:
        talk(service, run)
        assert service._sessions.read("guest:nobody", limit=5)[0] == []
