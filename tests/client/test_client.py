"""The client tells everything once the network is back, waits its turn, and never shows an old list."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from foretaste.client.calls import CallError
from foretaste.client.client import Client, ClientConfig
from foretaste.client.spool import Spool

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
Answer = httpx.Response | Exception


class Network:
    """A service behind a network that does what it is told: answers of `broken` come first, one a call."""

    def __init__(self) -> None:
        self.broken: list[Callable[[], Answer]] = []
        self.stored: dict[str, dict[str, Any]] = {}
        self.acks: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.sizes: list[int] = []
        self.num_lists = 0
        self.too_many = 1_000

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request.url.path)
        body = json.loads(request.content)
        lost = self.broken.pop(0)() if self.broken else None
        if isinstance(lost, Exception):
            raise lost
        if lost is not None and lost.status_code != 599:
            return lost
        answer = self.answer(request.url.path, body)
        if lost is not None:  # it was done, and the answer got lost
            raise httpx.ReadTimeout("lost")
        return answer

    def answer(self, path: str, body: dict[str, Any]) -> httpx.Response:
        if path == "/v1/events":
            self.sizes.append(len(body["events"]))
            if len(body["events"]) > self.too_many:
                return httpx.Response(413, json={})
            bad = [i for i, event in enumerate(body["events"]) if event.get("action") == "bad"]
            self.stored |= {event["event_id"]: event for i, event in enumerate(body["events"]) if i not in bad}
            rejected = [{"index": i, "code": "invalid", "message": "action"} for i in bad]
            return httpx.Response(200, json={"accepted": len(body["events"]), "duplicate": 0, "rejected": rejected})
        if path.endswith("/ack"):
            self.acks.append(body | {"decision_id": path.split("/")[3]})
            return httpx.Response(200, json={})
        self.num_lists += 1
        items = [{"title_id": f"t{len(self.stored)}"}, {"title_id": "t"}]
        return httpx.Response(200, json={"decision_id": f"d{self.num_lists}", "items": items})


def fails() -> Answer:
    return httpx.ConnectError("nobody there")


def says(status: int, **headers: str) -> Callable[[], Answer]:
    return lambda: httpx.Response(status, json={}, headers=headers)


@pytest.fixture
def network() -> Network:
    return Network()


class Time:
    """A timer that sleeping moves."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


def client(network: Network, time: Time | None = None, *, spool: Path | None = None, **config: Any) -> Client:
    time = time or Time()
    return Client(
        "http://test",
        key="k",
        spool=spool,
        config=ClientConfig(**config),
        background=False,
        transport=httpx.MockTransport(network),
        clock=lambda: NOW,
        timer=lambda: time.seconds,
        sleep=time.sleep,
        dice=random.Random(0).random,
    )


def test_events_go_in_batches_in_order_with_ids_and_times(network: Network) -> None:
    with client(network, batch_events=4) as one:
        ids = [one.record({"member_id": "m1", "action": "play", "title_id": f"t{n}"}) for n in range(10)]
        assert (network.calls, one.num_waiting) == ([], 10)
        assert one.flush(5)
    assert network.sizes == [4, 4, 2]
    assert list(network.stored) == ids
    assert len(set(ids)) == 10
    assert {event["at"] for event in network.stored.values()} == {"2026-01-02T03:04:05Z"}


def test_what_an_event_says_of_itself_is_kept(network: Network) -> None:
    with client(network) as one:
        assert one.record({"event_id": "e1", "at": 1_767_323_045_000}) == "e1"
    assert network.stored["e1"]["at"] == 1_767_323_045_000


@pytest.mark.parametrize("lost", [fails, says(500), says(503), says(429), says(401), says(599), says(408)])
def test_after_any_passing_failure_everything_is_told_under_the_same_ids(
    network: Network, lost: Callable[[], Answer]
) -> None:
    with client(network, longest_wait_seconds=1.0) as one:
        ids = [one.record({"action": "play"}) for _ in range(3)]
        network.broken = [lost] * 5
        assert one.flush(100)
        assert list(network.stored) == ids
        assert len(network.calls) == 6
        assert one.num_waiting == one.num_refused == 0


def test_waits_are_drawn_below_a_bound_that_doubles_and_heed_retry_after(network: Network) -> None:
    time = Time()
    with client(network, time, first_wait_seconds=1.0, longest_wait_seconds=8.0) as one:
        one.record({"action": "play"})
        network.broken = [fails] * 8
        assert one.flush(1_000)
        bounds = [1, 2, 4, 8, 8, 8, 8, 8]
        assert all(0 < wait <= bound for wait, bound in zip(time.slept, bounds, strict=True))
        assert len(set(time.slept)) == 8
        time.slept.clear()
        one.record({"action": "play"})
        network.broken = [says(429, **{"retry-after": "17"})]
        one.flush(1_000)
        assert time.slept == [17.0]


def test_a_flush_ends_in_time_and_what_is_left_waits(network: Network) -> None:
    time = Time()
    with client(network, time, first_wait_seconds=1.0) as one:
        one.record({"action": "play"})
        network.broken = [fails] * 100
        assert not one.flush(3.0)
        assert time.seconds <= 3.0
        assert one.num_waiting == 1
        network.broken = []


def test_what_waits_outlives_the_program(network: Network, tmp_path: Path) -> None:
    spool = tmp_path / "folder" / "spool.db"
    network.broken = [fails] * 100
    with client(network, spool=spool) as one:
        ids = [one.record({"action": "play"}) for _ in range(3)]
    network.broken = []
    with client(network, spool=spool) as other:
        assert other.num_waiting == 3
    assert list(network.stored) == ids


def test_a_spool_that_is_full_loses_the_oldest_and_says_how_many(network: Network) -> None:
    with client(network, most_waiting=5) as one:
        ids = [one.record({"action": "play"}) for _ in range(8)]
        assert (one.num_waiting, one.num_dropped) == (5, 3)
    assert list(network.stored) == ids[3:]


def test_what_will_never_be_taken_holds_up_nothing(network: Network) -> None:
    network.too_many = 3
    with client(network) as one:
        for number in range(8):
            one.record({"action": "bad" if number == 4 else "play"})
        assert one.flush(10)
        assert (len(network.stored), one.num_refused) == (7, 1)
        network.broken = [says(422)]
        one.record({"action": "play"})
        assert one.flush(10)
        assert (len(network.stored), one.num_refused) == (7, 2)
    with pytest.raises(ValueError):
        Spool(None, most=1).add("event", {"a": float("nan")})
    with pytest.raises(ValueError):
        Spool(None, most=1).add("event", {"a": "\ud800"})


def test_a_list_is_asked_for_after_what_was_recorded_and_anew_each_time(network: Network) -> None:
    with client(network) as one:
        one.record({"action": "play"})
        first = one.recommend(member_id="m1", session_id="s1")
        second = one.recommend(member_id="m1", session_id="s1")
    assert network.calls == ["/v1/events", "/v1/recommend", "/v1/recommend"]
    assert (first.title_ids, first.decision_id, second.decision_id) == (("t1", "t"), "d1", "d2")


def test_a_list_is_tried_again_and_then_there_is_none_rather_than_an_old_one(network: Network) -> None:
    with client(network) as one:
        assert one.recommend(session_id="s1").decision_id == "d1"
        network.broken = [fails]
        assert one.recommend(session_id="s1").decision_id == "d2"
        network.broken = [fails, says(503)]
        with pytest.raises(ConnectionError, match="503"):
            one.recommend(session_id="s1")
        network.broken = [says(422)]
        with pytest.raises(CallError, match="422") as refused:
            one.recommend(session_id="s1")
        assert (refused.value.status, refused.value.passes) == (422, False)
        assert network.num_lists == 2


def test_a_list_does_not_wait_for_long_for_events_that_cannot_be_told(network: Network) -> None:
    time = Time()
    with client(network, time, flush_seconds=0.5, first_wait_seconds=10.0) as one:
        one.record({"action": "play"})
        network.broken = [fails]
        assert one.recommend(session_id="s1").decision_id == "d1"
        assert time.seconds <= 0.5
        assert one.num_waiting == 1


def test_what_was_shown_is_told_until_the_service_knows(network: Network) -> None:
    with client(network) as one:
        listing = one.recommend(session_id="s1")
        one.shown(listing, listing.title_ids[:1])
        one.record({"action": "play"})
        network.broken = [fails, says(599)]
        assert one.flush(60)
    assert network.acks == [{"decision_id": "d1", "shown": ["t0"], "at": "2026-01-02T03:04:05Z"}] * 2
    assert len(network.stored) == 1


def test_in_the_background_everything_is_told_without_being_asked(network: Network) -> None:
    transport = httpx.MockTransport(network)
    config = ClientConfig(interval_seconds=0.01, first_wait_seconds=0.01)
    network.broken = [fails] * 3
    with Client("http://test", config=config, transport=transport) as one:
        for _ in range(20):
            one.record({"action": "play"})
    assert len(network.stored) == 20
