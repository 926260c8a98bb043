"""A logged decision as the replay reads it.

Shapes: C candidates of the pool.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.decisions import Fallback
from foretaste.contracts.events import actor_id
from foretaste.contracts.sessions import SessionRule
from foretaste.contracts.wire import RecommendRequest
from foretaste.feedback.forgotten import MEMBERS_VERSION
from foretaste.feedback.past import Past
from foretaste.feedback.session_log import SessionLogConfig
from foretaste.serving.earlier import asked_of
from foretaste.serving.models import Models
from foretaste.serving.posteriors import Learned
from foretaste.serving.problems import ConflictError
from foretaste.serving.record import (
    CATALOGUE,
    FAILED,
    GENERATION,
    INDEX,
    NEIGHBOURS,
    RULE,
    TITLES_GENERATION,
    TITLES_VERSION,
    WINDOW,
)
from foretaste.serving.shaping import Asked
from foretaste.signals.served import POOL, Values, decode
from foretaste.signals.views import ABSENT

NO_INTENT = frozenset({Fallback.INTENT_FAILED, Fallback.INTENT_LATE})
NO_RANKER = NO_INTENT | {Fallback.RANKER_FAILED, Fallback.RANKER_LATE}


class LeftOutError(ConflictError):
    """Why a decision cannot be made again."""


@dataclass(frozen=True, slots=True)
class Logged:
    """One decision with its models."""

    row: Mapping[str, Any]
    models: Models
    known: Mapping[str, str]  # `features` of the decision
    values: Values  # what was served, and what was decided
    candidates_C: NDArray[np.int32]  # in order of their scores
    pool_C: NDArray[np.int32] | None  # the same in order of the pool; None where it is not of them
    title_versions: dict[int, int]  # by code
    asked: Asked
    learned: Learned | None = None  # the posterior that its policy chose by
    otherwise: bool = False  # made with other models than its own: the pool is theirs

    @property
    def decision_id(self) -> str:
        """Its name."""
        return str(self.row["decision_id"])

    @property
    def request(self) -> RecommendRequest:
        """What was asked, of a list that goes on with what the first of them was."""
        return self.asked.request

    @property
    def asof_us(self) -> int:
        """Its instant."""
        return int(self.row["at"])

    @property
    def kind(self) -> tuple[Any, ...]:
        """Decisions of one kind are computed together."""
        models = (id(self.models.intent), self.models.ranker_fingerprint, self.known[RULE])
        return (*models, self.generation, self.titles_generation)

    @property
    def generation(self) -> str | None:
        """Generation of the member's slow view."""
        return self.known.get(GENERATION)

    @property
    def titles_generation(self) -> str | None:
        """Generation of the titles' slow views."""
        return self.known.get(TITLES_GENERATION)

    @property
    def member_version(self) -> int:
        """Version of the member's slow view."""
        return int(self.known[MEMBERS_VERSION])

    @property
    def failed(self) -> list[str]:
        """Inputs that could not be read when it was made."""
        return [name for name in self.known.get(FAILED, "").split(",") if name]

    @property
    def has_intent(self) -> bool:
        """Whether the intent model was asked and answered."""
        return self.row["intent_model"] is not None and self.row["fallback"] not in NO_INTENT

    @property
    def by_neighbours(self) -> bool:
        """Whether its scores are those of the nearest sessions."""
        return NEIGHBOURS in self.known and not self.otherwise

    @property
    def has_ranker(self) -> bool:
        """Whether the ranker ordered the pool."""
        asked = self.has_intent and self.row["ranker_model"] is not None and len(self.candidates_C) > 0
        return asked and self.row["fallback"] not in NO_RANKER

    def visible(self, past: Past) -> NDArray[np.int64]:
        """Events that it saw, by their number in `past`."""
        actor = actor_id(self.row["member_id"], self.row["session_id"])
        log = SessionLogConfig(**json.loads(self.known[WINDOW]))
        return past.visible(
            actor,
            limit=log.read_events,
            mark=self.row["sequence_mark"],
            before_us=self.asof_us,
            window_us=log.window_us(actor),
        )


def neighbours_named(row: Mapping[str, Any]) -> str | None:
    """Fingerprint of the nearest sessions whose scores a DECISIONS row has; None where they are of something else."""
    return next((one["value"] for one in row["features"] if one["name"] == NEIGHBOURS), None)


def index_named(row: Mapping[str, Any]) -> str | None:
    """Name of the index that found the pool of a DECISIONS row; None where each title was scored."""
    return next((one["value"] for one in row["features"] if one["name"] == INDEX), None)


def logged(row: Mapping[str, Any], models: Models) -> Logged:
    """Read a DECISIONS row, times in microseconds. Raises LeftOutError saying why it cannot be made again."""
    known = {one["name"]: one["value"] for one in row["features"]}
    missing = [name for name in (CATALOGUE, RULE, WINDOW, MEMBERS_VERSION, TITLES_VERSION) if name not in known]
    if missing:
        raise LeftOutError(f"the decision does not say {', '.join(missing)}")
    if known[CATALOGUE] != models.catalogue.fingerprint:
        raise LeftOutError("the catalogue of the decision is gone")
    try:
        served = decode(row["served"])
        asked = asked_of(row, RecommendRequest.model_validate_json(row["request"]))
        models = replace(models, rule=SessionRule(**json.loads(known[RULE])))
    except ValueError as error:
        raise LeftOutError("the decision cannot be read") from error
    candidates_C = models.catalogue.codes(list(row["candidates"]))
    codes_C = served.get(POOL)
    versions = json.loads(known[TITLES_VERSION])
    each = versions if isinstance(versions, list) else [versions] * len(candidates_C)
    if len(each) != len(candidates_C):
        raise LeftOutError("the decision has versions of other titles than its own")
    return Logged(
        row,
        models,
        known,
        served | _decided(row, models, candidates_C),
        candidates_C,
        codes_C if codes_C is not None and same_titles(codes_C, candidates_C) else None,
        dict(zip(candidates_C.tolist(), each, strict=True)),
        asked,
    )


def otherwise(one: Logged, models: Models) -> Logged:
    """The same decision as if it had been made with other models, with no stage left out; nothing was served of it."""
    named = {"intent_model": models.intent_fingerprint, "ranker_model": models.ranker_fingerprint}
    row = {**one.row, **named, "fallback": None, "served": None}
    models = replace(models, rule=one.models.rule)
    return replace(one, row=row, models=models, values={}, pool_C=None, otherwise=True)


def same_titles(one_C: NDArray[np.int32], other_C: NDArray[np.int32]) -> bool:
    """Whether two pools hold the same titles, in whatever order."""
    return sorted(one_C.tolist()) == sorted(other_C.tolist())


def _decided(row: Mapping[str, Any], models: Models, candidates_C: NDArray[np.int32]) -> Values:
    newest = row["newest_event_at"]
    return {
        "decision.num_events_visible": np.array(row["num_events_visible"], dtype=np.int64),
        "decision.newest_event_at": np.array(ABSENT if newest is None else newest, dtype=np.int64),
        "decision.candidates": candidates_C,
        "decision.scores": np.array(row["candidate_scores"], dtype=np.float64),
        "decision.slate": models.catalogue.codes([item["title_id"] for item in row["items"]]),
        "decision.propensity": np.array([item["propensity"] for item in row["items"]], dtype=np.float64),
    }
