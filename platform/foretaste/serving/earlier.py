"""Lists that were answered earlier: what a request goes on with, or is held against."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from foretaste.contracts.controls import VERSION, Controls, ControlsConfig, Kind
from foretaste.contracts.events import actor_id
from foretaste.contracts.sessions import SessionRule
from foretaste.contracts.wire import NextRequest, RankRequest, RecommendRequest
from foretaste.feedback.decision_log import DecisionLog
from foretaste.feedback.forgotten import before_deletion
from foretaste.feedback.session_log import microseconds
from foretaste.serving.budget import Guard
from foretaste.serving.names import is_decision_name
from foretaste.serving.problems import RefusedError
from foretaste.serving.shaping import SURFACES, Asked
from foretaste.serving.shedding import Shed, ShedError
from foretaste.serving.shown import Last, Shown
from foretaste.serving.watch import Watch

_log = logging.getLogger(__name__)

MAX_ABOVE = 1_000
"""Titles after which a list does not go on."""
NEWER_THAN = timedelta(hours=24)
"""Age up to which a list can be gone on with."""


class Earlier:
    """Makes `Asked` of requests by what was answered before."""

    def __init__(
        self,
        decisions: DecisionLog,
        config: ControlsConfig,
        *,
        guard: Guard,
        goes_on: Guard,
        deleted: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """`guard` bounds the search for a list by name.

        `goes_on` bounds it where nothing can be answered without the list.

        `deleted` says up to when (microseconds) which actors are deleted: their lists of before are none.
        """
        self._deleted = deleted
        self._decisions = decisions
        self._guard = guard
        self._goes_on = goes_on
        self._config = config
        self.shown = Shown()

    def recommend(
        self, request: RecommendRequest, actor: str, at: datetime, watch: Watch, *, rule: SessionRule
    ) -> Asked:
        """Hold a list against the one before, unless its session has ended by the rule.

        Raises RefusedError for a surface there is not.
        """
        if request.surface not in SURFACES:
            raise RefusedError("surface", f"there is no surface {request.surface!r}; there are {sorted(SURFACES)}")
        ended_us = microseconds(at - timedelta(minutes=rule.gap_minutes))
        since_us = max(ended_us, self._deleted().get(actor, -1) + 1)
        last = self.shown.get(actor, request, since_us=since_us)
        if request.shown_id is not None and (last is None or last.decision_id != request.shown_id):
            last = self._named(request, request.shown_id, since_us, watch) or last
        if last is None:
            return Asked(request, Kind.RECOMMEND, Controls(config=self._config))
        controls = Controls(config=self._config, before=last.title_ids, before_mark=last.mark)
        return Asked(request, Kind.RECOMMEND, controls, last.decision_id)

    def next(self, request: NextRequest, at: datetime, watch: Watch) -> Asked:
        """Go on after a list. Raises RefusedError naming decision_id where there is none of the session that does,
        ShedError where it cannot be read now.
        """
        row = None
        if is_decision_name(request.decision_id):
            try:
                row = self._goes_on.run(watch.elapsed_ms, lambda: self._decisions.get(request.decision_id))
            except OSError as error:  # a disk that fails, or takes too long
                _log.error("decision %s could not be read: %s", request.decision_id, error)
                raise ShedError(Shed.GOES_ON) from error
        if row is None or not _of(row, request.member_id, request.session_id) or self._is_gone(row):
            raise RefusedError("decision_id", f"there is no decision {request.decision_id} of this session")
        if row["kind"] == Kind.RANK or row["surface"] not in SURFACES:
            raise RefusedError("decision_id", f"{request.decision_id} ranked given titles: nothing comes after them")
        if row["at"] < microseconds(at - NEWER_THAN):
            raise RefusedError("decision_id", f"{request.decision_id} is older than {NEWER_THAN}: ask for a new list")
        above = (*_controls(row).above, *(item["title_id"] for item in row["items"]))
        if len(above) > MAX_ABOVE:
            raise RefusedError("decision_id", f"the list has {len(above)} titles and goes on up to {MAX_ABOVE}")
        before = RecommendRequest.model_validate_json(row["request"])
        asked = before.model_copy(
            update={
                "member_id": request.member_id,
                "session_id": request.session_id,
                "k": request.k,
                "policy": request.policy or before.policy,
                "explain": request.explain,
                "dry_run": request.dry_run,
                "shown_id": None,
            }
        )
        return Asked(asked, Kind.NEXT, Controls(config=self._config, above=above), request.decision_id)

    def rank(self, request: RankRequest) -> Asked:
        """Order given titles: nothing else is brought, nothing is held, and the order is the scores' own."""
        same = {"member_id", "session_id", "surface", "k", "context", "filter", "boost", "policy", "explain", "dry_run"}
        config = self._config.model_copy(update={"diversity": 0.0, "protected": 0, "max_move": None})
        controls = Controls(config=config, candidates=tuple(dict.fromkeys(request.candidates)))
        asked = RecommendRequest.model_construct(**{name: getattr(request, name) for name in same})  # checked before
        return Asked(asked, Kind.RANK, controls)

    def _named(self, request: RecommendRequest, decision_id: str, since_us: int, watch: Watch) -> Last | None:
        """The list that a request names; None where it is none of this session, or takes too long to be found.

        Steadiness is lost then, nothing else.
        """
        if not is_decision_name(decision_id):
            return None
        try:
            row = self._guard.run(watch.elapsed_ms, lambda: self._decisions.get(decision_id))
        except Exception as error:  # an answer does without
            _log.warning("decision %s could not be read: %s", decision_id, error)
            return None
        if row is None or not _of(row, request.member_id, request.session_id) or self._is_gone(row):
            return None
        if row["surface"] != request.surface or row["at"] < since_us or row["kind"] != Kind.RECOMMEND:
            return None
        titles = tuple(item["title_id"] for item in row["items"])
        return Last(decision_id, titles, row["sequence_mark"], row["at"])

    def _is_gone(self, row: Mapping[str, Any]) -> bool:
        named = {**row, "actor_id": actor_id(row["member_id"], row["session_id"])}
        return before_deletion(named, self._deleted())


def asked_of(row: Mapping[str, Any], request: RecommendRequest) -> Asked:
    """What a DECISIONS row was asked. Raises ValueError for controls that cannot be read or are of another version."""
    controls = _controls(row)
    if controls.version != VERSION:
        raise ValueError(f"controls: the list was arranged by version {controls.version}, this is version {VERSION}")
    return Asked(request, Kind(row["kind"] or Kind.RECOMMEND), controls, row["previous_id"])


def _controls(row: Mapping[str, Any]) -> Controls:
    return Controls() if row["controls"] is None else Controls(**json.loads(row["controls"]))


def _of(row: Mapping[str, Any], member_id: str | None, session_id: str) -> bool:
    """Whether a decision is of a session; one that a guest got counts for the member that they turned out to be."""
    return row["session_id"] == session_id and row["member_id"] in (None, member_id)
