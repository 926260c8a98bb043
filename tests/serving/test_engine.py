"""One thread computes all requests, goes from one to another, and is left where it hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from foretaste.serving.batching import Batcher
from foretaste.serving.breaker import Breaker, BreakerConfig, State
from foretaste.serving.budget import Guard, LateError
from foretaste.serving.engine import LATE, Engine, LeftError, TooLongError, Watching, inside, waited
from foretaste.serving.watch import Watch

LONG = 60.0


@pytest.fixture
def engine() -> Iterator[Engine]:
    found = Engine()
    yield found
    found.close()


def state(breaker: Breaker) -> State:
    return breaker.state


def guard(stage: str, *, deadline_ms: float, breaker: Breaker | None = None) -> Guard:
    return Guard(
        stage, deadline_ms=deadline_ms, workers=4, retry_seconds=60.0, timer=time.perf_counter, breaker=breaker
    )


def nothing() -> None:
    pass


def test_what_is_computed_is_given_and_what_is_raised_is_raised(engine: Engine) -> None:
    assert engine.submit(lambda: inside()).result(LONG) is True
    assert not inside()
    assert isinstance(engine.submit(lambda: 1 // 0).exception(LONG), ZeroDivisionError)
    assert isinstance(engine.submit(lambda: (_ for _ in ()).throw(SystemExit(2))).exception(LONG), SystemExit)
    assert engine.submit(lambda: "next").result(LONG) == "next"


def test_all_is_computed_by_one_thread_whoever_asks(engine: Engine) -> None:
    with ThreadPoolExecutor(8) as threads:
        futures = list(threads.map(lambda _: engine.submit(threading.get_ident), range(64)))
    assert len({one.result(LONG) for one in futures}) == 1


def test_each_request_has_its_own_context(engine: Engine) -> None:
    who: ContextVar[int] = ContextVar("who")
    model: Batcher[int, int] = Batcher(list, largest=8)

    def request(number: int) -> tuple[int, int]:
        who.set(number)
        return model.ask(number), who.get()

    futures = [engine.submit(partial(request, number)) for number in range(20)]
    assert [one.result(LONG) for one in futures] == [(number, number) for number in range(20)]


def test_those_who_came_meanwhile_share_a_pass_and_who_is_alone_waits_for_nobody(engine: Engine) -> None:
    begun, go, sizes = threading.Event(), threading.Event(), []

    def answers(asked: Sequence[int]) -> list[int]:
        sizes.append(len(asked))
        begun.set()
        assert go.wait(LONG)
        return list(asked)

    model = Batcher(answers, largest=4)
    first = engine.submit(partial(model.ask, 0))
    assert begun.wait(LONG), "a request that is alone was kept waiting"
    others = [engine.submit(partial(model.ask, number)) for number in range(1, 7)]
    go.set()
    assert [one.result(LONG) for one in (first, *others)] == list(range(7))
    assert sizes == [1, 4, 2]


def test_who_has_waited_the_longest_goes_first_through_two_models(engine: Engine) -> None:
    order: list[str] = []

    def told(name: str, asked: Sequence[int]) -> list[int]:
        order.append(f"{name}{len(asked)}")
        return list(asked)

    one, two = (Batcher(partial(told, name), largest=8) for name in ("one", "two"))
    busy, go = threading.Event(), threading.Event()

    def request(number: int) -> int:
        if number == 0:
            busy.set()
            assert go.wait(LONG)
        return two.ask(one.ask(number))

    futures = [engine.submit(partial(request, 0))]
    assert busy.wait(LONG)
    futures += [engine.submit(partial(request, number)) for number in (1, 2)]
    go.set()
    assert [future.result(LONG) for future in futures] == [0, 1, 2]
    assert order == ["one3", "two3"]


def test_who_waits_for_another_thread_lets_others_compute(engine: Engine) -> None:
    elsewhere: Future[str] = Future()
    waits = engine.submit(lambda: waited(elsewhere, LONG))
    assert engine.submit(lambda: "meanwhile").result(LONG) == "meanwhile"
    elsewhere.set_result("found")
    assert waits.result(LONG) == "found"
    failed: Future[str] = Future()
    failed.set_exception(KeyError("there"))
    assert isinstance(engine.submit(lambda: waited(failed, LONG)).exception(LONG), KeyError)


def test_what_does_not_come_in_time_is_waited_for_no_longer_and_its_end_wakes_nobody(engine: Engine) -> None:
    never: Future[str] = Future()

    def request() -> str:
        with pytest.raises(TooLongError):
            waited(never, 0.01)
        never.set_result("late")
        return waited(later, LONG)

    later: Future[str] = Future()
    asked = engine.submit(request)
    assert engine.submit(lambda: "other").result(LONG) == "other"
    time.sleep(0.05)
    assert not asked.done(), "what came too late woke it from another wait"
    later.set_result("its own")
    assert asked.result(LONG) == "its own"


def test_a_request_that_waits_too_long_for_a_model_does_without_and_is_not_in_the_pass(engine: Engine) -> None:
    passes: list[list[int]] = []

    def answers(asked: Sequence[int]) -> list[int]:
        passes.append(list(asked))
        time.sleep(0.1)
        return list(asked)

    model = Batcher(answers, largest=1)

    def request(number: int, seconds: float) -> int | str:
        try:
            with Watching("model", seconds, nothing):
                return model.ask(number)
        except TooLongError:
            return "without"

    futures = [engine.submit(partial(request, 0, LONG)), engine.submit(partial(request, 1, 0.02))]
    assert [one.result(LONG) for one in futures] == [0, "without"]
    assert passes == [[0]]


class Hanging:
    """A stage that hangs until it is let go."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Semaphore(0)
        self.num = 0

    def __call__(self) -> str:
        self.num += 1
        self.begun.release()
        assert self.go.wait(LONG)
        return "late"


def test_where_a_stage_hangs_another_thread_takes_over_and_the_request_does_without(engine: Engine) -> None:
    hanging, told, ended = Hanging(), [], []

    def request() -> tuple[str, frozenset[str]]:
        if "store" not in LATE.get():
            with Watching("store", 0.02, lambda: told.append("store")):
                hanging()
            ended.append("the one that hung")
        return "an answer", LATE.get()

    assert engine.submit(request).result(LONG) == ("an answer", frozenset({"store"}))
    assert engine.submit(lambda: "the next").result(LONG) == "the next"
    assert told == ["store"]
    hanging.go.set()
    assert engine.submit(lambda: "after").result(LONG) == "after"
    assert ended == []


def test_those_beside_one_that_hangs_begin_anew_and_do_without_nothing(engine: Engine) -> None:
    hanging, begun = Hanging(), []
    model: Batcher[int, int] = Batcher(list, largest=8)

    def hangs() -> str:
        if "store" in LATE.get():
            return "without"
        model.ask(0)
        with Watching("store", 0.02, nothing):
            return hanging()

    def beside(number: int) -> tuple[int, frozenset[str]]:
        begun.append(number)
        found = model.ask(number)
        waited(elsewhere, LONG)
        return found, LATE.get()

    elsewhere: Future[None] = Future()
    waiting = [engine.submit(partial(beside, number)) for number in (1, 2)]
    hung = engine.submit(hangs)
    assert hanging.begun.acquire(timeout=LONG)
    inbox = engine.submit(partial(beside, 3))
    assert hung.result(LONG) == "without"
    elsewhere.set_result(None)
    found = [one.result(LONG) for one in (*waiting, inbox)]
    assert found == [(number, frozenset()) for number in (1, 2, 3)]
    assert sorted(begun) == [1, 1, 2, 2, 3]
    hanging.go.set()


def test_what_a_request_took_before_another_thread_took_over_is_part_of_its_budget(engine: Engine) -> None:
    hanging = Hanging()

    def request() -> float:
        watch = Watch(time.perf_counter)
        if "store" not in LATE.get():
            with Watching("store", 0.03, nothing):
                hanging()
        return watch.elapsed_ms

    assert engine.submit(request).result(LONG) >= 30.0
    hanging.go.set()


def test_a_pass_that_hangs_is_left_and_who_was_in_it_does_without_the_model(engine: Engine) -> None:
    hanging = Hanging()

    def answers(asked: Sequence[int]) -> list[str]:
        return [hanging()] * len(asked)

    model = Batcher(answers, largest=8)
    of_model = guard("model", deadline_ms=50.0)

    def request(number: int) -> str:
        watch = Watch(time.perf_counter)
        try:
            return of_model.run(watch.elapsed_ms, lambda: model.ask(number))
        except LateError:
            return f"{number} without"

    futures = [engine.submit(partial(request, number)) for number in range(4)]
    assert [one.result(LONG) for one in futures] == [f"{number} without" for number in range(4)]
    hanging.go.set()
    of_model.close()


def test_a_store_that_hangs_opens_its_breaker_and_is_asked_by_few(engine: Engine) -> None:
    hanging, breaker = Hanging(), Breaker("store", BreakerConfig(failures=3), timer=time.perf_counter)
    store = guard("store", deadline_ms=200.0, breaker=breaker)  # far above what a busy machine takes before it

    def request() -> str:
        watch = Watch(time.perf_counter)
        try:
            return store.run(watch.elapsed_ms, hanging)
        except Exception as error:
            return type(error).__name__

    found = [engine.submit(request).result(LONG) for _ in range(8)]
    assert state(breaker) is State.OPEN
    assert hanging.num == 3
    assert set(found) == {"LateError", "RestingError"}
    hanging.go.set()
    store.close()


def test_a_store_that_is_known_to_be_slow_is_waited_for_side_by_side(engine: Engine) -> None:
    store = guard("store", deadline_ms=30_000.0, breaker=Breaker("store", BreakerConfig(), timer=time.perf_counter))
    for _ in range(8):
        store.usual.took(50.0)
    together = threading.Barrier(3)
    futures = [engine.submit(lambda: store.run(0.0, lambda: together.wait(LONG))) for _ in range(3)]
    assert sorted(one.result(LONG) for one in futures) == [0, 1, 2]
    store.close()


def test_an_error_of_a_stage_is_its_own_even_where_it_is_a_timeout(engine: Engine) -> None:
    def fails() -> None:
        raise TimeoutError("of the store")

    store = guard("store", deadline_ms=30_000.0)
    assert str(engine.submit(lambda: store.run(0.0, fails)).exception(LONG)) == "of the store"
    store.close()


def test_a_stage_with_little_time_left_does_not_hang_at_once_and_a_pass_with_one_who_has_little_neither(
    engine: Engine,
) -> None:
    def slow(asked: Sequence[int]) -> list[int]:
        time.sleep(0.03)
        return list(asked)

    begun: list[str] = []
    model = Batcher(slow, largest=8)

    def short() -> str:
        begun.append("short")
        with Watching("store", 0.001, nothing):
            time.sleep(0.02)
        return "a little late"

    def shared(number: int) -> int:
        begun.append(str(number))
        with Watching("model", 0.005 if number else LONG, nothing):
            return model.ask(number)

    assert engine.submit(short).result(LONG) == "a little late"
    hurried, patient = engine.submit(partial(shared, 1)), engine.submit(partial(shared, 0))
    assert (hurried.result(LONG), patient.result(LONG)) == (1, 0)
    assert sorted(begun) == ["0", "1", "short"], "they began anew"


def test_so_many_threads_hang_and_no_more(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foretaste.serving.engine.THREADS", 2)
    hanging = Hanging()

    def request() -> str:
        with Watching("store", 0.01, nothing):
            return hanging()

    asked = engine.submit(request)  # it does not heed that it is to do without
    for _ in range(3):
        assert hanging.begun.acquire(timeout=LONG)
    time.sleep(0.2)
    assert hanging.num == 3, "two were left, and the third one waits"
    hanging.go.set()
    assert asked.result(LONG) == "late"


def test_a_request_that_nobody_waits_for_any_more_is_not_computed(engine: Engine) -> None:
    busy, go, computed = threading.Event(), threading.Event(), []

    def holds() -> None:
        busy.set()
        assert go.wait(LONG)

    first = engine.submit(holds)
    assert busy.wait(LONG)
    given_up = engine.submit(lambda: computed.append(1))
    assert given_up.cancel()
    go.set()
    first.result(LONG)
    engine.submit(nothing).result(LONG)
    assert computed == []


def test_a_closed_engine_ends_what_it_began_and_its_thread_and_begins_nothing() -> None:
    engine, before = Engine(), set(threading.enumerate())
    elsewhere: Future[str] = Future()
    waits = engine.submit(lambda: waited(elsewhere, LONG))
    engine.close()
    elsewhere.set_result("to the end")
    assert waits.result(LONG) == "to the end"
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(nothing)
    until = time.monotonic() + LONG
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before
    Engine().close()


def test_what_hangs_when_an_engine_is_closed_is_left_all_the_same() -> None:
    engine, hanging = Engine(), Hanging()

    def hangs() -> str:
        if "store" in LATE.get():
            return "without"
        with Watching("store", 0.01, nothing):
            return hanging()

    hung = engine.submit(hangs)
    assert hanging.begun.acquire(timeout=LONG)
    waits = engine.submit(lambda: "in the queue")
    engine.close()
    assert (hung.result(LONG), waits.result(LONG)) == ("without", "in the queue")
    hanging.go.set()


@pytest.mark.parametrize("largest", [1, 3, 8])
def test_whatever_waits_and_hangs_everybody_is_answered_once(engine: Engine, largest: int) -> None:
    model: Batcher[int, int] = Batcher(lambda asked: [2 * one for one in asked], largest=largest)
    pool = ThreadPoolExecutor(4)
    let_go = threading.Event()

    def slowly(number: int) -> int:
        time.sleep(0.0005 * (number % 4))
        return number

    def request(number: int) -> int:
        if number % 50 == 7 and "store" not in LATE.get():
            with Watching("store", 0.005, nothing):
                let_go.wait(LONG)
        found = model.ask(number)
        waited(pool.submit(slowly, number), LONG)
        return model.ask(found)

    work: list[Callable[[], Any]] = [partial(request, number) for number in range(300)]
    futures = [engine.submit(one) for one in work]
    assert [one.result(LONG) for one in futures] == [4 * number for number in range(300)]
    let_go.set()
    pool.shutdown()


def test_no_except_of_a_chain_keeps_a_request_that_was_left() -> None:
    assert not issubclass(LeftError, Exception)
