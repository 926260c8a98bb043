"""What runs in a deployment of its own: models by fingerprint, asked by many at once. Plain; Ray is put on in `graph`.

A question names its model: whichever replica answers, restarted or not, it is by the model that the decision names.

Shapes: B requests, C candidates of each.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from foretaste.contracts.histories import Histories
from foretaste.models.intent import IntentPrediction, IntentRecommender
from foretaste.models.ranker_inputs import RankerInputs
from foretaste.models.ranker_scorer import RankerScorer
from foretaste.serving.batching import batched
from foretaste.serving.config import ServiceConfig, of_replica
from foretaste.serving.engine import Engine
from foretaste.serving.models import Models, Predictor, Scorer, WithoutScores, current_fingerprints, models_of
from foretaste.serving.tracing import TRACES_FOLDER, continued, open_tracing

K = TypeVar("K")
M = TypeVar("M")

_log = logging.getLogger(__name__)


class Kept(Generic[K, M]):
    """The newest few of what takes long to load; every method may be called from any thread."""

    def __init__(self, load: Callable[[K], M], *, size: int) -> None:
        self._load = load
        self._size = size
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._found: OrderedDict[K, M] = OrderedDict()

    def get(self, key: K) -> M:
        """What is asked for, loaded where it is not there; who asks for what is there waits for nobody's loading."""
        if (found := self.known(key)) is not None:
            return found
        with self._loading:
            if (found := self.known(key)) is not None:
                return found
            loaded = self._load(key)
        with self._lock:
            self._found[key] = loaded
            while len(self._found) > self._size:
                self._found.popitem(last=False)
        return loaded

    def known(self, key: K) -> M | None:
        """What is asked for, where it is there."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
            return self._found.get(key)


class Stage:
    """What the stages share: models of the workspace, and an engine in which questions share passes."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        torch.set_num_threads(1)  # as in the fused topology: sums divided otherwise round otherwise
        self._config = of_replica(config)
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="loading")
        self._engine = Engine()
        self._tracing = open_tracing(self._config.serving.tracing, self._config.workspace / "serving" / TRACES_FOLDER)

    async def ready(self) -> bool:
        """Answer, so that who starts knows that somebody does."""
        return True

    async def _of(self, kept: Kept[K, M], key: K) -> M:
        """What is kept; what has to be loaded is in a thread of its own, for that takes long."""
        found = kept.known(key)
        if found is not None:
            return found
        return await asyncio.get_running_loop().run_in_executor(self._loading, kept.get, key)

    async def _computed(self, work: Callable[[], M]) -> M:
        return await asyncio.wrap_future(self._engine.submit(work))

    def _models(self, intent: str, ranker: str | None) -> Models:
        folder = self._config.workspace
        models = models_of(folder / "registry", folder / "prepared", intent=intent, ranker=ranker)
        if torch.cuda.is_available():  # Ray shows a replica the GPUs that it booked, and no others
            models = replace(models, intent=_on_gpu(models.intent), ranker=_on_gpu(models.ranker))
        return models

    def _batched(self, models: Models) -> Models:
        return batched(models, largest=self._config.serving.batch_requests)

    def _current(self) -> tuple[str | None, str | None]:
        """What is asked for first, in all likelihood."""
        try:
            return current_fingerprints(self._config.workspace / "registry")
        except Exception:  # what is asked for is loaded when it is asked for
            _log.exception("the current release cannot be read; its models are loaded when they are asked for")
            return None, None


class Intents(NamedTuple):
    """One intent model as it is asked."""

    scored: Predictor | None
    unscored: Predictor | None

    def of(self, scored: bool) -> Predictor:
        """The one that scores titles, or the other."""
        found = self.scored if scored else self.unscored
        assert found is not None
        return found


class IntentStage(Stage):
    """The intent model in a replica of its own; plain, Ray is put on in `graph`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        settings = ServiceConfig.model_validate(config).serving.composed
        super().__init__(config)
        self._kept: Kept[str, Intents] = Kept(self._load, size=settings.models_kept)
        intent, _ = self._current()
        if intent is not None:
            _tried(lambda: self._kept.get(intent), intent)

    async def predict(
        self,
        fingerprint: str,
        scored: bool,
        histories: Histories,
        asof_B: NDArray[np.int64],
        trace: str | None = None,
    ) -> IntentPrediction:
        """Predict by the model of a fingerprint, with `scored` titles or without; with those who ask as well."""
        with continued(self._tracing, "stage intent", trace, model=fingerprint):
            intents = await self._of(self._kept, fingerprint)
            return await self._computed(lambda: intents.of(scored).predict(histories, asof_B))

    async def load(self, fingerprint: str) -> bool:
        """Have a model at hand before it is asked."""
        await self._of(self._kept, fingerprint)
        return True

    def _load(self, fingerprint: str) -> Intents:
        models = self._models(fingerprint, None)
        assert isinstance(models.intent, IntentRecommender)
        few = replace(models, intent=WithoutScores(models.intent))
        return Intents(*(self._batched(one).intent for one in (models, few)))


class RankerStage(Stage):
    """The ranker in a replica of its own; plain, Ray is put on in `graph`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        settings = ServiceConfig.model_validate(config).serving.composed
        super().__init__(config)
        self._kept: Kept[tuple[str, str], Scorer] = Kept(self._load, size=settings.models_kept)
        intent, ranker = self._current()
        if intent is not None and ranker is not None:
            _tried(lambda: self._kept.get((intent, ranker)), ranker)

    async def scores(
        self, intent: str, ranker: str, inputs: RankerInputs, trace: str | None = None
    ) -> NDArray[np.float64]:
        """Score by the ranker of a fingerprint, that was trained with an intent model's; with those who ask now."""
        with continued(self._tracing, "stage ranker", trace, model=ranker):
            scorer = await self._of(self._kept, (intent, ranker))
            return await self._computed(lambda: scorer.scores(inputs))

    async def load(self, intent: str, ranker: str) -> bool:
        """Have a model at hand before it is asked."""
        await self._of(self._kept, (intent, ranker))
        return True

    def _load(self, key: tuple[str, str]) -> Scorer:
        """The intent model's weights make the title vectors, and are not kept."""
        found = self._batched(self._models(*key)).ranker
        assert found is not None
        return found


def _on_gpu(model: Any) -> Any:
    """The same model on the GPU."""
    if isinstance(model, IntentRecommender):
        return IntentRecommender(model.model.to("cuda"), model.catalogue, model.labels)
    return RankerScorer(model.model.to("cuda")) if isinstance(model, RankerScorer) else model


def _tried(load: Callable[[], object], fingerprint: str) -> None:
    try:
        load()
    except Exception:
        _log.exception("model %s cannot be loaded; it is tried again when it is asked for", fingerprint)
