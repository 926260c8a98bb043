"""Requests that are worked on at the same time share one pass through a model.

A pass begins once every request of the process waits: for a model, or for something slow. So a request that is alone
waits for nobody, and those that came during a pass go through the next one together. The models are those that give a
request the same bits whatever it is batched with (`models.steady`): a batch changes no answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.histories import Histories, concatenate
from foretaste.models.intent import IntentPrediction
from foretaste.models.ranker_inputs import RankerInputs, join_inputs
from foretaste.serving.engine import asked
from foretaste.serving.models import Models, Predictor, Scorer

PROBED = (0, 1, 3, 40, 70)
"""Interactions of the histories by which a processor is tried."""

Q = TypeVar("Q")
A = TypeVar("A")

_log = logging.getLogger(__name__)


class Batcher(Generic[Q, A]):
    """Answers questions of an engine's requests, those that wait at the same time by one call of `answer_all`."""

    def __init__(self, answer_all: Callable[[Sequence[Q]], Sequence[A]], *, largest: int) -> None:
        """`answer_all` gives an answer for each question, in order; `largest` bounds how many it is given."""
        if largest < 1:
            raise ValueError(f"largest: wanted 1 or more, got {largest}")
        self._answer_all = answer_all
        self.largest = largest
        self.num_asked = 0
        self.num_passes = 0

    def ask(self, question: Q) -> A:
        """Wait for the answer. Raises what the pass raised for this question alone, or TimeoutError."""
        found: A = asked(self, question)
        return found

    def answer(self, questions: Sequence[Q]) -> list[tuple[A | None, BaseException | None]]:
        """Answer all in one pass; where that fails each alone, for one of them is to blame."""
        self.num_asked += len(questions)
        self.num_passes += 1
        return self._answers(questions)

    def _answers(self, questions: Sequence[Q]) -> list[tuple[A | None, BaseException | None]]:
        try:
            answers = self._answer_all(questions)
            return [(found, None) for _, found in zip(questions, answers, strict=True)]
        except Exception as error:
            if len(questions) == 1:
                return [(None, error)]
            return [self._answers([question])[0] for question in questions]
        except BaseException as error:  # it ends the requests, and not the thread of all
            return [(None, error)] * len(questions)


def same_bits(model: Predictor, catalogue: Catalogue) -> bool:
    """Try whether a prediction has the same bits alone and beside others, on histories of several lengths."""
    probes = [probe(length, len(catalogue)) for length in PROBED]
    histories, asof = [history for history, _ in probes], [asof_B for _, asof_B in probes]
    together = model.predict(concatenate(histories), np.concatenate(asof))
    for row, (history, asof_B) in enumerate(zip(histories, asof, strict=True)):
        alone, beside = model.predict(history, asof_B), together.rows(slice(row, row + 1))
        pairs = [(alone.scores_BN, beside.scores_BN), (alone.z_BD, beside.z_BD)]
        pairs += [(share_BC, beside.intents[head]) for head, share_BC in alone.intents.items()]
        if alone.query is not None and beside.query is not None:
            pairs += [(alone.query.state_BK, beside.query.state_BK), (alone.query.value_E, beside.query.value_E)]
        if any(one.tobytes() != other.tobytes() for one, other in pairs):
            return False
    return True


def probe(length: int, num_titles: int) -> tuple[Histories, NDArray[np.int64]]:
    """A history of nobody, a minute an interaction, and an instant after it."""
    place_T = np.arange(length)
    history = Histories(
        np.array([0, length], dtype=np.int64),
        (1 + place_T % num_titles).astype(np.int32),
        np.zeros(length, dtype=np.int32),
        place_T * 60_000_000,
        (place_T // 5).astype(np.int32),
        np.zeros(length, dtype=np.float32),
        np.full(length, np.nan, dtype=np.float32),
    )
    return history, np.array([(1 + length) * 60_000_000], dtype=np.int64)


class BatchedPredictor:
    """An intent model that requests share; each asks for one history."""

    def __init__(self, model: Predictor, *, largest: int) -> None:
        self.model = model
        self.batcher: Batcher[tuple[Histories, NDArray[np.int64]], IntentPrediction] = Batcher(
            self._all, largest=largest
        )

    @property
    def title_N1D(self) -> NDArray[np.float32]:
        """Title vectors, row 0 for an unknown title."""
        return self.model.title_N1D

    @property
    def steady(self) -> bool:
        """As the model itself: batches change nothing."""
        return self.model.steady

    def predict(self, histories: Histories, asof_B: NDArray[np.int64]) -> IntentPrediction:
        """Predict, with those who ask at the same time."""
        return self.batcher.ask((histories, asof_B))

    def _all(self, asked: Sequence[tuple[Histories, NDArray[np.int64]]]) -> list[IntentPrediction]:
        if len(asked) == 1:
            return [self.model.predict(*asked[0])]
        found = self.model.predict(
            concatenate([histories for histories, _ in asked]), np.concatenate([asof_B for _, asof_B in asked])
        )
        stops = np.cumsum([len(asof_B) for _, asof_B in asked])
        return [found.rows(slice(stop - len(asof_B), stop)) for stop, (_, asof_B) in zip(stops, asked, strict=True)]


class BatchedScorer:
    """A ranker that requests share."""

    def __init__(self, model: Scorer, *, largest: int) -> None:
        self.model = model
        self.batcher: Batcher[RankerInputs, NDArray[np.float64]] = Batcher(self._all, largest=largest)

    @property
    def recent(self) -> int:
        """How many of the newest interactions it reads."""
        return self.model.recent

    def scores(self, inputs: RankerInputs) -> NDArray[np.float64]:
        """Score, with those who ask at the same time."""
        return self.batcher.ask(inputs)

    def _all(self, asked: Sequence[RankerInputs]) -> list[NDArray[np.float64]]:
        if len(asked) == 1:
            return [self.model.scores(asked[0])]
        found_BC = self.model.scores(join_inputs(asked))
        stops = np.cumsum([len(inputs) for inputs in asked])
        return [
            found_BC[stop - len(inputs) : stop, : inputs.code_BC.shape[1]]
            for stop, inputs in zip(stops, asked, strict=True)
        ]


def batched(models: Models, *, largest: int) -> Models:
    """The same models, shared by requests that come together; unsteady ones, and all where `largest` is 1, are not.

    Nor are any on a processor that rounds otherwise in a batch, which is tried here.
    """
    if largest <= 1 or models.intent is None or not models.intent.steady:
        return models
    if not same_bits(models.intent, models.catalogue):
        _log.error(
            "this processor gives an answer other bits in a batch than alone: each request has a pass of its own"
        )
        return models
    ranker = None if models.ranker is None else BatchedScorer(models.ranker, largest=largest)
    predictor = BatchedPredictor(models.intent, largest=largest)
    return replace(models, intent=predictor, ranker=ranker)
