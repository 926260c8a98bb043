"""Requests share passes through the models, and nobody can tell from the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.sessions import SessionRule
from foretaste.contracts.title_fields import TitleColumns
from foretaste.models.intent import (
    IntentModel,
    IntentModelConfig,
    IntentPrediction,
    IntentRecommender,
    possible_classes,
)
from foretaste.serving import batching
from foretaste.serving.batching import BatchedPredictor, Batcher, same_bits, under_way
from foretaste.serving.models import Models
from foretaste.surfaces.prequery import availability
from foretaste.testing.builders import titles_table
from foretaste.testing.contract_recommender import MINUTE_US, START_US, one_history

KNOWN = catalogue(titles_table(60))


def intent() -> IntentRecommender:
    torch.manual_seed(0)
    config = IntentModelConfig(width=16, feedforward=32, max_length=20)
    return IntentRecommender(IntentModel(config, KNOWN, possible_classes(KNOWN)), KNOWN)


def together(batcher: Batcher[int, int], questions: Sequence[int]) -> list[int | Exception]:
    """Ask all at the same time, each in a thread of its own."""
    gate = threading.Barrier(len(questions))

    def ask(question: int) -> int | Exception:
        gate.wait()
        try:
            return batcher.ask(question)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(len(questions)) as threads:
        return list(threads.map(ask, questions))


@contextmanager
def under_way_for(batcher: Batcher[Any, Any]) -> Iterator[None]:
    who = object()
    token = batching._who.set(who)
    with batcher.expecting(who):
        yield
    batching._who.reset(token)


def bare_models() -> Models:
    titles = titles_table(60)
    return Models(KNOWN, availability(titles, KNOWN), TitleColumns(titles, KNOWN), True, SessionRule())


def test_those_who_come_during_a_pass_share_the_next_one() -> None:
    sizes: list[int] = []

    def squares(asked: Sequence[int]) -> list[int]:
        sizes.append(len(asked))
        time.sleep(0.05)
        return [one * one for one in asked]

    batcher = Batcher(squares, largest=32)
    assert together(batcher, range(16)) == [one * one for one in range(16)]
    assert sum(sizes) == 16
    assert len(sizes) <= 4
    assert (batcher.num_asked, batcher.num_passes) == (16, len(sizes))


def test_no_pass_is_larger_than_allowed_and_nobody_is_left_waiting() -> None:
    sizes: list[int] = []

    def same(asked: Sequence[int]) -> list[int]:
        sizes.append(len(asked))
        time.sleep(0.01)
        return list(asked)

    batcher = Batcher(same, largest=3)
    for _ in range(5):
        assert together(batcher, range(10)) == list(range(10))
    assert max(sizes) == 3


def test_one_bad_question_fails_alone() -> None:
    def halves(asked: Sequence[int]) -> list[int]:
        time.sleep(0.02)
        if any(one % 2 for one in asked):
            raise ValueError("odd")
        return [one // 2 for one in asked]

    found = together(Batcher(halves, largest=16), range(8))
    assert [one for one in found if not isinstance(one, Exception)] == [0, 1, 2, 3]
    assert sum(isinstance(one, ValueError) for one in found) == 4


def test_a_pass_that_gives_too_few_answers_is_an_error_for_all_and_the_next_one_is_led_again() -> None:
    batcher: Batcher[int, int] = Batcher(lambda asked: [], largest=4)
    for _ in range(2):
        with pytest.raises(ValueError, match="shorter"):
            batcher.ask(1)


def test_whatever_ends_the_one_who_leads_ends_all_of_the_pass_and_no_other() -> None:
    begun, going = threading.Event(), threading.Event()

    def dies(asked: Sequence[int]) -> list[int]:
        if 0 in asked:
            begun.set()
            going.wait(10)
        if 1 in asked:
            raise SystemExit(3)
        return list(asked)

    batcher = Batcher(dies, largest=8)

    def ask(question: int) -> int | str:
        try:
            return batcher.ask(question)
        except SystemExit:
            return "ended"

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(ask, 0)
        assert begun.wait(10)
        others = [threads.submit(ask, question) for question in (1, 2)]
        while batcher.num_asked < 3:
            time.sleep(0.001)
        going.set()
        assert first.result(10) == 0
        assert [one.result(10) for one in others] == ["ended", "ended"]
    assert ask(5) == 5


class Rounds:
    """A model that gives other bits in a batch, as another processor might."""

    def __init__(self, model: IntentRecommender) -> None:
        self.model = model
        self.steady = True
        self.title_N1D = model.title_N1D

    def predict(self, histories: Histories, asof_B: NDArray[np.int64]) -> IntentPrediction:
        found = self.model.predict(histories, asof_B)
        if len(histories) > 1:
            found.scores_BN[-1, 0] = np.nextafter(found.scores_BN[-1, 0], np.float32(0))
        return found


def test_a_processor_that_rounds_otherwise_in_a_batch_is_found_out() -> None:
    assert same_bits(intent(), KNOWN)
    assert not same_bits(Rounds(intent()), KNOWN)


def test_no_batch_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="largest: wanted 1 or more, got 0"):
        Batcher(list, largest=0)


def test_predictions_are_the_same_to_the_bit_alone_and_together() -> None:
    model = intent()
    shared = BatchedPredictor(model, largest=8)
    histories = [one_history(list(range(1, 2 + number))) for number in range(12)]
    asof = [np.array([START_US + (60 + number) * MINUTE_US]) for number in range(12)]
    gate = threading.Barrier(12)

    def ask(number: int) -> IntentPrediction:
        gate.wait()
        return shared.predict(histories[number], asof[number])

    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(ask, range(12)))
    assert shared.batcher.num_passes < 12
    for number, one in enumerate(found):
        alone = model.predict(histories[number], asof[number])
        assert one.scores_BN.tobytes() == alone.scores_BN.tobytes()
        assert one.z_BD.tobytes() == alone.z_BD.tobytes()
        assert {head: share.tobytes() for head, share in one.intents.items()} == {
            head: share.tobytes() for head, share in alone.intents.items()
        }


def test_a_pass_waits_for_a_request_that_had_begun_and_not_for_one_that_began_later() -> None:
    batcher: Batcher[int, int] = Batcher(lambda asked: [sum(asked)] * len(asked), largest=8, patience_ms=60_000.0)
    slow_began, fast_waits, early_ends = threading.Event(), threading.Event(), threading.Event()

    def request(question: int, began: threading.Event, go: threading.Event) -> int:
        with under_way_for(batcher):
            began.set()
            assert go.wait(60)
            return batcher.ask(question)

    with ThreadPoolExecutor(3) as threads:
        slow = threads.submit(request, 1, slow_began, fast_waits)
        assert slow_began.wait(60)
        fast = threads.submit(request, 10, threading.Event(), slow_began)
        while not batcher.num_asked:
            time.sleep(0.001)
        later_began = threading.Event()
        later = threads.submit(request, 100, later_began, early_ends)
        assert later_began.wait(60)
        fast_waits.set()
        assert (fast.result(60), slow.result(60)) == (11, 11)
        early_ends.set()
        assert later.result(60) == 100


def test_a_pass_does_not_wait_for_who_ended_without_asking_nor_longer_than_its_patience() -> None:
    batcher: Batcher[int, int] = Batcher(lambda asked: list(asked), largest=8, patience_ms=60_000.0)
    with under_way_for(batcher):
        pass
    with under_way_for(batcher):
        assert batcher.ask(1) == 1, "nobody waits for oneself"
    held_up, over = threading.Event(), threading.Event()

    def hangs() -> None:
        with under_way_for(hasty):
            held_up.set()
            over.wait(60)

    hasty: Batcher[int, int] = Batcher(lambda asked: list(asked), largest=8, patience_ms=5.0)
    with ThreadPoolExecutor(1) as threads:
        hanging = threads.submit(hangs)
        assert held_up.wait(60)
        with under_way_for(hasty):
            assert hasty.ask(2) == 2
        over.set()
        hanging.result(60)


def test_the_chain_says_when_a_request_begins_and_ends() -> None:
    model = BatchedPredictor(intent(), largest=4, patience_ms=60_000.0)
    models = replace(bare_models(), intent=model)
    with pytest.raises(RuntimeError), under_way(models):
        raise RuntimeError("before it asked")
    with under_way(models):
        assert model.predict(one_history([1, 2]), np.array([START_US + 9 * MINUTE_US])).scores_BN.shape[0] == 1


def test_a_request_that_has_done_with_the_models_is_not_waited_for_while_it_goes_on() -> None:
    model = BatchedPredictor(intent(), largest=4, patience_ms=600_000.0)
    models = replace(bare_models(), intent=model)
    did_without, over = threading.Event(), threading.Event()

    def does_without() -> None:
        with under_way(models) as done:
            done()
            did_without.set()
            assert over.wait(20), "the other one waited for this one"

    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(does_without)
        assert did_without.wait(60)
        with under_way(models):
            assert model.predict(one_history([1, 2]), np.array([START_US + 9 * MINUTE_US])).scores_BN.shape[0] == 1
        assert not over.is_set()
        over.set()
        other.result(60)
