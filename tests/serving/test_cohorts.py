"""Requests go through the models in cohorts, and nobody is left behind."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from foretaste.serving.cohorts import Cohorts

LONG_MS = 60_000.0


class Member:
    """A request that enters in a thread of its own, and leaves when it is told to."""

    def __init__(self, cohorts: Cohorts, threads: ThreadPoolExecutor) -> None:
        self.inside, self.go = threading.Event(), threading.Event()
        self._cohorts = cohorts
        self.done: Future[None] = threads.submit(self._run)

    def _run(self) -> None:
        with self._cohorts.joined() as leave:
            self.inside.set()
            assert self.go.wait(60)
            leave()
            leave()  # changes nothing: others may be inside by now

    def leave(self) -> None:
        self.go.set()
        self.done.result(60)


def enter(cohorts: Cohorts, threads: ThreadPoolExecutor, number: int) -> list[Member]:
    """Let so many come, one after the other."""
    members = []
    for _ in range(number):
        before = len(cohorts._waiting)
        members.append(Member(cohorts, threads))
        while not members[-1].inside.is_set() and len(cohorts._waiting) == before:
            time.sleep(0.0005)
    return members


def test_who_comes_meanwhile_goes_with_all_who_came_up_to_the_largest_cohort() -> None:
    cohorts = Cohorts(largest=3, patience_ms=LONG_MS)
    with ThreadPoolExecutor(8) as threads:
        first, *others = enter(cohorts, threads, 6)
        assert [one.inside.is_set() for one in (first, *others)] == [True, *[False] * 5]
        first.leave()
        assert [one.inside.wait(60) for one in others[:3]] == [True] * 3
        others[0].leave()
        others[1].leave()
        assert not others[3].inside.is_set(), "a cohort has not done while one of it has not"
        others[2].leave()
        assert [one.inside.wait(60) for one in others[3:]] == [True] * 2
        for one in others[3:]:
            one.leave()
        (alone,) = enter(cohorts, threads, 1)
        assert alone.inside.is_set()
        alone.leave()


def test_who_is_held_up_holds_others_up_no_longer_than_their_patience() -> None:
    cohorts = Cohorts(largest=8, patience_ms=5.0)
    with ThreadPoolExecutor(4) as threads:
        (held_up,) = enter(cohorts, threads, 1)
        others = [Member(cohorts, threads) for _ in range(2)]
        assert [one.inside.wait(60) for one in others] == [True, True]
        for one in (*others, held_up):
            one.leave()
    assert (len(cohorts._inside), len(cohorts._waiting)) == (0, 0)


def test_a_request_that_fails_leaves() -> None:
    cohorts = Cohorts(largest=8, patience_ms=LONG_MS)
    with pytest.raises(ZeroDivisionError), cohorts.joined():
        _ = 1 // 0
    with cohorts.joined():
        pass


@pytest.mark.parametrize("patience_ms", [0.0, 0.2, LONG_MS])
def test_whatever_the_order_all_come_through_and_nobody_stays_inside(patience_ms: float) -> None:
    cohorts = Cohorts(largest=4, patience_ms=patience_ms)

    def request(number: int) -> int:
        with cohorts.joined() as leave:
            time.sleep(0.0001 * (number % 5))
            leave()
            time.sleep(0.0001 * (number % 3))
        return number

    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(request, range(600))) == list(range(600))
    assert (len(cohorts._inside), len(cohorts._waiting)) == (0, 0)
