"""Requests compute in turns, and nobody has a turn who waits."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from foretaste.serving.turns import Turns, computing, waiting


class Crowd:
    """Counts who computes at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = 0

    def work(self, seconds: float = 0.002) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(seconds)
        with self._lock:
            self.now -= 1


@pytest.mark.parametrize("number", [1, 3])
def test_as_many_compute_at_a_time_as_there_are_turns_in_stages_too(number: int) -> None:
    turns, crowd = Turns(number), Crowd()
    stages = ThreadPoolExecutor(8)

    def stage() -> None:
        with computing():
            crowd.work()

    def request() -> None:
        with turns.taken():
            crowd.work()
            with waiting():
                stages.submit(copy_context().run, stage).result()
            crowd.work()

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(request) for _ in range(24)]:
            done.result()
    stages.shutdown()
    assert crowd.most == number


def test_who_waits_lets_another_one_compute_and_a_failure_keeps_no_turn() -> None:
    turns = Turns(1)
    inside, over = threading.Event(), threading.Event()

    def waits() -> None:
        with turns.taken(), waiting():
            inside.set()
            assert over.wait(60)

    with ThreadPoolExecutor(1) as threads:
        waiter = threads.submit(waits)
        assert inside.wait(60)
        with pytest.raises(ZeroDivisionError), turns.taken():
            _ = 1 // 0
        with turns.taken():
            over.set()
        waiter.result(60)


def test_without_turns_and_within_one_s_own_nothing_is_waited_for() -> None:
    passed = []
    with computing(), waiting():
        passed.append("nobody's")
    turns = Turns(1)
    with turns.taken(), computing():  # would wait for itself without end
        passed.append("one's own")
    with turns.taken(), waiting(), waiting(), turns.taken():  # the turn was given up once
        passed.append("given up")
    assert passed == ["nobody's", "one's own", "given up"]
    assert turns._places._value == 1
