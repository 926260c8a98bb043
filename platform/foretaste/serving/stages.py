"""The stages of an answer up to the scores: each gives what the next one needs, or the reason why it cannot.

Shapes: N titles (column j is catalogue code j + 1), N1 rows by catalogue code, C candidates of the pool,
G genres.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.decisions import Fallback, Level
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import Intent
from foretaste.models.intent import IntentPrediction
from foretaste.models.ranker_inputs import RankerInputs
from foretaste.serving.budget import INTENT, RANKER, SESSION_KNN, Guard, Guards, LateError
from foretaste.serving.fallback import session_genres, without_intent
from foretaste.serving.models import Models
from foretaste.serving.shaping import Asked, Shaped, arrange, may_not, shape
from foretaste.serving.slow import Views
from foretaste.serving.watch import Watch
from foretaste.signals.ranking import ranker_inputs

FILTER, SOURCES = "filter", "sources"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is visible of an actor."""

    actor_id: str
    asof_us: int
    history: Histories  # one
    rows: Sequence[dict[str, Any]]  # of the session log, in order of (at, event_id)
    mark: int
    failed: bool  # whether the log could not be read
    signals: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # [W]; none where they failed
    failures: tuple[str, ...] = ()  # what could not be read or computed
    why: Fallback | None = None  # why something could not

    @property
    def asof_B(self) -> NDArray[np.int64]:
        """The as-of time as models take it."""
        return np.array([self.asof_us], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Scored:
    """The pool with its scores, best first until it is arranged."""

    codes_C: NDArray[np.int32]
    scores_C: NDArray[np.float64]  # boosts included
    source: Level  # what the scores are of
    prediction: IntentPrediction | None
    fallback: Fallback | None
    pool_C: NDArray[np.int32]  # the same titles in the order in which they were described
    shaped: Shaped
    inputs: RankerInputs | None = None  # what the ranker was told of them, where its scores count


class UnscoredError(Exception):
    """The titles of a large catalogue could not be searched."""


class Predicted(NamedTuple):
    """What the intent model said, or why not."""

    prediction: IntentPrediction | None
    why: Fallback | None
    genre_G: NDArray[np.float32] | None = None  # all that was of use of a prediction that was none


def score(seen: Seen, views: Views, models: Models, asked: Asked, *, guards: Guards, watch: Watch) -> Scored:
    """Score the pool by the ranker, else by the intent model, else as `fallback` says; the reason says why not."""
    predicted = predict(seen, models, guard=guards[INTENT], watch=watch)
    num_out = len(models.catalogue) if predicted.prediction is not None else 0
    watch.lap(INTENT, num_in=len(seen.history.at_T), num_out=num_out)
    try:
        return _score(predicted, seen, views, models, asked, guards=guards, watch=watch)
    except UnscoredError:
        _log.exception("titles could not be searched for by the intent model; answering without")
        without = Predicted(None, Fallback.INTENT_FAILED)
        return _score(without, seen, views, models, asked, guards=guards, watch=watch)


def _score(
    predicted: Predicted, seen: Seen, views: Views, models: Models, asked: Asked, *, guards: Guards, watch: Watch
) -> Scored:
    """The same by what the intent model said. Raises UnscoredError where its query finds no titles."""
    num = len(models.catalogue)
    prediction, why, genre_G = predicted
    scores_N: NDArray[np.float32]
    if prediction is None:
        level, scores_N = without_intent(
            seen.history,
            seen.asof_B,
            neighbours=models.neighbours,
            guard=guards[SESSION_KNN],
            elapsed_ms=watch.elapsed_ms,
            titles=views.titles,
            catalogue=models.catalogue,
            shares=_wanted(seen, views, models, genre_G),
        )
        watch.lap(level.value, num_in=num, num_out=num)
    else:
        level = Level.INTENT
    blocked_N1 = may_not(models, seen.history, asked, asof=seen.asof_us)
    watch.lap(FILTER, num_in=num, num_out=num + 1 - int(blocked_N1.sum()))
    shaped = shape(
        models,
        seen.history,
        seen.signals,
        views.members,
        views.titles.plays_7d,
        asked,
        asof=seen.asof_us,
        blocked_N1=blocked_N1,
        similar=prediction is not None,
    )
    watch.lap(SOURCES, num_in=num, num_out=len(np.unique(shaped.brought.all)))
    if prediction is not None:
        prediction = _searched(shaped, models, prediction, size=asked.pool_size)
        scores_N = prediction.scores_BN[0]
    codes_C = shaped.pool(scores_N, size=asked.pool_size, log=level is Level.INTENT)
    watch.lap("pool", num_in=num, num_out=len(codes_C))
    own_C = scores_N[codes_C - 1].astype(np.float64)
    if prediction is None:
        return _ordered(codes_C, own_C, level, shaped, None, why)
    if len(codes_C) == 0:
        return _ordered(codes_C, own_C, level, shaped, prediction, None)
    ranked, why = _rank(seen, views, models, prediction, codes_C, guard=guards[RANKER], watch=watch)
    watch.lap(RANKER, num_in=len(codes_C), num_out=len(codes_C) if ranked is not None else 0)
    if ranked is None:
        return _ordered(codes_C, own_C, level, shaped, prediction, why)
    ranked_C, inputs = ranked
    return _ordered(codes_C, ranked_C, Level.RANKER, shaped, prediction, seen.why or views.why, inputs)


def _searched(shaped: Shaped, models: Models, prediction: IntentPrediction, *, size: int) -> IntentPrediction:
    try:
        return shaped.scored(models, prediction, size=size)
    except Exception as error:  # whatever it is, the member still gets a list, and the answer says why
        raise UnscoredError from error


def _ordered(
    codes_C: NDArray[np.int32],
    scores_C: NDArray[np.float64],
    source: Level,
    shaped: Shaped,
    prediction: IntentPrediction | None,
    why: Fallback | None,
    inputs: RankerInputs | None = None,
) -> Scored:
    """Boost the scores of the pool and put the best first, equal ones in its order."""
    boosted_C = shaped.lifted(scores_C, codes_C, log=source is Level.INTENT)
    order_C = np.argsort(-boosted_C, kind="stable")
    return Scored(codes_C[order_C], boosted_C[order_C], source, prediction, why, codes_C, shaped, inputs)


def arranged(scored: Scored, models: Models, asked: Asked, *, num_new: int) -> tuple[Scored, tuple[int, ...]]:
    """Put the pool into the order of the list, as far as that is not left to a policy, with the places that are not.

    `num_new` is how many events were new since the list before.
    """
    order_C, protected = arrange(models, scored.codes_C, asked, num_new=num_new)
    return replace(scored, codes_C=scored.codes_C[order_C], scores_C=scored.scores_C[order_C]), protected


def predict(seen: Seen, models: Models, *, guard: Guard, watch: Watch) -> Predicted:
    """Ask the intent model, or say why it was not asked or had no answer."""
    model = models.intent
    if model is None:
        return Predicted(None, Fallback.NO_MODEL)

    def ask() -> IntentPrediction:
        return model.predict(seen.history, seen.asof_B)

    try:
        prediction = guard.run(watch.elapsed_ms, ask)
    except LateError as why:
        _log.warning("%s; answering without the intent model", why)
        return Predicted(None, Fallback.INTENT_LATE)
    except Exception:  # whatever it is, the member still gets a list, and the answer says why it is another one
        _log.exception("the intent model failed; answering without")
        return Predicted(None, Fallback.INTENT_FAILED)
    said = {"scores": prediction.scores_BN, "attention": prediction.attention_BI, **prediction.intents}
    spoiled = [what for what, values in said.items() if not np.isfinite(values).all()]
    if not spoiled:
        return Predicted(prediction, None)
    _log.error("the intent model failed: its %s are not finite; answering without", ", ".join(spoiled))
    genre_BG = prediction.intents.get(Intent.GENRE.value)
    told = genre_BG is not None and prediction.classes[Intent.GENRE.value] == models.catalogue.genres
    return Predicted(None, Fallback.INTENT_FAILED, genre_BG[0] if told and genre_BG is not None else None)


def _wanted(
    seen: Seen, views: Views, models: Models, genre_G: NDArray[np.float32] | None
) -> list[NDArray[np.float32] | None]:
    """Shares of genres by which what is popular is chosen: of the intent, of the session so far, of the member."""
    of_session = session_genres(seen.history, seen.asof_B, models.catalogue, models.rule)
    return [genre_G, of_session, views.members.genre_affinity_BG[0]]


def _rank(
    seen: Seen,
    views: Views,
    models: Models,
    prediction: IntentPrediction,
    codes_C: NDArray[np.int32],
    *,
    guard: Guard,
    watch: Watch,
) -> tuple[tuple[NDArray[np.float64], RankerInputs] | None, Fallback | None]:
    """Scores of the pool and what they are of, or why there are none."""
    ranker = models.ranker
    if ranker is None:
        return None, Fallback.NO_MODEL

    def rank() -> tuple[NDArray[np.float64], RankerInputs]:
        inputs = ranker_inputs(
            seen.history,
            seen.asof_B,
            codes_C[None, :],
            prediction,
            {name: value_W[None] for name, value_W in seen.signals.items()},
            models.catalogue,
            views.members,
            views.titles,
            length=ranker.recent,
            rule=models.rule,
        )
        ranked_C = ranker.scores(inputs)[0]
        _finite(ranked_C, "ranker scores")
        return ranked_C, inputs

    try:
        return guard.run(watch.elapsed_ms, rank), None
    except LateError as why:
        _log.warning("%s; answering by the intent model", why)
        return None, Fallback.RANKER_LATE
    except Exception:  # see above
        _log.exception("the ranker failed; answering by the intent model")
        return None, Fallback.RANKER_FAILED


def _finite(scores: NDArray[np.floating[Any]], what: str) -> None:
    if not np.isfinite(scores).all():
        raise ValueError(f"{what} are not finite")
