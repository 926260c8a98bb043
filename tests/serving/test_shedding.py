"""What there is no room for is refused at once; what is taken is answered in time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import httpx
import pytest

from foretaste.serving.ingress import build_app
from foretaste.serving.shedding import Admission, Shed, SheddingConfig, ShedError
from foretaste.serving.watch import Watch
from foretaste.testing.fakes import FakeClock

CONFIG = SheddingConfig(in_flight=1, waiting=3, target_ms=10.0, burst_ms=50.0)


def run(talk: Coroutine[Any, Any, None]) -> None:
    asyncio.run(talk)


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def reasons(tasks: list[asyncio.Task[None]]) -> list[Shed | None]:
    """Why each was refused; None for the admitted."""
    found: list[Shed | None] = []
    for task in tasks:
        error = task.exception() if task.done() else None
        found.append(error.reason if isinstance(error, ShedError) else None)
    return found


def test_more_than_may_wait_are_refused_on_arrival() -> None:
    async def talk() -> None:
        admission = Admission(CONFIG, timer=FakeClock().timer)
        tasks = [asyncio.create_task(admission.enter()) for _ in range(6)]
        await settle()
        assert (admission.num_in_flight, admission.num_waiting) == (1, 3)
        assert reasons(tasks) == [None, None, None, None, Shed.QUEUE_FULL, Shed.QUEUE_FULL]
        for number in range(1, 4):
            admission.leave()
            await settle()
            assert tasks[number].done()
        admission.leave()
        assert (admission.num_in_flight, admission.num_waiting) == (0, 0)

    run(talk())


def test_a_burst_may_wait_longer_than_a_queue_that_stands() -> None:
    async def talk() -> None:
        clock = FakeClock()
        admission = Admission(CONFIG, timer=clock.timer)
        tasks = [asyncio.create_task(admission.enter()) for _ in range(3)]
        await settle()
        clock.seconds += 0.04  # longer than the target, and still a burst
        admission.leave()
        await settle()
        assert tasks[1].done()
        assert reasons(tasks[:2]) == [None, None]
        clock.seconds += 0.04  # the queue has not been empty for longer than a burst
        admission.leave()
        await settle()
        assert reasons(tasks) == [None, None, Shed.QUEUE_DELAY]
        assert admission.num_in_flight == 0
        await admission.enter()

    run(talk())


def test_who_would_wait_too_long_is_told_on_arrival() -> None:
    async def talk() -> None:
        clock = FakeClock()
        admission = Admission(CONFIG, timer=clock.timer)
        told: list[Shed] = []
        admission.on_shed = told.append
        await admission.enter()
        admission.leave(seconds=0.06)  # what a request takes
        await admission.enter()
        with pytest.raises(ShedError) as caught:
            await admission.enter()
        assert caught.value.reason is Shed.QUEUE_DELAY
        assert told == [Shed.QUEUE_DELAY]

    run(talk())


def test_a_request_that_was_given_up_keeps_no_place() -> None:
    async def talk() -> None:
        admission = Admission(CONFIG, timer=FakeClock().timer)
        tasks = [asyncio.create_task(admission.enter()) for _ in range(3)]
        await settle()
        tasks[1].cancel()
        await settle()
        admission.leave()
        await settle()
        assert tasks[2].done()
        admission.leave()
        assert (admission.num_in_flight, admission.num_waiting) == (0, 0)
        held = [asyncio.create_task(admission.enter()) for _ in range(2)]
        await settle()
        admission.leave()
        held[1].cancel()  # it has its turn already, and does not know yet
        await settle()
        assert (admission.num_in_flight, admission.num_waiting) == (0, 0)

    run(talk())


def test_what_a_request_waited_is_part_of_its_budget() -> None:
    async def talk() -> None:
        clock = FakeClock()
        admission = Admission(CONFIG, timer=clock.timer)
        assert await admission.run(lambda: Watch(clock.timer).elapsed_ms) == 0.0
        await admission.enter()
        waits = asyncio.create_task(admission.run(lambda: Watch(clock.timer).elapsed_ms))
        await settle()
        clock.seconds += 0.04
        admission.leave()
        assert await waits == pytest.approx(40.0)
        assert Watch(clock.timer).elapsed_ms == 0.0
        admission.close()

    run(talk())


def test_an_error_of_the_work_leaves_room_for_others() -> None:
    async def talk() -> None:
        admission = Admission(CONFIG, timer=FakeClock().timer)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await admission.run(lambda: 1 // 0)
        assert await admission.run(lambda: "done") == "done"
        admission.close()

    run(talk())


@pytest.mark.parametrize("times", [1.5, 3.0])
def test_at_overload_as_much_is_answered_as_without_it_and_what_is_admitted_waited_little(times: float) -> None:
    """One thread, 5 ms a request, 20 s of simulated time: what arrives beyond that is refused."""
    service, target = 0.005, 0.02

    async def talk() -> None:
        clock, waited, shed = FakeClock(), [], Counter[Shed]()
        admission = Admission(
            SheddingConfig(in_flight=1, waiting=1_000, target_ms=target * 1e3, burst_ms=100.0), timer=clock.timer
        )

        async def request() -> None:
            arrived = clock.seconds
            try:
                await admission.enter()
            except ShedError as error:
                shed[error.reason] += 1
            else:
                waited.append(clock.seconds - arrived)

        tasks, step, busy_until, arriving = set(), service / 10, 0.0, 0.0
        for tick in range(40_000):
            clock.seconds = tick * step
            arriving += times / 10
            while arriving >= 1.0:
                arriving -= 1.0
                task = asyncio.create_task(request())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            before = len(waited)
            await settle()
            if len(waited) > before:  # it was idle, and began one
                busy_until = clock.seconds + service
            if admission.num_in_flight and clock.seconds >= busy_until - 1e-9:
                admission.leave(seconds=service)
                await settle()
                busy_until = clock.seconds + service
        capacity = 40_000 * step / service
        assert len(waited) >= 0.95 * capacity
        waited.sort()
        assert waited[int(0.99 * len(waited))] <= target + service
        assert sum(shed.values()) == pytest.approx((times - 1) * capacity, rel=0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(talk())


def through(bench: Any, admission: Admission, talk: Any) -> None:
    async def whole() -> None:
        app = build_app(bench.service(), max_body_bytes=100_000, admission=admission)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await talk(client)
        admission.close()

    asyncio.run(whole())


def event(number: int, bench: Any) -> dict[str, Any]:
    return {"event_id": f"e{number}", "session_id": "s", "at": bench.clock.now.isoformat(), "action": "search"}


def test_over_http_it_is_a_problem_that_says_when_to_come_again_and_events_and_health_go_on(bench: Any) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        await admission.enter()  # whoever computes takes for ever
        for path in ("/v1/recommend", "/v1/intent"):
            answer = await client.post(path, json={"session_id": "s"})
            assert answer.status_code == 429
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["retry-after"] == "2"
            assert answer.json()["detail"] == "too many requests wait already"
            assert answer.json()["request_id"]
        stored = await client.post("/v1/events", json={"events": [event(1, bench)]})
        assert stored.json()["accepted"] == 1
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200
        admission.leave()
        assert (await client.post("/v1/recommend", json={"session_id": "s"})).status_code == 200

    config = SheddingConfig(in_flight=1, waiting=0, retry_after_seconds=1.5)
    admission = Admission(config, timer=FakeClock().timer)
    through(bench, admission, talk)


def test_over_http_an_answer_that_cannot_be_logged_is_a_503_and_events_are_taken(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    async def talk(client: httpx.AsyncClient) -> None:
        asked = {"session_id": "s"}
        with monkeypatch.context() as patch:
            patch.setattr(bench.decisions, "append", full)
            for _ in range(10):
                answer = await client.post("/v1/recommend", json=asked)
                assert answer.status_code == 503
                assert answer.headers["content-type"] == "application/problem+json"
                assert int(answer.headers["retry-after"]) >= 1
            assert (await client.post("/v1/events", json={"events": [event(1, bench)]})).json()["accepted"] == 1
            dry = await client.post("/v1/recommend", json=asked | {"dry_run": True})
            assert (dry.status_code, len(dry.json()["items"])) == (200, 10)
        bench.clock.seconds += bench.config.breaker.rest_seconds
        back = await client.post("/v1/recommend", json=asked)
        assert back.status_code == 200
        assert bench.decisions.get(back.json()["decision_id"]) is not None

    through(bench, Admission(SheddingConfig(), timer=FakeClock().timer), talk)
