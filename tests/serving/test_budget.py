"""A stage is left out before it would be late, abandoned where it runs over, and tried again."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from foretaste.contracts.decisions import Fallback
from foretaste.contracts.wire import NextRequest
from foretaste.serving.breaker import Breaker, BreakerConfig, RestingError, State
from foretaste.serving.budget import RANKER, BudgetConfig, Guard, LateError, Usual, guards
from foretaste.serving.config import ServingConfig
from foretaste.serving.shedding import Shed, SheddingConfig, ShedError
from foretaste.testing.fakes import FakeClock


def guard(clock: FakeClock, *, workers: int = 0, deadline_ms: float = 100.0, breaker: Breaker | None = None) -> Guard:
    return Guard(
        "ranker",
        deadline_ms=deadline_ms,
        workers=workers,
        retry_seconds=5.0,
        timer=clock.timer,
        breaker=breaker,
    )


def state(breaker: Breaker) -> State:
    return breaker.state


def taking(clock: FakeClock, ms: float) -> Any:
    def work() -> str:
        clock.seconds += ms / 1e3
        return "done"

    return work


def test_the_usual_cost_follows_what_a_stage_takes_and_says_nothing_until_it_knows() -> None:
    usual = Usual()
    usual.took(900.0)
    for _ in range(3):
        usual.took(10.0)
    assert usual.ms == 0.0
    usual.took(10.0)
    assert usual.ms == pytest.approx(10.0)
    for _ in range(100):
        usual.took(50.0)
    assert usual.ms == pytest.approx(50.0, rel=0.01)


def test_a_stage_that_would_run_over_is_not_begun() -> None:
    clock = FakeClock()
    one, begun = guard(clock), []
    for _ in range(6):
        one.run(0.0, taking(clock, 60.0))
    one.run(50.0, taking(clock, 60.0))  # the one that tries
    with pytest.raises(LateError, match="usually takes"):
        one.run(50.0, lambda: begun.append(1))
    with pytest.raises(LateError, match="before it began"):
        one.run(101.0, lambda: begun.append(1))
    assert begun == []
    assert one.run(10.0, taking(clock, 60.0)) == "done"


def test_a_stage_that_became_fast_again_is_found_out_by_one_request_now_and_then() -> None:
    clock = FakeClock()
    one = guard(clock)
    for _ in range(6):
        one.run(0.0, taking(clock, 200.0))
    with pytest.raises(LateError):
        one.run(0.0, taking(clock, 1.0))
    clock.seconds += 5.0
    assert one.run(0.0, taking(clock, 1.0)) == "done"
    assert one.usual.ms == pytest.approx(1.0)
    assert one.run(0.0, taking(clock, 1.0)) == "done"


def test_a_stage_that_runs_over_is_abandoned_and_its_late_result_gets_into_no_other_answer() -> None:
    clock, late, ended = FakeClock(), threading.Event(), threading.Event()
    one = guard(clock, workers=1, deadline_ms=20.0)

    def slow() -> str:
        assert late.wait(10)
        ended.set()
        return "late"

    with pytest.raises(LateError, match="abandoned"):
        one.run(0.0, slow)
    with pytest.raises(LateError, match="abandoned"):  # its only thread is still held
        one.run(0.0, lambda: "never begun")
    late.set()
    assert ended.wait(10)
    wide = 10_000.0
    one.deadline_ms = wide
    assert one.run(0.0, lambda: "its own") == "its own"
    one.close()


def test_what_is_abandoned_holds_no_more_threads_than_the_stage_has() -> None:
    clock, late = FakeClock(), threading.Event()
    one = guard(clock, workers=2, deadline_ms=5.0)
    before = threading.active_count()
    for _ in range(10):
        with pytest.raises(LateError):
            one.run(0.0, lambda: late.wait(10))
    assert threading.active_count() - before <= 2
    late.set()
    one.close()


def test_an_error_of_the_stage_is_its_own_even_where_it_is_a_timeout() -> None:
    def fails() -> None:
        raise TimeoutError("of the store")

    one = guard(FakeClock(), workers=1, deadline_ms=10_000.0)
    with pytest.raises(TimeoutError, match="of the store"):
        one.run(0.0, fails)
    one.close()


def test_a_breaker_opens_after_failures_in_a_row_lets_one_try_and_closes_when_that_one_succeeds() -> None:
    clock = FakeClock()
    breaker = Breaker("store", BreakerConfig(failures=3, rest_seconds=2.0), timer=clock.timer)
    for failed in (True, True, False, True, True):
        breaker.enter()
        breaker.failed() if failed else breaker.succeeded()
    assert state(breaker) is State.CLOSED
    breaker.failed()
    assert state(breaker) is State.OPEN
    with pytest.raises(RestingError):
        breaker.enter()
    clock.seconds += 1.5
    assert breaker.retry_after_seconds == pytest.approx(0.5)
    clock.seconds += 0.5
    assert state(breaker) is State.HALF_OPEN
    breaker.enter()
    with pytest.raises(RestingError):  # one tries, no more
        breaker.enter()
    breaker.failed()
    assert state(breaker) is State.OPEN
    clock.seconds += 2.0
    breaker.enter()
    breaker.succeeded()
    assert state(breaker) is State.CLOSED
    breaker.enter()
    breaker.failed()
    assert state(breaker) is State.CLOSED


def test_a_try_that_never_tells_does_not_keep_a_breaker_open_for_good() -> None:
    clock = FakeClock()
    breaker = Breaker("store", BreakerConfig(failures=1, rest_seconds=2.0), timer=clock.timer)
    breaker.failed()
    clock.seconds += 2.0
    breaker.enter()
    with pytest.raises(RestingError):
        breaker.enter()
    clock.seconds += 2.0
    breaker.enter()
    breaker.succeeded()
    assert state(breaker) is State.CLOSED


def test_a_stage_that_was_left_out_beforehand_tells_nothing_of_its_store() -> None:
    clock = FakeClock()
    breaker = Breaker("store", BreakerConfig(failures=1), timer=clock.timer)
    one = guard(clock, breaker=breaker)
    with pytest.raises(LateError):
        one.run(200.0, lambda: None)
    assert state(breaker) is State.CLOSED


def test_a_store_is_not_blamed_for_being_late_where_others_had_taken_its_time() -> None:
    clock, late = FakeClock(), threading.Event()
    breaker = Breaker("store", BreakerConfig(failures=1), timer=clock.timer)
    one = guard(clock, workers=4, breaker=breaker)
    with pytest.raises(LateError, match="abandoned"):
        one.run(95.0, lambda: late.wait(10))
    assert state(breaker) is State.CLOSED
    with pytest.raises(LateError, match="abandoned"):
        one.run(5.0, lambda: late.wait(10))
    assert state(breaker) is State.OPEN
    late.set()
    one.close()


class Log:
    """A session log that can be broken."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.broken = True
        self.num_asked = 0

    def read(self, *values: Any, **named: Any) -> Any:
        self.num_asked += 1
        if self.broken:
            raise OSError("disk gone")
        return self.bench.sessions.read(*values, **named)


def test_answers_go_on_without_a_store_that_fails_and_with_it_once_it_is_back(bench: Any) -> None:
    bench.act("play", "t00")
    sessions = Log(bench)
    recommender = bench.recommender(sessions=sessions)
    reasons = [bench.ask(on=recommender).fallback.reason for _ in range(8)]
    assert reasons == [Fallback.FEATURES_FAILED] * 5 + [Fallback.FEATURES_RESTING] * 3
    assert sessions.num_asked == 5
    resting = bench.ask(on=recommender)
    assert len(resting.items) == 10
    assert resting.freshness.stale == ["session_log"]
    sessions.broken = False
    bench.clock.seconds += bench.config.breaker.rest_seconds
    back = bench.ask(on=recommender)
    assert back.fallback.used is False
    assert back.freshness.last_event_id == "e1"


def test_the_row_of_a_decision_says_which_stages_answered(bench: Any) -> None:
    def answered(answer: Any) -> str:
        (found,) = [
            one["value"] for one in bench.decisions.get(answer.decision_id)["features"] if one["name"] == "answered"
        ]
        return str(found)

    assert answered(bench.ask()) == "session_log,features,intent,ranker"
    bench.ranker.failure = RuntimeError("broken")
    assert answered(bench.ask(on=bench.recommender(sessions=Log(bench)))) == "features,intent"


def test_a_ranker_that_hangs_is_left_out_of_an_answer_that_is_in_time(bench: Any) -> None:
    late, asked = threading.Event(), []

    def hang(_: object) -> None:
        asked.append(1)
        late.wait(30)

    bench.ranker.scores = hang
    of_stages = guards(BudgetConfig(), bench.config.breaker, budget_ms=30_000.0, timer=bench.clock.timer)
    of_stages[RANKER].deadline_ms = 30.0
    recommender = bench.recommender()
    main = recommender.lineup.main
    recommender.lineup = replace(recommender.lineup, main=replace(main, guards=of_stages))
    reasons = {bench.ask(on=recommender).fallback.reason for _ in range(20)}
    assert reasons == {Fallback.RANKER_LATE}
    assert len(asked) == BudgetConfig().workers, "no thread is left to hang in"
    late.set()
    recommender.close()


def test_a_list_that_is_named_and_takes_too_long_to_be_found_is_done_without(bench: Any) -> None:
    first = bench.ask()
    get = bench.decisions.get
    recommender = bench.recommender()  # of a process that does not know the list
    asked = []

    def hangs(decision_id: str) -> Any:
        asked.append(decision_id)
        bench.clock.seconds += 1.0
        return get(decision_id)

    for number in range(8):
        bench.decisions.get = hangs
        answer = bench.ask(on=recommender, session_id=f"other-{number}", shown_id=first.decision_id)
        bench.decisions.get = get
        assert len(answer.items) == 10
    assert len(asked) < 8


def test_a_list_that_cannot_be_read_in_time_is_not_gone_on_with(bench: Any) -> None:
    first = bench.ask()
    recommender = bench.recommender()
    bench.decisions.get = lambda _: (_ for _ in ()).throw(OSError("the disk hangs"))
    asked = NextRequest(member_id="m1", session_id="s1", decision_id=first.decision_id, k=5)
    with pytest.raises(ShedError, match="could not be read in time") as caught:
        recommender.next(asked)
    assert (caught.value.status, caught.value.reason) == (503, Shed.GOES_ON)
    assert b'reason="goes_on"} 1' in recommender.metrics.text()


def test_fewer_threads_for_a_stage_than_requests_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"budget.workers: wanted 0, or as many as shedding.in_flight \(9\)"):
        ServingConfig(budget=BudgetConfig(workers=8), shedding=SheddingConfig(in_flight=9))
    ServingConfig(budget=BudgetConfig(workers=0), shedding=SheddingConfig(in_flight=9))
