"""Requests share passes through the models, and nobody can tell from the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.histories import Histories
from foretaste.models.intent import (
    IntentModel,
    IntentModelConfig,
    IntentPrediction,
    IntentRecommender,
    possible_classes,
)
from foretaste.serving.batching import BatchedPredictor, Batcher, same_bits
from foretaste.serving.engine import Engine
from foretaste.testing.builders import titles_table
from foretaste.testing.contract_recommender import MINUTE_US, START_US, one_history

KNOWN = catalogue(titles_table(60))


def intent() -> IntentRecommender:
    torch.manual_seed(0)
    config = IntentModelConfig(width=16, feedforward=32, max_length=20)
    return IntentRecommender(IntentModel(config, KNOWN, possible_classes(KNOWN)), KNOWN)


def together(batcher: Batcher[int, int], questions: Sequence[int]) -> list[int | BaseException]:
    """Ask all at the same time, each by a request of its own."""
    engine = Engine()
    asked = [engine.submit(partial(batcher.ask, question)) for question in questions]
    found = [one.exception(60) or one.result(60) for one in asked]
    engine.close()
    return found


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    """Have the engine busy, so that all that it is given meanwhile goes on together."""
    busy, go = threading.Event(), threading.Event()

    def holds() -> None:
        busy.set()
        assert go.wait(60)

    engine.submit(holds)
    assert busy.wait(60)
    yield
    go.set()


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


def test_whatever_ends_a_pass_ends_its_requests_and_no_other() -> None:
    def dies(asked: Sequence[int]) -> list[int]:
        if 1 in asked:
            raise SystemExit(3)
        return list(asked)

    batcher, engine = Batcher(dies, largest=8), Engine()
    with held(engine):
        ended = [engine.submit(partial(batcher.ask, question)) for question in (1, 2)]
    assert [type(one.exception(60)) for one in ended] == [SystemExit, SystemExit]
    assert engine.submit(partial(batcher.ask, 5)).result(60) == 5
    engine.close()


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
    engine = Engine()
    with held(engine):
        asked = [engine.submit(partial(shared.predict, *one)) for one in zip(histories, asof, strict=True)]
    found = [one.result(60) for one in asked]
    engine.close()
    assert shared.batcher.num_passes == 2
    for number, one in enumerate(found):
        alone = model.predict(histories[number], asof[number])
        assert one.scores_BN.tobytes() == alone.scores_BN.tobytes()
        assert one.z_BD.tobytes() == alone.z_BD.tobytes()
        assert {head: share.tobytes() for head, share in one.intents.items()} == {
            head: share.tobytes() for head, share in alone.intents.items()
        }
