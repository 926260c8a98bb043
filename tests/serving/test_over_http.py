"""The service over real HTTP, under uvicorn and on Ray Serve, and what is left of it after kill -9."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from foretaste.contracts.wire import IntentAnswer, RecommendAnswer
from foretaste.feedback.sqlite_session_log import SqliteSessionLog
from foretaste.jobs.parity import parity
from foretaste.jobs.settings import Settings
from foretaste.sessions.spread import here
from foretaste.testing.bundles import file_intent, file_ranker
from foretaste.testing.fakes import two_genre_titles
from foretaste.testing.keys import key_headers

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")  # of ray.serve's own schema

UVICORN = """
import sys
from pathlib import Path
import uvicorn
from foretaste.serving.app import open_app
from foretaste.serving.config import ServiceConfig
app = open_app(ServiceConfig(workspace=Path(sys.argv[1]), features_repo=Path("features")))
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def until(holds: Callable[[], bool], *, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"did not hold within {seconds} s"
        time.sleep(0.1)


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def events(prefix: str, count: int = 5, **more: Any) -> list[dict[str, Any]]:
    start = datetime.now(UTC) - timedelta(seconds=60)
    return [
        {
            "event_id": f"{prefix}-{number}",
            "member_id": "m1",
            "session_id": "s1",
            "at": (start + timedelta(seconds=number)).isoformat(),
            "action": "play",
            "title_id": f"t{2 * number:02d}",
        }
        | more
        for number in range(count)
    ]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    now = datetime.now(UTC)
    intent = file_intent(tmp_path / "registry", two_genre_titles(), at=now)
    file_ranker(tmp_path / "registry", intent=intent.fingerprint, at=now)
    return tmp_path


@contextlib.contextmanager
def uvicorn(workspace: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", UVICORN, str(workspace), str(port)])
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=60)


def assert_stored_once(workspace: Path, wanted: set[str]) -> None:
    with closing(SqliteSessionLog(workspace / "serving" / "sessions.db")) as log:
        rows, _ = log.read("m1", limit=1_000)
    found = [row["event_id"] for row in rows]
    assert len(found) == len(set(found)) == len({row["sequence"] for row in rows})
    assert set(found) == wanted


def assert_intents_are_read(client: httpx.Client, recommended: RecommendAnswer) -> None:
    """What /v1/intent tells is what the list was made with, for a member; a guest and a stranger are told, too."""
    found = IntentAnswer.model_validate_json(
        client.post("/v1/intent", json={"member_id": "m1", "session_id": "s1"}).content
    )
    assert found.intents is not None
    assert found.attention is not None
    assert recommended.intent is not None
    for head, shares in found.intents.items():
        assert shares == pytest.approx(recommended.intent[head], abs=1e-4)  # a little later, so not to the bit
    assert found.freshness.last_event_id == recommended.freshness.last_event_id
    for who in ({}, {"member_id": "nobody"}):
        told = client.post("/v1/intent", json={"session_id": "s0", "explain": "stages"} | who).json()
        assert sum(told["attention"].values()) == pytest.approx(1, abs=1e-5)
        assert (told["freshness"]["last_event_id"], told["segment"]) == (None, None)
        assert [stage["stage"] for stage in told["stages"]] == ["session_log", "intent"]
    refused = client.post("/v1/intent", json={"session_id": "s1", "k": 3})
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")


def assert_the_whole_way(client: httpx.Client) -> None:
    """Events, an answer that used them, its decision, errors that name the field, health."""
    before = client.post("/v1/recommend", json={"member_id": "m1", "session_id": "s1", "policy": "greedy"})
    assert RecommendAnswer.model_validate_json(before.content).freshness.last_event_id is None
    sent = events("a")
    answer = client.post("/v1/events", json={"events": [*sent, {"event_id": "bad"}]}).json()
    assert (answer["accepted"], answer["duplicate"]) == (5, 0)
    assert [rejected["index"] for rejected in answer["rejected"]] == [5]
    again = client.post("/v1/events", json={"events": sent}).json()
    assert (again["accepted"], again["duplicate"]) == (0, 5)
    reply = client.post("/v1/recommend", json={"member_id": "m1", "session_id": "s1", "explain": "items"})
    found = RecommendAnswer.model_validate_json(reply.content)
    assert found.freshness.last_event_id == "a-4"
    assert len(found.items) == 10
    assert found.intent is not None
    assert sum(found.intent["genre"].values()) == pytest.approx(1, abs=1e-5)
    assert_intents_are_read(client, found)
    decision = client.get(f"/v1/decisions/{found.decision_id}").json()
    assert [item["title_id"] for item in decision["items"]] == [item.title_id for item in found.items]
    assert decision["num_events_visible"] == 5
    assert decision["request"]["member_id"] == "m1"
    refused = client.post("/v1/recommend", json={"session_id": "s1", "colour": "red"}, headers={"x-request-id": "r1"})
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["x-request-id"] == "r1"
    assert refused.json()["errors"][0]["field"] == "colour"
    assert client.post("/v1/recommend", content=b"x" * 2_000_000).status_code == 413
    assert client.post("/v1/recommend", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    unknown = client.post("/v1/recommend", json={"session_id": "s1"}, headers={"x-api-key": "ft_1_2"})
    assert (unknown.status_code, unknown.headers["content-type"]) == (401, "application/problem+json")
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json()["degraded"] == []
    assert "/v1/recommend" in client.get("/openapi.json").json()["paths"]


@pytest.mark.slow
def test_under_uvicorn_events_survive_kill_9_right_after_the_answer(workspace: Path) -> None:
    port = free_port()
    wanted = {f"a-{number}" for number in range(5)}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, headers=key_headers(workspace)) as client:
        with uvicorn(workspace, port) as process:
            until(lambda: ready(client))
            assert_the_whole_way(client)
            decision_id = client.post("/v1/recommend", json={"session_id": "s1"}).json()["decision_id"]
            for burst in range(20):
                sent = events(f"k{burst}")
                assert client.post("/v1/events", json={"events": sent}).json()["accepted"] == 5
                wanted |= {event["event_id"] for event in sent}
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert_stored_once(workspace, wanted)
        with uvicorn(workspace, port):
            until(lambda: ready(client))
            again = client.post("/v1/events", json={"events": events("k19")}).json()
            assert (again["accepted"], again["duplicate"]) == (0, 5)
            assert client.get(f"/v1/decisions/{decision_id}").json()["decision_id"] == decision_id
    assert_stored_once(workspace, wanted)
    left = {path.suffix for path in (workspace / "serving" / "decisions").iterdir()}
    assert left == {".parquet"}


@pytest.fixture
def served(local_ray: None, workspace: Path) -> Iterator[httpx.Client]:
    from ray import serve

    from foretaste.serving.graph import build

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serving = {"max_body_bytes": 1_000_000, "audit_share": 1.0}
    args = {"workspace": str(workspace), "features_repo": "features", "serving": serving}
    serve.run(build(args), name="foretaste-test", route_prefix="/")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, headers=key_headers(workspace)) as client:
        until(lambda: ready(client))
        yield client
    serve.delete("foretaste-test")
    serve.shutdown()


def replica() -> psutil.Process | None:
    """The replica's process, among those that this test run started."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::ServeRepl") or any("ServeReplica:fore" in p for p in process.cmdline()):
                return process
    return None


@pytest.mark.slow
@pytest.mark.cluster
def test_on_ray_serve_the_whole_way_and_events_survive_kill_9_of_the_replica(
    served: httpx.Client, workspace: Path
) -> None:
    assert_the_whole_way(served)
    wanted = {f"a-{number}" for number in range(5)}
    first = replica()
    assert first is not None
    sent = events("k")
    assert served.post("/v1/events", json={"events": sent}).json()["accepted"] == 5
    os.kill(first.pid, signal.SIGKILL)
    wanted |= {event["event_id"] for event in sent}
    until(lambda: (now := replica()) is not None and now.pid != first.pid)
    until(lambda: ready(served))
    assert_stored_once(workspace, wanted)
    again = served.post("/v1/events", json={"events": sent}).json()
    assert (again["accepted"], again["duplicate"]) == (0, 5)
    reply = served.post("/v1/recommend", json={"member_id": "m1", "session_id": "s1"}).json()
    assert reply["freshness"]["last_event_id"] in {"k-4", "a-4"}
    found = parity(Settings(workspace=workspace), spread=here)
    assert (found["decisions"], found["mismatches"], found["left_out"]) == (3, {}, {})


@pytest.mark.cluster
def test_arguments_that_the_service_does_not_know_are_refused() -> None:
    from pydantic import ValidationError

    from foretaste.serving.graph import build

    with pytest.raises(ValidationError, match="colour"):
        build({"workspace": "w", "features_repo": "f", "colour": "red"})
