"""Requests that are worked on at the same time share one pass through a model.

Who asks while a pass is under way waits for its end and goes into the next one with all who wait by then. A pass begins
once the requests have come that were under way before it and are still to ask, since until then their threads want the
processor that it would take: so a request that is alone never waits. A request that is held up, by a store for
instance, holds the others up by the batcher's patience at most. The models are those that give a request the same bits
whatever it is batched with (`models.steady`): a batch changes no answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.histories import Histories, concatenate
from foretaste.models.intent import IntentPrediction
from foretaste.models.ranker_inputs import RankerInputs, join_inputs
from foretaste.serving.cohorts import Cohorts
from foretaste.serving.models import Models, Predictor, Scorer
from foretaste.serving.turns import waiting

PROBED = (0, 1, 3, 40, 70)
"""Interactions of the histories by which a processor is tried."""

Q = TypeVar("Q")
A = TypeVar("A")

_log = logging.getLogger(__name__)
_who: ContextVar[object] = ContextVar("who", default=None)
"""The request that a thread works for."""


class _Asked(Generic[Q, A]):
    """One question that waits for its answer, or for its turn to lead."""

    def __init__(self, question: Q) -> None:
        self.question = question
        self.woken = threading.Event()
        self.leads = False
        self.answer: A | None = None
        self.error: BaseException | None = None


class Batcher(Generic[Q, A]):
    """Answers questions of many threads, those that come together by one call of `answer_all`."""

    def __init__(
        self, answer_all: Callable[[Sequence[Q]], Sequence[A]], *, largest: int, patience_ms: float = 0.0
    ) -> None:
        """`answer_all` gives an answer for each question, in order; `largest` bounds how many it is given.

        `patience_ms` bounds how long a pass waits for who is expected.
        """
        if largest < 1:
            raise ValueError(f"largest: wanted 1 or more, got {largest}")
        self._answer_all = answer_all
        self._largest = largest
        self._patience = patience_ms / 1e3
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._expected: set[object] = set()
        self._waiting: deque[_Asked[Q, A]] = deque()
        self._led = False
        self.num_asked = 0
        self.num_passes = 0

    @contextmanager
    def expecting(self, who: object) -> Iterator[None]:
        """Say that a request has begun, which will probably ask, in a context where `_who` is it."""
        with self._lock:
            self._expected.add(who)
        try:
            yield
        finally:
            self._withdraw(who)

    def ask(self, question: Q) -> A:
        """Wait for the answer. Raises what the pass raised for this question alone."""
        with waiting():
            return self._ask(question)

    def _ask(self, question: Q) -> A:
        mine: _Asked[Q, A] = _Asked(question)
        with self._lock:
            self._waiting.append(mine)
            self.num_asked += 1
            self._expected.discard(_who.get())
            self._changed.notify()
            if not self._led:
                self._led = mine.leads = True
        if not mine.leads:
            mine.woken.wait()
        if mine.leads:
            self._lead(mine)
        if mine.error is not None:
            raise mine.error
        return mine.answer  # type: ignore[return-value]

    def _lead(self, mine: _Asked[Q, A]) -> None:
        """Answer all who wait, oneself among them, and let one who came meanwhile lead next."""
        with self._lock:
            self._gather()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._largest))]
            self.num_passes += 1
        try:
            self._answer(batch)
        except BaseException as error:
            for asked in batch:
                asked.error = asked.error or error
            raise
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._led = following is not None
                if following is not None:
                    following.leads = True
            for asked in batch:
                if asked is not mine:
                    asked.woken.set()
            if following is not None:
                following.woken.set()

    def _gather(self) -> None:
        """Wait, with the lock, for the requests that are under way by now; only who leads does."""
        begun, until = self._expected.copy(), time.monotonic() + self._patience
        while len(self._waiting) < self._largest and not begun.isdisjoint(self._expected):
            if not self._changed.wait(max(0.0, until - time.monotonic())):
                return

    def _withdraw(self, who: object) -> None:
        with self._lock:
            self._expected.discard(who)
            self._changed.notify()

    def _answer(self, batch: Sequence[_Asked[Q, A]]) -> None:
        try:
            answers = self._answer_all([asked.question for asked in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for asked in batch:  # one of them is to blame: the others get their answer all the same
                self._answer([asked])
            return
        for asked, found in zip(batch, answers, strict=True):
            asked.answer = found


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

    def __init__(self, model: Predictor, *, largest: int, patience_ms: float = 0.0) -> None:
        self.model = model
        self.cohorts = Cohorts(largest=largest, patience_ms=patience_ms)
        self.batcher: Batcher[tuple[Histories, NDArray[np.int64]], IntentPrediction] = Batcher(
            self._all, largest=largest, patience_ms=patience_ms
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

    def __init__(self, model: Scorer, *, largest: int, patience_ms: float = 0.0) -> None:
        self.model = model
        self.batcher: Batcher[RankerInputs, NDArray[np.float64]] = Batcher(
            self._all, largest=largest, patience_ms=patience_ms
        )

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


@contextmanager
def under_way(models: Models) -> Iterator[Callable[[], None]]:
    """Go through the models in a cohort, and have it wait for this request at each, until it asked or ended.

    What is given is to be called when the request has done with the models.
    """
    if not isinstance(models.intent, BatchedPredictor):
        yield lambda: None
        return
    who = object()
    token = _who.set(who)
    try:
        with models.intent.cohorts.joined() as leave, ExitStack() as stack:
            for model in (models.intent, models.ranker):
                if isinstance(model, BatchedPredictor | BatchedScorer):
                    stack.enter_context(model.batcher.expecting(who))

            def done() -> None:
                stack.close()  # a model that it did without is not asked any more
                leave()

            yield done
    finally:
        _who.reset(token)


def batched(models: Models, *, largest: int, patience_ms: float = 0.0) -> Models:
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
    ranker = None if models.ranker is None else BatchedScorer(models.ranker, largest=largest, patience_ms=patience_ms)
    predictor = BatchedPredictor(models.intent, largest=largest, patience_ms=patience_ms)
    return replace(models, intent=predictor, ranker=ranker)
