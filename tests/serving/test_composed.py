"""Models in deployments of their own answer to the bit as in the chain's process; without them there is a list too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.wire import EventsRequest, RecommendRequest
from foretaste.contracts.wire_records import ReplayRequest
from foretaste.feedback.session_log import SessionLogConfig
from foretaste.serving.app import open_app
from foretaste.serving.budget import LateError
from foretaste.serving.composed import HandleLoop, Remote, RemotePredictor, stages_behind
from foretaste.serving.config import ServiceConfig, ServingConfig
from foretaste.serving.model_stages import IntentStage, Kept, RankerStage
from foretaste.serving.models import current_fingerprints, models_of
from foretaste.serving.nearest import NearestConfig
from foretaste.serving.service import Service, open_service
from foretaste.serving.topology import ComposedConfig, StageConfig, Topology
from foretaste.serving.tracing import Tracing, TracingConfig
from foretaste.testing.bundles import file_intent, file_ranker
from foretaste.testing.contract_recommender import one_history
from foretaste.testing.fakes import FakeClock, FakeViews, two_genre_titles
from foretaste.testing.keys import key_headers
from foretaste.testing.shop import Shop

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")  # of ray.serve's own schema

AT = datetime(2026, 1, 1, tzinfo=UTC)
VIEWS = FakeViews(catalogue(two_genre_titles()))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def until(holds: Callable[[], bool], *, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"did not hold within {seconds} s"
        time.sleep(0.1)


class QueueFullError(Exception):
    """What the fake handle raises for a full queue."""


class FakeHandle:
    """A deployment's handle, as far as it is used, that asks a stage in this process; `fault` comes in between."""

    def __init__(self, stage: Any) -> None:
        self.stage = stage
        self.fault: str | None = None
        self.num_asked = 0

    def __getattr__(self, name: str) -> Any:
        handle = self

        class Method:
            async def remote(self, *args: Any, **named: Any) -> Any:
                handle.num_asked += 1
                if handle.fault == "slow":
                    await asyncio.sleep(60)
                if handle.fault == "dead":
                    raise ConnectionError("the replica died")
                if handle.fault == "full":
                    raise QueueFullError
                return await getattr(handle.stage, name)(*args, **named)

        return Method()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    intent = file_intent(tmp_path / "w" / "registry", two_genre_titles(), at=AT)
    file_ranker(tmp_path / "w" / "registry", intent=intent.fingerprint, at=AT, by_dice=True)
    return tmp_path / "w"


def config_of(workspace: Path, topology: Topology, **serving: Any) -> ServiceConfig:
    log = SessionLogConfig(durable=False, window_days=30.0)
    values = {"audit_share": 1.0, "epsilon": 0.5, "budget_ms": 60_000.0, "session_log": log, "topology": topology}
    return ServiceConfig(
        workspace=workspace, features_repo=Path("features"), serving=ServingConfig(**(values | serving))
    )


class Composed:
    """A service whose stages are in this process, behind fake handles."""

    def __init__(self, workspace: Path, clock: FakeClock, *, source: FakeViews | None = VIEWS, **serving: Any) -> None:
        config = config_of(workspace, Topology.COMPOSED, **serving)
        values = config.model_dump(mode="json")
        self.handles = {"intent": FakeHandle(IntentStage(values)), "ranker": FakeHandle(RankerStage(values))}
        self.loop = HandleLoop()
        there = stages_behind(self.handles, config, loop=self.loop, busy=(QueueFullError,))
        self.service = open_service(config, source=source, clock=clock, parts=there, replay_parts=there.patient(30))

    def close(self) -> None:
        self.service.close()
        self.loop.close()


def fused(workspace: Path, clock: FakeClock, *, source: FakeViews | None = VIEWS, **serving: Any) -> Service:
    return open_service(config_of(workspace, Topology.FUSED, **serving), source=source, clock=clock)


def act(service: Service, number: int, clock: FakeClock) -> None:
    event = {
        "event_id": f"e{number}",
        "member_id": f"m{number % 3}",
        "session_id": "s",
        "at": clock.now.isoformat(),
        "action": ("play", "detail", "thumb_up")[number % 3],
        "title_id": f"t{7 * number % 40:02d}",
    }
    assert service.accept(EventsRequest(events=[event])).accepted == 1


def answers_of(service: Service, clock: FakeClock) -> list[tuple[Any, ...]]:
    """What a fixed lot of requests is answered, with dice that fall as they do each time."""
    service._recommender._seeds = iter(range(1000)).__next__
    told = []
    for number in range(30):
        act(service, number, clock)
        clock.move(seconds=20)
        policy = "greedy" if number % 2 else "epsilon_greedy"
        request = {"member_id": f"m{number % 4}", "session_id": "s", "policy": policy, "k": 8}
        found = service.recommend(RecommendRequest.model_validate(request))
        assert not found.fallback.used, found.fallback
        told.append(
            (
                [(item.title_id, item.score, item.propensity, item.source) for item in found.items],
                found.intent,
                None if found.policy is None else found.policy.explored,
            )
        )
    return told


@pytest.mark.parametrize("exact_up_to", [200_000, 10])
def test_answers_are_those_of_the_fused_topology_to_the_bit(workspace: Path, tmp_path: Path, exact_up_to: int) -> None:
    other, nearest = shutil.copytree(workspace, tmp_path / "other"), NearestConfig(exact_up_to_titles=exact_up_to)
    clock = FakeClock()
    with closing(fused(workspace, clock, nearest=nearest)) as service:
        wanted = answers_of(service, clock)
    clock = FakeClock()
    with closing(Composed(other, clock, nearest=nearest)) as composed:
        found = answers_of(composed.service, clock)
        assert composed.handles["intent"].num_asked >= 30
        assert composed.handles["ranker"].num_asked >= 30
    assert found == wanted
    assert any(explored for _, _, explored in found)
    assert len({items[0] for items, _, _ in found}) > 5


def test_a_decision_of_one_topology_is_made_again_by_the_other_and_by_itself(workspace: Path) -> None:
    clock = FakeClock()
    with closing(Composed(workspace, clock, source=None)) as composed:
        for number in range(12):
            act(composed.service, number, clock)
            clock.move(seconds=20)
        asked = [RecommendRequest(member_id=f"m{number}", session_id="s") for number in range(3)]
        decisions = [str(composed.service.recommend(one).decision_id) for one in asked]
        for decision_id in decisions:
            again = composed.service.replay(decision_id, ReplayRequest())
            assert again is not None
            assert again.identical, again.differences
    with closing(fused(workspace, clock, source=None)) as service:
        for decision_id in decisions:
            again = service.replay(decision_id, ReplayRequest())
            assert again is not None
            assert again.identical, again.differences


@pytest.mark.parametrize(
    ("stage", "fault", "reason", "source"),
    [
        ("intent", "slow", "intent_late", "popular"),
        ("intent", "full", "intent_late", "popular"),
        ("intent", "dead", "intent_failed", "popular"),
        ("ranker", "slow", "ranker_late", "intent"),
        ("ranker", "full", "ranker_late", "intent"),
        ("ranker", "dead", "ranker_failed", "intent"),
    ],
)
def test_a_stage_that_does_not_answer_gives_a_list_with_its_reason(
    workspace: Path, stage: str, fault: str, reason: str, source: str
) -> None:
    clock = FakeClock()
    asked = RecommendRequest(member_id="m1", session_id="s", policy="greedy")
    with closing(Composed(workspace, clock, budget_ms=1_000.0)) as composed:
        assert not composed.service.recommend(asked).fallback.used
        composed.handles[stage].fault = fault
        found = composed.service.recommend(asked)
        assert (found.fallback.used, found.fallback.reason) == (True, reason)
        assert len(found.items) == 10
        assert {item.source for item in found.items} == {source}
        composed.handles[stage].fault = None
        assert not composed.service.recommend(asked).fallback.used


def test_a_trace_goes_on_in_the_stages_and_a_request_that_is_not_traced_leaves_nothing_there(workspace: Path) -> None:
    def spans() -> tuple[Tracing, InMemorySpanExporter]:
        kept = InMemorySpanExporter()
        return Tracing(TracingConfig(share=1.0), SimpleSpanProcessor(kept)), kept

    tracing, here = spans()
    there, elsewhere = spans()
    asked = RecommendRequest(member_id="m1", session_id="s", policy="greedy")
    with closing(Composed(workspace, FakeClock())) as composed:
        for handle in composed.handles.values():
            handle.stage._tracing = there
        assert not composed.service.recommend(asked).fallback.used
        assert elsewhere.get_finished_spans() == ()
        with tracing.request({"type": "http", "method": "POST", "headers": []}):
            assert not composed.service.recommend(asked).fallback.used
    (root,) = [span for span in here.get_finished_spans() if span.kind.name == "SERVER"]
    found = {span.name: span for span in elsewhere.get_finished_spans()}
    assert set(found) == {"stage intent", "stage ranker"}
    for span in found.values():
        assert span.context.trace_id == root.context.trace_id
        assert span.parent is not None
        assert span.parent.span_id == root.context.span_id
        assert (span.attributes or {})["foretaste.model"]


@pytest.mark.parametrize("exact_up_to", [200_000, 10])
def test_a_release_is_exchanged_while_it_serves_and_taken_back(tmp_path: Path, exact_up_to: int) -> None:
    shop, nearest = Shop(tmp_path), NearestConfig(exact_up_to_titles=exact_up_to)
    old, new = shop.release(1), shop.release(2)
    shop.promote(old)

    def lists(service: Service) -> list[tuple[str, ...]]:
        found = []
        for release in (old, new, old):
            shop.promote(release)
            service.housekeep()
            assert service.ready()["release"] == release
            answer = shop.ask(service, dry_run=True)
            assert {item.source for item in answer.items} == {"ranker"}
            found.append(tuple(item.title_id for item in answer.items))
        return found

    with closing(Composed(tmp_path, shop.clock, source=None, nearest=nearest)) as composed:
        found = lists(composed.service)
    with closing(shop.open(nearest=nearest)) as service:
        assert lists(service) == found
    assert found[0] == found[2] != found[1]


def test_a_question_that_is_given_up_is_a_late_one() -> None:
    class Slow:
        async def predict(self, *_: Any) -> None:
            raise AssertionError("nobody gets so far")

    handle, loop = FakeHandle(Slow()), HandleLoop()
    handle.fault = "slow"
    remote = Remote("intent", handle, loop, seconds=0.05)
    with pytest.raises(LateError, match=r"intent: its deployment had no answer after 0\.050 s"):
        remote.ask("predict")
    handle.fault = "dead"
    with pytest.raises(ConnectionError, match="the replica died"):
        remote.patient(5).ask("predict")
    loop.close()


def test_a_stage_answers_by_the_model_that_is_named_whatever_is_current(workspace: Path) -> None:
    registry = workspace / "registry"
    first, _ = current_fingerprints(registry)
    assert first is not None
    second = file_intent(registry, two_genre_titles(), at=AT, seed=1)
    values = config_of(workspace, Topology.COMPOSED).model_dump(mode="json")
    loop = HandleLoop()
    remote = Remote("intent", FakeHandle(IntentStage(values)), loop, seconds=30)
    wanted, history = {}, (one_history([1, 2, 3]), np.array([10**15], dtype=np.int64))
    for fingerprint in (first, second.fingerprint):
        model = models_of(registry, registry, intent=fingerprint, ranker=None).intent
        assert model is not None
        wanted[fingerprint] = model.predict(*history).scores_BN
        there = RemotePredictor(remote, fingerprint, model.title_N1D, steady=model.steady)
        np.testing.assert_array_equal(there.predict(*history).scores_BN, wanted[fingerprint])
    assert (wanted[first] != wanted[second.fingerprint]).any()
    with pytest.raises(FileNotFoundError):
        remote.ask("predict", "no-such-model", True, *history)
    loop.close()


def test_the_newest_few_models_are_kept() -> None:
    loaded: list[str] = []

    def load(name: str) -> str:
        loaded.append(name)
        if name == "bad":
            raise ValueError("cannot be loaded")
        return name

    kept = Kept(load, size=2)
    assert [kept.get(name) for name in "abab"] == list("abab")
    assert kept.get("c") == "c"
    assert kept.get("b") == "b"
    assert loaded == ["a", "b", "c"]
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot be loaded"):
            kept.get("bad")
    assert kept.get("a") == "a"
    assert loaded == ["a", "b", "c", "bad", "bad", "a"]


def test_the_resources_of_a_stage_are_those_that_ray_serve_is_told() -> None:
    assert StageConfig(num_replicas=2, num_gpus=0.5, num_cpus=1).options == {
        "num_replicas": 2,
        "max_ongoing_requests": 64,
        "ray_actor_options": {"num_cpus": 1.0, "num_gpus": 0.5},
    }
    scaled = StageConfig(num_replicas=1, max_replicas=4, target_ongoing_requests=8).options
    assert scaled["autoscaling_config"] == {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 8.0}
    assert "num_replicas" not in scaled
    with pytest.raises(ValueError, match="max_replicas: 2 is below num_replicas, 3"):
        StageConfig(num_replicas=3, max_replicas=2)


def test_one_process_does_not_pretend_to_be_composed(workspace: Path) -> None:
    with pytest.raises(ValueError, match=r"serving\.topology: composed is run by foretaste\.serving\.graph"):
        open_app(config_of(workspace, Topology.COMPOSED))


def by_ranker(answer: dict[str, Any]) -> bool:
    return {item["source"] for item in answer["items"]} == {"ranker"}


def stage_process(name: str) -> psutil.Process | None:
    """The process of a stage's replica, among those that this test run started."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(f"ServeReplica:foretaste-composed:{name}" in part for part in process.cmdline()):
                return process
    return None


@pytest.fixture
def served(local_ray: None, workspace: Path) -> Iterator[httpx.Client]:
    from ray import serve

    from foretaste.serving.graph import build

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    stages = ComposedConfig(intent=StageConfig(num_cpus=0.4, max_replicas=1), ranker=StageConfig(num_cpus=0.4))
    config = config_of(workspace, Topology.COMPOSED, budget_ms=2_000.0, composed=stages)
    serve.run(build(config.model_dump(mode="json")), name="foretaste-composed", route_prefix="/")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, headers=key_headers(workspace)) as client:
        yield client
    serve.delete("foretaste-composed")
    serve.shutdown()


@pytest.mark.slow
@pytest.mark.cluster
def test_on_ray_serve_a_killed_stage_costs_no_list(served: httpx.Client) -> None:
    asked = {"member_id": "m1", "session_id": "s1", "policy": "greedy"}

    def answer() -> dict[str, Any]:
        reply = served.post("/v1/recommend", json=asked)
        assert reply.status_code == 200, reply.text
        assert len(reply.json()["items"]) == 10
        found: dict[str, Any] = reply.json()
        return found

    until(lambda: by_ranker(answer()))
    whole = answer()
    again = served.post(f"/v1/decisions/{whole['decision_id']}/replay").json()
    assert again["identical"], again
    without: list[dict[str, Any]] = []

    def falls_back() -> bool:
        without.append(answer())
        return not by_ranker(without[-1])

    for stage, source in (("ranker", "intent"), ("intent", "popular")):
        process = stage_process(stage)
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        until(falls_back)
        assert without[-1]["fallback"]["reason"] in {f"{stage}_failed", f"{stage}_late"}
        assert {item["source"] for item in without[-1]["items"]} == {source}
        until(lambda: by_ranker(answer()))
    last = answer()
    assert [item["title_id"] for item in last["items"]] == [item["title_id"] for item in whole["items"]]
