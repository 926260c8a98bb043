"""The chain of an answer: what is visible, intent, pool, ranker, policy, decision log. Plain Python, no Ray."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from numpy.typing import NDArray

from foretaste.contracts.events import actor_id
from foretaste.contracts.wire import IntentAnswer, IntentRequest, PolicyName, RecommendAnswer, RecommendRequest
from foretaste.feedback.decision_log import DecisionLog
from foretaste.feedback.session_log import SessionLog, microseconds
from foretaste.policies.epsilon_greedy import EpsilonGreedy
from foretaste.policies.slate import dice
from foretaste.serving.answer import answer
from foretaste.serving.config import ServingConfig
from foretaste.serving.intents import intent_answer
from foretaste.serving.models import INTENT, Models
from foretaste.serving.problems import RefusedError
from foretaste.serving.record import SESSION_LOG, SIGNALS, reading, record
from foretaste.serving.segments import PublishedSegments
from foretaste.serving.slow import SlowViews, Views
from foretaste.serving.stages import Scored, Seen, predict, score
from foretaste.serving.watch import Watch
from foretaste.signals.acts import acts_of_one
from foretaste.signals.signals import signals_of_one
from foretaste.surfaces.prequery import PREQUERY, Surface, blocked

SURFACES: dict[str, Surface] = {PREQUERY.name: PREQUERY}

_log = logging.getLogger(__name__)


def fresh_seed() -> int:
    """Draw a seed from the system: 63 bits, so that it fits the decision log."""
    return secrets.randbits(63)


def decision_name(at: datetime, *, bits: int) -> str:
    """Name a decision so that names sort by time (the milliseconds come first) and nobody guesses them."""
    return f"{microseconds(at) // 1000:012x}{bits:020x}"


def is_decision_name(name: str) -> bool:
    """Say whether `decision_name` can have made it, so that nobody has the whole log read for nonsense."""
    return re.fullmatch(r"[0-9a-f]{32}", name) is not None


class Recommender:
    """Answers requests one at a time, in the thread that calls it."""

    def __init__(
        self,
        models: Models,
        views: SlowViews,
        sessions: SessionLog,
        decisions: DecisionLog,
        config: ServingConfig,
        *,
        clock: Callable[[], datetime],
        timer: Callable[[], float],
        seeds: Callable[[], int] = fresh_seed,
        audit: Callable[[Mapping[str, Any]], None] | None = None,
        segments: PublishedSegments | None = None,
    ) -> None:
        """`audit` is given every decision that was logged, `segments` tells which one an embedding belongs to."""
        self.models = models
        self._views = views
        self._sessions = sessions
        self._decisions = decisions
        self._config = config
        self._clock = clock
        self._timer = timer
        self._seeds = seeds
        self._audit = audit
        self._segments = segments
        self._policies = {
            PolicyName.GREEDY: EpsilonGreedy(0.0),
            PolicyName.EPSILON_GREEDY: EpsilonGreedy(config.epsilon),
        }
        self._reading = reading(models, config.session_log)

    def recommend(self, request: RecommendRequest) -> RecommendAnswer:
        """Answer a request and log the decision. Raises RefusedError naming the field for a surface there is not."""
        surface = SURFACES.get(request.surface)
        if surface is None:
            raise RefusedError("surface", f"there is no surface {request.surface!r}; there are {sorted(SURFACES)}")
        watch, at, seed = Watch(self._timer), self._clock(), self._seeds()
        seen = self._see(request, at)
        watch.lap(SESSION_LOG, num_in=1, num_out=len(seen.rows))
        views = self._views.read(request.member_id, asof=seen.asof_us)
        watch.lap("features", num_in=1, num_out=1 + len(self.models.catalogue))
        scored = self._score(request, seen, views, surface, watch)
        policy = self._policies[request.policy or self._config.policy]
        slate = policy.choose(scored.scores_C, k=request.k, rng=dice(seed))
        watch.lap("policy", num_in=len(scored.codes_C), num_out=len(slate))
        decision_id = None
        if not request.dry_run:
            decision_id = decision_name(at, bits=secrets.randbits(80))
            row = record(
                decision_id,
                request,
                seen,
                views,
                scored,
                slate,
                policy=policy,
                seed=seed,
                models=self.models,
                laps=watch.laps,
                reading=self._reading,
                audit_share=self._config.audit_share,
            )
            decision_id = self._logged(row)
            watch.lap("decision_log", num_in=1, num_out=1 if decision_id is not None else 0)
        return answer(
            decision_id,
            request,
            seen,
            views,
            scored,
            slate,
            policy=policy,
            catalogue=self.models.catalogue,
            watch=watch,
        )

    def intents(self, request: IntentRequest) -> IntentAnswer:
        """Say what an actor is probably here for; reads what an answer would, and logs nothing."""
        watch = Watch(self._timer)
        seen = self._see(request, self._clock())
        watch.lap(SESSION_LOG, num_in=1, num_out=len(seen.rows))
        prediction, why = predict(seen, self.models, late=watch.elapsed_ms > self._config.budget_ms)
        watch.lap(INTENT, num_in=len(seen.history.at_T), num_out=0 if prediction is None else len(prediction.heads))
        return intent_answer(
            request,
            seen,
            prediction,
            why,
            model=self.models.intent_fingerprint,
            segments=self._segments,
            catalogue=self.models.catalogue,
            watch=watch,
        )

    def _see(self, request: RecommendRequest | IntentRequest, at: datetime) -> Seen:
        actor, asof = actor_id(request.member_id, request.session_id), microseconds(at)
        try:
            rows, mark = self._sessions.read(actor, limit=self._config.session_log.read_events, before_us=asof)
            failed = False
        except Exception:  # a locked or broken log must not stop the answers
            _log.exception("the session log could not be read; answering as if nothing had happened")
            rows, mark, failed = [], 0, True
        catalogue, rule = self.models.catalogue, self.models.rule
        acts = acts_of_one(rows, asof=asof, catalogue=catalogue, rule=rule)
        failures = [SESSION_LOG] if failed else []
        signals: dict[str, NDArray[Any]] = {}
        try:
            signals = signals_of_one(acts, catalogue, rule)
        except Exception:  # an answer without them is better than none, and says so
            _log.exception("the signals of one request could not be computed")
            failures.append(SIGNALS)
        return Seen(actor, asof, acts.histories(), rows, mark, failed, signals, tuple(failures))

    def _score(self, request: RecommendRequest, seen: Seen, views: Views, surface: Surface, watch: Watch) -> Scored:
        blocked_N1 = blocked(
            seen.history,
            asof=seen.asof_us,
            catalogue=self.models.catalogue,
            windows=self.models.windows,
            exclude=self.models.catalogue.codes(list(request.exclude_ids)).tolist(),
            repeats=self.models.repeats,
            rule=self.models.rule,
        )
        return score(
            seen,
            views,
            self.models,
            blocked_N1,
            pool_size=surface.pool_size,
            budget_ms=self._config.budget_ms,
            watch=watch,
        )

    def _logged(self, row: dict[str, object]) -> str | None:
        """Log a decision; where that fails the answer goes out without a name, so that nobody refers to it."""
        try:
            self._decisions.append(row)
        except OSError:
            _log.exception("a decision could not be logged; its answer has no decision_id")
            return None
        if self._audit is not None:
            self._audit(row)
        return str(row["decision_id"])
