"""The models in deployments of their own (`model_stages`): how the chain asks them from any of its threads.

Weights are kept where they compute. The ingress keeps catalogue and title vectors, for its sources; since a question
names its model, an ingress that goes over to another release needs nobody's consent.

Shapes: B requests, C candidates of each, D width, N1 rows by catalogue code.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.histories import Histories
from foretaste.models.intent import IntentPrediction
from foretaste.models.ranker import RankerConfig
from foretaste.models.ranker_inputs import RankerInputs
from foretaste.models.title_query import TitleTable
from foretaste.ops.bundles import Bundle
from foretaste.ops.files import read_json
from foretaste.serving.budget import LateError
from foretaste.serving.config import ServiceConfig
from foretaste.serving.engine import waited
from foretaste.serving.models import HERE, INTENT, RANKER, Predictor, Scorer
from foretaste.serving.tracing import carried

M = TypeVar("M")

_log = logging.getLogger(__name__)


class HandleLoop:
    """An event loop in a thread of its own, in which handles are asked for all threads.

    With Ray Serve's throughput settings a handle belongs to the loop in which it is first used, and cannot be waited
    for from a thread; in a loop of its own it works with them and without.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="handles", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, M], *, seconds: float) -> M:
        """Wait for `work`; raises what it raises, or TimeoutError when it is given up."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waited(future, seconds)
        finally:
            future.cancel()

    def close(self) -> None:
        """Give up what is waited for, and end the thread."""
        asyncio.run_coroutine_threadsafe(self._give_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _give_up(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class Remote:
    """One stage behind its handle; every method may be called from any thread."""

    def __init__(
        self, stage: str, handle: Any, loop: HandleLoop, *, seconds: float, busy: tuple[type[Exception], ...] = ()
    ) -> None:
        """`seconds` is how long an answer is waited for; `busy` is what the handle raises where a queue is full."""
        self.stage = stage
        self.seconds = seconds
        self._handle = handle
        self._loop = loop
        self._busy = busy

    def ask(self, method: str, *args: Any, seconds: float | None = None, trace: str | None = None) -> Any:
        """Call a method of the stage, which goes on with a trace where one is given.

        Raises LateError where it has no answer in time, and whatever it raises.
        """
        waits = self.seconds if seconds is None else seconds
        named = {} if trace is None else {"trace": trace}
        try:
            return self._loop.run(self._ask(method, args, named), seconds=waits)
        except TimeoutError as error:
            raise LateError(f"{self.stage}: its deployment had no answer after {waits:.3f} s") from error
        except self._busy as error:
            raise LateError(f"{self.stage}: its deployment takes no more") from error

    def patient(self, seconds: float) -> Remote:
        """The same, waiting as long as that."""
        return Remote(self.stage, self._handle, self._loop, seconds=seconds, busy=self._busy)

    async def _ask(self, method: str, args: tuple[Any, ...], named: Mapping[str, str]) -> Any:
        return await getattr(self._handle, method).remote(*args, **named)


class RemotePredictor:
    """An intent model that computes elsewhere; its title vectors are here, for the sources."""

    def __init__(
        self, remote: Remote, fingerprint: str, title_N1D: NDArray[np.float32], *, steady: bool, scored: bool = True
    ) -> None:
        self._remote = remote
        self._scored = scored
        self._fingerprint = fingerprint
        self._title_N1D = title_N1D
        self._steady = steady

    @property
    def title_N1D(self) -> NDArray[np.float32]:
        """Title vectors, row 0 for an unknown title."""
        return self._title_N1D

    @property
    def steady(self) -> bool:
        """As the model itself: where it computes changes nothing."""
        return self._steady

    def predict(self, histories: Histories, asof_B: NDArray[np.int64]) -> IntentPrediction:
        """Ask the stage. Raises LateError, or what Ray raises where it died over the question."""
        asked = (self._fingerprint, self._scored, histories, asof_B)
        found: IntentPrediction = self._remote.ask("predict", *asked, trace=carried())
        return found


class RemoteScorer:
    """A ranker that computes elsewhere."""

    def __init__(self, remote: Remote, intent: str, ranker: str, *, recent: int) -> None:
        self._remote = remote
        self._key = (intent, ranker)
        self._recent = recent

    @property
    def recent(self) -> int:
        """How many of the newest interactions it reads."""
        return self._recent

    def scores(self, inputs: RankerInputs) -> NDArray[np.float64]:
        """Ask the stage; raises as `RemotePredictor.predict`."""
        found: NDArray[np.float64] = self._remote.ask("scores", *self._key, inputs, trace=carried())
        return found


class There:
    """`models.Parts` that compute in the stages; of a model here is what the ingress itself reads."""

    def __init__(self, intent: Remote, ranker: Remote, *, load_seconds: float) -> None:
        """`load_seconds` is how long a stage is given to load a model before that is asked."""
        self._intent = intent
        self._ranker = ranker
        self._load_seconds = load_seconds

    def intent(self, bundle: Bundle, known: Catalogue) -> Predictor:
        """Make the title vectors, with weights that are not kept, as the stage does: to the same bits."""
        model = HERE.intent(bundle, known)
        self._have(self._intent, bundle.fingerprint)
        return RemotePredictor(self._intent, bundle.fingerprint, model.title_N1D.copy(), steady=model.steady)

    def without_scores(self, bundle: Bundle, known: Catalogue) -> tuple[Predictor, TitleTable]:
        """Make the same for queries; the titles' table is here, where it is known what may be shown."""
        model = HERE.intent(bundle, known)
        vectors_N1D, table = model.title_N1D.copy(), model.titles
        self._have(self._intent, bundle.fingerprint)
        return RemotePredictor(self._intent, bundle.fingerprint, vectors_N1D, steady=model.steady, scored=False), table

    def ranker(self, bundle: Bundle, intent: Bundle, predictor: Predictor) -> Scorer:
        """Read what the ranker has to be told; its columns are checked here, before anything is asked."""
        recent = RankerConfig(**read_json(bundle.path / "config.json")["model"]).recent
        HERE.ranker(bundle, intent, predictor)
        self._have(self._ranker, intent.fingerprint, bundle.fingerprint)
        return RemoteScorer(self._ranker, intent.fingerprint, bundle.fingerprint, recent=recent)

    def wait(self, seconds: float) -> None:
        """Wait until both stages answer, or so long; without them answers come from the fallbacks."""
        for remote in (self._intent, self._ranker):
            try:
                remote.ask("ready", seconds=seconds)
            except Exception:
                _log.exception("stage %s does not answer; answers do without it until it does", remote.stage)

    def patient(self, seconds: float) -> There:
        """The same, waiting as long as that for each answer."""
        return There(self._intent.patient(seconds), self._ranker.patient(seconds), load_seconds=self._load_seconds)

    def _have(self, remote: Remote, *key: str) -> None:
        """Have one replica of a stage load a model, so that its first answer is not late."""
        try:
            remote.ask("load", *key, seconds=self._load_seconds)
        except Exception:
            _log.exception("stage %s has not loaded a model; it is tried again when it is asked for", remote.stage)


def stages_behind(
    handles: Mapping[str, Any], config: ServiceConfig, *, loop: HandleLoop, busy: tuple[type[Exception], ...] = ()
) -> There:
    """The stages behind their handles, by stage; each may take as long as its share of the budget."""
    deadlines_ms = config.serving.budget.deadlines_ms(config.serving.budget_ms)
    intent, ranker = (
        Remote(stage, handles[stage], loop, seconds=deadlines_ms[stage] / 1e3, busy=busy) for stage in (INTENT, RANKER)
    )
    return There(intent, ranker, load_seconds=config.serving.composed.replay_seconds)
