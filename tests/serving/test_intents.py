"""What a member is here for, in both answers: on fakes, in one process and through HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import ValidationError

from foretaste.contracts.decisions import Fallback
from foretaste.contracts.intents import ACTION_CLASSES, SEARCH_CLASSES, LabelConfig
from foretaste.contracts.segments import PUBLISHED, Segments
from foretaste.contracts.wire import IntentAnswer, IntentRequest
from foretaste.ops.files import write_json
from foretaste.serving.explain import WORDS, in_words
from foretaste.serving.ingress import build_app
from foretaste.serving.recommender import Recommender
from foretaste.serving.segments import PublishedSegments
from foretaste.signals.served import decode
from foretaste.surfaces.page import layout


def ask(bench: Any, *, on: Recommender | None = None, **request: Any) -> IntentAnswer:
    body = {"member_id": "m1", "session_id": "s1"} | request
    found = (on or bench.recommender()).intents(IntentRequest.model_validate(body))
    assert isinstance(found, IntentAnswer)
    return found


def test_both_answers_tell_the_same_of_a_member(bench: Any) -> None:
    bench.act("play", "t00")
    told, listed = ask(bench), bench.ask()
    assert told.model == "intent-1"
    assert told.intents is not None
    assert told.attention == {"action": 0.25, "genre": 0.75}
    assert told.intents | {"attention": told.attention} == listed.intent
    assert (told.top_intent, told.layout, told.freshness) == (listed.top_intent, listed.layout, listed.freshness)
    assert [(one.head, one.name, one.attention) for one in told.top] == [
        ("genre", "comedy", 0.75),
        ("action", "discover", 0.25),
    ]
    assert told.top_intent == "wants comedy (80%)"
    assert (told.segment, told.stages, told.fallback.used) == (None, None, False)


def test_the_hint_is_the_larger_of_both_sides_and_null_where_the_action_head_is_off(bench: Any) -> None:
    found = ask(bench).layout
    assert found is not None
    assert found.probability == pytest.approx(0.5)  # the fake gives both sides one half
    predict = bench.intent.predict

    def without_action(*values: Any) -> Any:
        said = predict(*values)
        genre = {"genre": said.intents["genre"]}
        return replace(said, intents=genre, heads=("genre",), attention_BI=np.ones((1, 1), dtype=np.float32))

    bench.intent.predict = without_action
    for answer in (ask(bench), bench.ask()):
        assert answer.layout is None
        assert answer.top_intent is not None


def test_a_guest_a_stranger_and_an_empty_history_are_answered(bench: Any) -> None:
    bench.act("play", "t00", member_id=None)
    guest = ask(bench, member_id=None)
    assert guest.freshness.last_event_id == "e1"
    assert guest.intents is not None
    assert guest.intents["genre"]["comedy"] > guest.intents["genre"]["drama"]
    stranger = ask(bench, member_id="nobody", session_id="elsewhere")
    assert stranger.freshness.last_event_id is None
    assert stranger.intents is not None
    assert stranger.intents["genre"] == {"comedy": 0.5, "drama": 0.5}


def test_asking_logs_nothing(bench: Any) -> None:
    ask(bench, context={"page": "home"})
    assert bench.decisions.read().num_rows == 0
    assert bench.sessions.read("m1", limit=10) == ([], 0)


@pytest.mark.parametrize("how", ["no model", "raises", "not finite", "late"])
def test_without_a_prediction_the_answer_says_why(bench: Any, how: str) -> None:
    class Slow:
        def read(self, *values: Any, **named: Any) -> Any:
            bench.clock.seconds += 0.4
            return bench.sessions.read(*values, **named)

    bench.intent.failure = RuntimeError("broken") if how == "raises" else None
    bench.intent.spoiled = how == "not finite"
    why = {"no model": Fallback.NO_MODEL, "late": Fallback.INTENT_LATE}.get(how, Fallback.INTENT_FAILED)
    without = {"intent": None, "intent_fingerprint": None} if how == "no model" else {}
    found = ask(bench, on=bench.recommender(sessions=Slow() if how == "late" else None, **without))
    assert (found.fallback.used, found.fallback.reason) == (True, why)
    assert (found.intents, found.attention, found.top, found.layout, found.top_intent) == (None, None, [], None, None)


def test_when_the_session_log_fails_the_answer_knows_nothing_and_says_so(bench: Any) -> None:
    class Broken:
        def read(self, *_: object, **__: object) -> None:
            raise OSError("disk gone")

    found = ask(bench, on=bench.recommender(sessions=Broken()))
    assert found.fallback.reason is Fallback.FEATURES_FAILED
    assert found.freshness.stale == ["session_log"]
    assert found.intents is not None


def test_stages_and_signals_are_told_when_asked(bench: Any) -> None:
    bench.act("play", "t02")
    found = ask(bench, explain="stages")
    assert [(stage.stage, stage.num_out) for stage in found.stages or []] == [("session_log", 1), ("intent", 2)]
    assert found.signals == bench.ask(explain="stages").signals


def test_what_an_answer_adds_follows_from_what_its_decision_logs(bench: Any) -> None:
    """The replay compares the logged heads bit for bit; the hint is a function of them, so it is made again, too."""
    bench.act("play", "t00")
    recommender = bench.recommender()
    recommender._config = recommender._config.model_copy(update={"audit_share": 1.0})
    answer = bench.ask(on=recommender)
    served = decode(bench.decisions.get(answer.decision_id)["served"])
    classes = {"action": tuple(answer.intent["action"])}
    again = layout({"action": served["intent.action"][None]}, classes)
    assert again is not None
    assert (again.hint, again.probability) == (answer.layout.hint, answer.layout.probability)
    assert served["intent.attention"].tolist() == list(answer.intent["attention"].values())


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return tmp_path / "intents" / "segments.json"


def publish(bench: Any, file: Path, *, model: str = "intent-1", width: int = 2) -> None:
    centres = tuple(tuple(float(row == column) for column in range(width)) for row in range(2))
    value = Segments(model=model, as_of=bench.clock.now, labels=("comedy", "drama"), centres=centres)
    write_json({PUBLISHED: value.model_dump(mode="json")}, file)


def test_a_segment_is_told_once_it_is_published_for_the_model_that_is_served(bench: Any, published: Path) -> None:
    segments = PublishedSegments(published, "intent-1")
    recommender = bench.recommender()
    bench.put(recommender, segments=segments)
    bench.act("play", "t00")
    assert ask(bench, on=recommender).segment is None
    publish(bench, published)
    segments.refresh_if_new()
    found = ask(bench, on=recommender).segment
    assert found is not None
    assert (found.number, found.label) == (0, "comedy")
    assert found.distance == pytest.approx(np.hypot(0.2, 0.2), abs=1e-6)
    published.write_text("{")
    segments.refresh_if_new()
    assert ask(bench, on=recommender).segment == found  # those of before stay
    publish(bench, published, width=3)
    segments.refresh_if_new()
    assert ask(bench, on=recommender).segment is None
    publish(bench, published, model="another")
    segments.refresh_if_new()
    assert ask(bench, on=recommender).segment is None


def test_housekeeping_reads_what_was_published_since(bench: Any, published: Path) -> None:
    service = bench.service()
    bench.put(service._recommender, segments=PublishedSegments(published, "intent-1"))
    publish(bench, published)
    service.housekeep()
    found = service.intents(IntentRequest(member_id="m1", session_id="s1")).segment
    assert found is not None
    assert found.as_of == bench.clock.now


def test_over_http_it_is_a_read_with_problems_that_name_the_field(bench: Any) -> None:
    async def run() -> None:
        transport = httpx.ASGITransport(app=build_app(bench.service(), max_body_bytes=10_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            good = await client.post("/v1/intent", json={"session_id": "s1", "context": {"page": "home"}})
            assert IntentAnswer.model_validate_json(good.content).top_intent is not None
            bad = await client.post("/v1/intent", json={"session_id": "s1", "explain": "items"})
            assert (bad.status_code, bad.headers["content-type"]) == (422, "application/problem+json")
            assert bad.json()["errors"][0]["field"] == "explain"
            body = (await client.get("/openapi.json")).json()["paths"]["/v1/intent"]["post"]
            assert set(body["responses"]) == {"200", "400", "413", "414", "422", "429", "431", "503"}

    asyncio.run(run())


@pytest.mark.parametrize("change", [{"session_id": None}, {"member_id": "guest:x"}, {"k": 3}, {"context": {"a": []}}])
def test_a_request_with_a_bad_field_is_refused_by_that_field(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        IntentRequest.model_validate({"session_id": "s1"} | change)
    assert {str(error["loc"][0]) for error in caught.value.errors()} == set(change)


def test_every_class_of_action_and_search_has_words() -> None:
    assert set(ACTION_CLASSES) | set(SEARCH_CLASSES) == set(WORDS)
    labels = LabelConfig(recency_days={"fresh": 3, "season": 90})
    assert in_words("recency", "fresh", 0.5, labels) == "wants a title of the last 3 days (50%)"
    assert in_words("recency", "older", 0.5, labels) == "wants a title older than 90 days (50%)"
    assert in_words("kind", "movie", 0.5, labels) == "wants a title of kind movie (50%)"
