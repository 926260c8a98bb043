"""The chain of an answer: what is visible, intent, pool, ranker, policy, decision log. Plain Python, no Ray."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from numpy.typing import NDArray

from foretaste.contracts.controls import Kind
from foretaste.contracts.decisions import Fallback
from foretaste.contracts.events import actor_id
from foretaste.contracts.wire import (
    IntentAnswer,
    IntentRequest,
    NextRequest,
    RankAnswer,
    RankRequest,
    RecommendAnswer,
    RecommendRequest,
)
from foretaste.feedback.decision_log import DecisionLog
from foretaste.feedback.session_log import SessionLog, microseconds
from foretaste.policies.slate import Slate
from foretaste.serving.anonymous import NOBODY
from foretaste.serving.answer import answer
from foretaste.serving.breaker import State
from foretaste.serving.budget import DECISION_LOG, EARLIER, GOES_ON, INTENT, SESSION_LOG, Guards, guards, why_not
from foretaste.serving.concentration import Concentration
from foretaste.serving.config import ServingConfig
from foretaste.serving.earlier import Earlier
from foretaste.serving.exploring import Acting, Explorer
from foretaste.serving.intents import intent_answer
from foretaste.serving.lineup import Lineup, Loaded, Part
from foretaste.serving.metrics import Metrics
from foretaste.serving.models import Models
from foretaste.serving.names import decision_name
from foretaste.serving.posteriors import PublishedPosteriors
from foretaste.serving.propensities import draw
from foretaste.serving.record import SIGNALS, reading, record
from foretaste.serving.segments import PublishedSegments
from foretaste.serving.shadow import Offered
from foretaste.serving.shaping import Asked
from foretaste.serving.shedding import Shed, ShedError
from foretaste.serving.shown import Last
from foretaste.serving.slow import SlowViews
from foretaste.serving.stages import Scored, Seen, arranged, predict, score
from foretaste.serving.steadied import Steadied
from foretaste.serving.tracing import tell
from foretaste.serving.watch import Watch
from foretaste.signals.acts import acts_of_one
from foretaste.signals.served import sampled
from foretaste.signals.signals import signals_of_one

WARM_UPS = 3
WARM_UP_MS = 60_000.0

_log = logging.getLogger(__name__)


def fresh_seed() -> int:
    """Draw a seed from the system: 63 bits, so that it fits the decision log."""
    return secrets.randbits(63)


def patient(config: ServingConfig, *, timer: Callable[[], float]) -> Guards:
    """Guards that let every stage take its time, in the thread that asks."""
    unhurried = config.budget.model_copy(update={"workers": 0, "decision_log_ms": WARM_UP_MS})
    return guards(unhurried, config.breaker, budget_ms=WARM_UP_MS, timer=timer)


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
        release: str | None = None,
        stage_guards: Guards | None = None,
        metrics: Metrics | None = None,
        deleted: Callable[[], Mapping[str, int]] = dict,
        shadow: Callable[[Offered], None] | None = None,
        posteriors: PublishedPosteriors | None = None,
    ) -> None:
        """Answer everybody by `models` of a `release`; what is rolled out later is put in their place by `lineup`.

        `audit` is given every decision that was logged, `shadow` what it was made of while a release scores unseen;
        `segments` tells which one an embedding belongs to, `posteriors` what policies that learn know.
        `stage_guards` bound what each stage may take; None: by the configuration. `metrics` counts the answers.
        """
        self._sessions = sessions
        self._decisions = decisions
        self._config = config
        self._clock = clock
        self._timer = timer
        self._seeds = seeds
        self._audit = audit
        self._shadow = shadow
        self.metrics = metrics or Metrics()
        self.guards = stage_guards or guards(config.budget, config.breaker, budget_ms=config.budget_ms, timer=timer)
        self.posteriors = posteriors or PublishedPosteriors(None)
        """What policies that learn know: read again by housekeeping."""
        self._explorer = Explorer(
            config.exploring, policy=config.policy, epsilon=config.epsilon, posteriors=self.posteriors
        )
        self._earlier = Earlier(
            decisions,
            config.controls,
            guard=self.guards[EARLIER],
            goes_on=self.guards[GOES_ON],
            deleted=deleted,
        )
        self.lineup = Lineup(Part(self.load(models, views, segments, release=release), self.guards))
        """Who is answered by what: replaced whole, and read once by each request."""
        self.steadied = Steadied()
        """Of the newest lists and those before them, for the metrics."""

    @property
    def models(self) -> Models:
        """What answers everybody who is in no arm."""
        return self.lineup.main.loaded.models

    def load(
        self, models: Models, views: SlowViews, segments: PublishedSegments | None = None, *, release: str | None = None
    ) -> Loaded:
        """Make of models what a part of the members can be answered with."""
        known = reading(models, self._config.session_log)
        return Loaded(models, views, known, Concentration(len(models.catalogue)), segments, release)

    def recommend(self, request: RecommendRequest) -> RecommendAnswer:
        """Answer a request and log the decision. Raises RefusedError naming the field for a surface there is not,
        ShedError where the decision cannot be logged.
        """
        return self._recommend(request, self._part(request))

    def next(self, request: NextRequest) -> RecommendAnswer:
        """Go on after a list. Raises as `recommend`, naming what does not go on; ShedError for what is not read."""
        watch, at = Watch(self._timer), self._clock()
        try:
            asked = self._earlier.next(request, at, watch)
        except ShedError as error:
            self.metrics.shed(error.reason)
            raise
        return RecommendAnswer(**self._decide(asked, self._part(request), at, watch))

    def rank(self, request: RankRequest) -> RankAnswer:
        """Order given titles and log the decision. Raises ShedError where it cannot be logged."""
        watch, at = Watch(self._timer), self._clock()
        return RankAnswer(**self._decide(self._earlier.rank(request), self._part(request), at, watch))

    def _part(self, request: RecommendRequest | NextRequest | RankRequest | IntentRequest) -> Part:
        lineup = self.lineup
        return lineup.main if request.session_id == NOBODY else lineup.of(request.member_id or request.session_id)

    def _recommend(self, request: RecommendRequest, part: Part, *, counted: bool = True) -> RecommendAnswer:
        watch, at = Watch(self._timer), self._clock()
        actor, rule = actor_id(request.member_id, request.session_id), part.loaded.models.rule
        asked = self._earlier.recommend(request, actor, at, watch, rule=rule)
        return RecommendAnswer(**self._decide(asked, part, at, watch, counted=counted))

    def _decide(self, asked: Asked, part: Part, at: datetime, watch: Watch, *, counted: bool = True) -> dict[str, Any]:
        """Go through the chain; gives the fields of the answer."""
        if not asked.request.dry_run:
            self._check_log()
        seed, request, loaded, models = self._seeds(), asked.request, part.loaded, part.loaded.models
        seen = self._see(request, part, at, watch)
        watch.lap(SESSION_LOG, num_in=1, num_out=len(seen.rows))
        views = loaded.views.read(request.member_id, asof=seen.asof_us, elapsed_ms=watch.elapsed_ms)
        watch.lap("features", num_in=1, num_out=1 + len(models.catalogue))
        scored = score(seen, views, models, asked, guards=part.guards, watch=watch)
        num_new = sum(row["sequence"] > asked.controls.before_mark for row in seen.rows)
        scored, protected = arranged(scored, models, asked, num_new=num_new)
        watch.lap("arrange", num_in=len(scored.codes_C), num_out=len(scored.codes_C))
        acting = self._explorer.acting(
            request.policy, request.surface, scored, views.titles, models, protected=protected
        )
        slate = acting.choose(k=request.k, seed=seed)
        watch.lap("policy", num_in=len(scored.codes_C), num_out=len(slate))
        decision_id = None
        if not request.dry_run:
            decision_id = decision_name(at, bits=secrets.randbits(80))
            row = record(
                decision_id,
                asked,
                seen,
                views,
                scored,
                slate,
                acting=acting,
                seed=seed,
                models=models,
                laps=watch.laps,
                reading=loaded.reading,
                audit_share=self._config.audit_share,
                release=loaded.release,
                arm=part.arm,
            )
            self._store(row)
            watch.lap(DECISION_LOG, num_in=1, num_out=1)
            self._remember(asked, loaded, seen, scored, slate, decision_id)
            self._hold(acting, slate, decision_id)
            if self._shadow is not None and (unseen := self.lineup.shadow) is not None:
                self._shadow(Offered(decision_id, loaded, part.arm, unseen, asked, seen, scored))
        made = answer(
            decision_id, asked, seen, views, scored, slate, acting=acting, catalogue=models.catalogue, watch=watch
        )
        if counted:
            self.metrics.answered(watch, made["freshness"], made["fallback"], arm=part.arm)
            self.metrics.explored(asked.kind, request.surface, acting.policy.name, slate)
            tell(
                watch,
                decision_id=decision_id,
                policy=acting.policy.name,
                explored=slate.explored,
                release=loaded.release,
                arm=part.arm,
                level=scored.source.value,
                fallback=None if made["fallback"].reason is None else made["fallback"].reason.value,
            )
        if (held := made["stability"]) is not None and not request.dry_run:
            self.steadied.add(kept=held.kept, of=held.of, largest_move=held.largest_move)
        return made

    def _remember(
        self, asked: Asked, loaded: Loaded, seen: Seen, scored: Scored, slate: Slate, decision_id: str
    ) -> None:
        """Take note of a list for the next one of its session, and of what is shown to all."""
        codes_K = scored.codes_C[slate.order_K]
        loaded.concentration.add(codes_K)
        if asked.kind is Kind.RECOMMEND:
            titles = tuple(loaded.models.catalogue.ids[code - 1] for code in codes_K.tolist())
            mark = asked.controls.before_mark if seen.failed else seen.mark  # what could not be read is new next time
            self._earlier.shown.put(seen.actor_id, asked.request, Last(decision_id, titles, mark, seen.asof_us))

    def _hold(self, acting: Acting, slate: Slate, decision_id: str) -> None:
        """Hold the propensities of an audited list against the policy."""
        if not len(slate) or not sampled(decision_id, self._config.audit_share):
            return
        try:
            said_C = acting.policy.distribution(acting.scores_C, (), features_CD=acting.features_CD)
        except Exception:  # what only counts must not end an answer that is logged
            _log.exception("the distribution of policy %s could not be computed", acting.policy.name)
            return
        held = draw(said_C, chosen=int(slate.order_K[0]), propensity=float(slate.propensity_K[0]))
        self.metrics.drawn(acting.policy.name, held)

    def forget(self, actor: str) -> None:
        """Forget what was shown to an actor."""
        self._earlier.shown.forget(actor)

    def warm_up(self, loaded: Loaded | None = None) -> None:
        """Answer nobody a few times, so that what is made once is not paid by a request; raises nothing it would not.

        By default by what answers everybody. No stage is late meanwhile; nothing is logged or counted.
        """
        part = Part(loaded or self.lineup.main.loaded, patient(self._config, timer=self._timer))
        for _ in range(WARM_UPS):
            self._recommend(RecommendRequest(session_id="warm-up", dry_run=True), part, counted=False)

    def intents(self, request: IntentRequest) -> IntentAnswer:
        """Say what an actor is probably here for; reads what an answer would, and logs nothing."""
        watch, part = Watch(self._timer), self._part(request)
        loaded, models = part.loaded, part.loaded.models
        seen = self._see(request, part, self._clock(), watch)
        watch.lap(SESSION_LOG, num_in=1, num_out=len(seen.rows))
        prediction, why, _ = predict(seen, models, guard=part.guards[INTENT], watch=watch)
        watch.lap(INTENT, num_in=len(seen.history.at_T), num_out=0 if prediction is None else len(prediction.heads))
        tell(watch, release=loaded.release, arm=part.arm, fallback=None if why is None else why.value)
        return intent_answer(
            request,
            seen,
            prediction,
            why,
            model=models.intent_fingerprint,
            segments=loaded.segments,
            catalogue=models.catalogue,
            watch=watch,
        )

    def close(self) -> None:
        """Begin no stage any more."""
        for guard in {id(guard): guard for part in self.lineup.parts for guard in part.guards.values()}.values():
            guard.close()

    def _see(self, request: RecommendRequest | IntentRequest, part: Part, at: datetime, watch: Watch) -> Seen:
        actor, asof = actor_id(request.member_id, request.session_id), microseconds(at)
        limit, why = self._config.session_log.read_events, None
        rows: list[dict[str, Any]] = []
        mark = 0
        try:
            rows, mark = part.guards[SESSION_LOG].run(
                watch.elapsed_ms, lambda: self._sessions.read(actor, limit=limit, before_us=asof)
            )
        except Exception as error:  # a locked or broken log must not stop the answers
            why = why_not(error, "the session log")
        failed = why is not None
        catalogue, rule = part.loaded.models.catalogue, part.loaded.models.rule
        acts = acts_of_one(rows, asof=asof, catalogue=catalogue, rule=rule)
        failures = [SESSION_LOG] if failed else []
        signals: dict[str, NDArray[Any]] = {}
        try:
            signals = signals_of_one(acts, catalogue, rule)
        except Exception:  # an answer without them is better than none, and says so
            _log.exception("the signals of one request could not be computed")
            failures.append(SIGNALS)
            why = why or Fallback.FEATURES_FAILED
        return Seen(actor, asof, acts.histories(), rows, mark, failed, signals, tuple(failures), why)

    def _check_log(self) -> None:
        """Compute nothing for an answer that could not be logged. Raises ShedError."""
        breaker = self.guards[DECISION_LOG].breaker
        if breaker is not None and breaker.state is State.OPEN:
            self.metrics.shed(Shed.DECISION_LOG)
            raise ShedError(Shed.DECISION_LOG, retry_after_seconds=breaker.retry_after_seconds)

    def _store(self, row: dict[str, object]) -> None:
        """Log a decision. Raises ShedError where that fails: what is answered is logged, and can be referred to."""
        try:
            self.guards[DECISION_LOG].run(0.0, lambda: self._decisions.append(row))
        except OSError as error:  # full, failing, too slow, or left alone for one of these
            _log.error("a decision could not be logged, its answer is not given: %s", error)
            self.metrics.shed(Shed.DECISION_LOG)
            raise ShedError(Shed.DECISION_LOG) from error
        if self._audit is not None:
            self._audit(row)
