"""One replica's worth of service: the chain, the intake, the logs, and what keeps them in order."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from foretaste import __version__
from foretaste.contracts.tenants import DEFAULT
from foretaste.contracts.wire import (
    ConsentAnswer,
    ConsentRequest,
    DeletionAnswer,
    EventsAnswer,
    EventsRequest,
    IntentAnswer,
    IntentRequest,
    MergeAnswer,
    MergeRequest,
    NextRequest,
    RankAnswer,
    RankRequest,
    RecommendAnswer,
    RecommendRequest,
)
from foretaste.contracts.wire_models import ModelsAnswer, PromoteRequest
from foretaste.contracts.wire_records import AckAnswer, AckRequest, ReplayAnswer, ReplayRequest, SessionAnswer
from foretaste.contracts.wire_rewards import RewardsAnswer, RewardsRequest
from foretaste.feedback.acks import AckLog
from foretaste.feedback.consents import CONSENTS_FILE, Consents
from foretaste.feedback.decision_log import DecisionLog
from foretaste.feedback.event_log import EVENTS_FOLDER, EventLog
from foretaste.feedback.reports import ReportLog
from foretaste.feedback.row_log import RowLog
from foretaste.feedback.session_log import SessionLog, microseconds, open_session_log
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.ops.job_metrics import FOLDER as JOB_METRICS
from foretaste.serving.accounts import Accounts
from foretaste.serving.anonymous import anonymous
from foretaste.serving.audit import Audit
from foretaste.serving.breaker import Breaker, BreakerConfig, State
from foretaste.serving.budget import FEATURES, guards, of_models
from foretaste.serving.config import ServiceConfig
from foretaste.serving.intake import Intake
from foretaste.serving.loading import Loading
from foretaste.serving.members import Members, Views
from foretaste.serving.models import HERE, Parts
from foretaste.serving.posteriors import PublishedPosteriors
from foretaste.serving.problems import RefusedError
from foretaste.serving.production import Production
from foretaste.serving.recommender import Recommender, patient
from foretaste.serving.record import readable
from foretaste.serving.replay import Replay, VersionedViews
from foretaste.serving.replicas import Replicas
from foretaste.serving.reward_intake import RewardIntake
from foretaste.serving.rollout import Rollouts
from foretaste.serving.shadow import SHADOWS_FOLDER, Shadow
from foretaste.serving.shared_metrics import SharedMetrics
from foretaste.serving.slow import ViewSource

_log = logging.getLogger(__name__)

TIDY_EVERY = timedelta(hours=1)
WRITES = "session_log_writes"
DOWN = (OSError, sqlite3.Error)
"""What a store raises that cannot take or give anything."""


def utc_now() -> datetime:
    """The clock of a process that serves."""
    return datetime.now(UTC)


class Service:
    """What the app asks: see `ingress.Answers`. Ids of members, sessions and events are those of `tenancy`, inside."""

    def __init__(
        self,
        recommender: Recommender,
        intake: Intake,
        views: Views,
        sessions: SessionLog,
        decisions: DecisionLog,
        events: EventLog,
        tombstones: Tombstones,
        *,
        clock: Callable[[], datetime],
        acks: AckLog,
        consents: Consents,
        reports: ReportLog | None = None,
        audit: Audit | None = None,
        replay: Replay | None = None,
        registry: Path = Path("registry"),
        future_minutes: float = 5.0,
        writes: Breaker | None = None,
        shared: SharedMetrics | None = None,
    ) -> None:
        """Without `reports` no rewards are taken, without `replay` no decision can be made again.

        `registry` has the models that a replay may name.

        `writes` leaves the session log alone where it takes nothing, so that no thread waits for it. `shared` tells
        the metrics of other processes, too.
        """
        self.metrics = recommender.metrics
        self._shared = shared
        if shared is not None:
            self.metrics.told = shared.text
        self._writes = writes or Breaker(WRITES, BreakerConfig(), timer=time.monotonic)
        self._told: list[RowLog] = [acks] if reports is None else [acks, reports]  # what clients tell of decisions
        self._consents = consents
        self._accounts = Accounts(
            sessions,
            decisions,
            events,
            tombstones,
            acks,
            clock=clock,
            future_minutes=future_minutes,
            replay=replay,
            registry=registry,
        )
        self._rewards = None
        if reports is not None:
            self._rewards = RewardIntake(
                reports, self._accounts, clock=clock, future_minutes=future_minutes, refused=consents.refused
            )
        self._recommender = recommender
        self._intake = intake
        self._sessions = sessions
        self._decisions = decisions
        self._events = events
        self._tombstones = tombstones
        self._members = Members(
            sessions, views, tombstones, clock=clock, acks=acks, reports=reports, future_minutes=future_minutes
        )
        self._clock = clock
        self._audit = audit
        self._production: Production | None = None
        self._kept_at = clock()
        self._tidied_at: datetime | None = None
        self._forgot_at: datetime | None = None
        self._tidied_of: dict[str, int] = {}
        stores = [guard.breaker for guard in recommender.guards.values() if guard.breaker is not None]
        self._breakers = [*stores, self._writes]
        self._watch()

    def accept(self, request: EventsRequest, *, tenant: str = DEFAULT) -> EventsAnswer:
        """Store events. Raises ConnectionError where the session log takes none."""
        answer = self._writes.call(lambda: self._intake.accept(request.events, tenant=tenant), down=DOWN)
        self.metrics.stored(answer)
        return answer

    def merge(self, member_id: str, request: MergeRequest) -> MergeAnswer:
        """Make a guest's events the member's. Raises RefusedError for a member who does not consent."""
        if member_id in self._consents.refused():
            raise RefusedError("member_id", "the member does not consent to anything being stored")
        return self._writes.call(lambda: self._members.merge(member_id, request.session_id), down=DOWN)

    def consent(self, member_id: str, request: ConsentRequest) -> ConsentAnswer:
        """Note whether anything of a member may be stored."""
        self._consents.note(member_id, request.consent, at=microseconds(self._clock()))
        return ConsentAnswer(consent=request.consent)

    def delete(self, member_id: str) -> DeletionAnswer:
        """Forget a member."""
        found = self._members.delete(member_id)
        self._recommender.forget(member_id)
        return found

    def recommend(self, request: RecommendRequest) -> RecommendAnswer:
        """Answer a request."""
        return self._recommender.recommend(anonymous(request) if self._refuses(request) else request)

    def next(self, request: NextRequest) -> RecommendAnswer:
        """Go on after a list. Raises RefusedError for who does not consent: nothing of theirs is stored."""
        if self._refuses(request):
            raise RefusedError("decision_id", "without consent no list is stored that could be gone on with")
        return self._recommender.next(request)

    def rank(self, request: RankRequest) -> RankAnswer:
        """Order given titles."""
        return self._recommender.rank(anonymous(request) if self._refuses(request) else request)

    def intents(self, request: IntentRequest) -> IntentAnswer:
        """Say what a member or a guest is probably here for."""
        return self._recommender.intents(anonymous(request) if self._refuses(request) else request)

    def decision(self, decision_id: str, *, tenant: str = DEFAULT) -> dict[str, Any] | None:
        """Read a logged decision."""
        row = self._accounts.decision(decision_id, tenant=tenant)
        return None if row is None else readable(row)

    def ack(self, decision_id: str, request: AckRequest, *, tenant: str = DEFAULT) -> AckAnswer | None:
        """Take note of what was shown of a list."""
        return self._accounts.ack(decision_id, request, tenant=tenant)

    def rewards(self, request: RewardsRequest, *, tenant: str = DEFAULT) -> RewardsAnswer:
        """Store feedback on decisions. Raises ConnectionError where it cannot be stored."""
        if self._rewards is None:
            raise ConnectionError("no rewards are taken here")
        try:
            return self._rewards.accept(request.rewards, tenant=tenant)
        except sqlite3.Error as error:
            raise ConnectionError("the log of rewards does not take any") from error

    def replay(self, decision_id: str, request: ReplayRequest, *, tenant: str = DEFAULT) -> ReplayAnswer | None:
        """Make a decision again."""
        return self._accounts.replay(decision_id, request, tenant=tenant)

    def session(self, session_id: str, member_id: str | None) -> SessionAnswer:
        """Say what an answer would read of a member, or of a session's guest."""
        return self._accounts.session(session_id, member_id, self._recommender.models)

    def models(self) -> ModelsAnswer:
        """Say what is filed and what answers whom."""
        return ModelsAnswer() if self._production is None else self._production.models()

    def promote(self, name: str, request: PromoteRequest) -> ModelsAnswer | None:
        """Let a release answer. Raises ConflictError where it is refused, RefusedError naming the field of a share."""
        return self._of_release(lambda production: production.promote(name, request))

    def roll_back(self, name: str) -> ModelsAnswer | None:
        """Take a release back from what it does. Raises ConflictError where it does nothing."""
        return self._of_release(lambda production: production.roll_back(name))

    def _of_release(self, change: Callable[[Production], ModelsAnswer]) -> ModelsAnswer | None:
        """None where there is no such release."""
        if self._production is None:
            return None
        try:
            return change(self._production)
        except FileNotFoundError:
            return None

    def ready(self) -> dict[str, Any]:
        """Say what is served and what the audit found; what is missing or wrong makes it degraded, not unready."""
        loaded = self._recommender.lineup.main.loaded
        models = loaded.models
        found = {"intent": models.intent_fingerprint, "ranker": models.ranker_fingerprint}
        return {
            "ready": True,
            "release": loaded.release,
            "models": found,
            "num_titles": len(models.catalogue),
            "degraded": [f"no {name} model" for name, fingerprint in found.items() if fingerprint is None]
            + [f"{breaker.name} is not asked: it failed" for breaker in self._breakers if breaker.state is State.OPEN]
            + ([] if self._production is None else self._production.troubles)
            + ([] if self._audit is None else self._audit.alarms),
            "audit": None if self._audit is None else self._audit.plain(),
        }

    def housekeep(self) -> None:
        """Follow what is rolled out, refresh title features and segments, roll old decisions, ship events, audit,
        expire, compact; each when due.

        Raises ExceptionGroup of what failed, after everything was tried.
        """
        failures: list[Exception] = []
        self._kept_at = self._clock()
        follow = () if self._production is None else (self._production.follow,)
        tell = () if self._shared is None else (self._shared.publish,)
        steps = (self._decisions.roll_if_due, self._ship_and_audit, self._ship_acks, self._tidy_if_due)
        for step in (*follow, self._refresh, *steps, *tell):
            try:
                step()
            except Exception as error:  # one that fails for long must not keep the others from their turn
                failures.append(error)
        self.metrics.kept(num_failed=len(failures))
        if failures:
            raise ExceptionGroup("housekeeping", failures)

    def close(self) -> None:
        """Roll the decisions, ship the events and close the logs."""
        self._decisions.close()
        self._recommender.close()
        if self._production is not None:
            self._production.close()
        if self._shared is not None:
            self._shared.withdraw()
        try:
            self._ship()
            self._ship_acks()
        finally:
            for log in self._told:
                log.close()
            self._sessions.close()

    def follow(self, production: Production) -> None:
        """Answer by what is rolled out from now on."""
        self._production = production
        production.watch(self.metrics)
        try:
            production.follow()
        except Exception:  # what answers is loaded already, and housekeeping tries again
            _log.exception("what is rolled out could not be followed")

    def _refresh(self) -> None:
        for loaded in self._recommender.lineup.loaded:
            loaded.refresh()
        self._recommender.posteriors.refresh_if_new()

    def _refuses(self, request: RecommendRequest | NextRequest | RankRequest | IntentRequest) -> bool:
        if not request.consent:
            return True
        try:
            return request.member_id in self._consents.refused()
        except (ValueError, OSError):  # who refuses is not known: nobody is read or stored, and everybody gets a list
            _log.exception("the consents cannot be read; everybody is answered as somebody unknown")
            return True

    def _watch(self) -> None:
        """Have the metrics tell what is as it is when they are asked."""
        guards, decisions, audit = self._recommender.guards, self._decisions, self._audit
        self.metrics.watch_breakers(self._breakers)
        self.metrics.watch_stages(guards)
        backlog = "bytes of decisions that wait to be rolled"
        self.metrics.watch("decision_log_backlog_bytes", backlog, lambda: decisions.backlog_bytes)
        limit = "bytes of decisions that may wait to be rolled; beyond it no list is given"
        self.metrics.watch("decision_log_backlog_limit_bytes", limit, lambda: decisions.config.max_backlog_mb * 1e6)
        self.metrics.watch("decision_log_dropped_lines", "that could not be read", lambda: decisions.num_dropped)
        self.metrics.watch("decision_log_failed_rolls", "times a file failed to roll", lambda: decisions.num_failed)
        if (shipper := decisions.shipper) is not None:
            unshipped = "rolled files of decisions that are not at the target, and their bytes"
            self.metrics.watch("decision_log_unshipped_files", unshipped, lambda: shipper.waiting[0])
            self.metrics.watch("decision_log_unshipped_bytes", unshipped, lambda: shipper.waiting[1])
            self.metrics.watch("decision_log_failed_ships", "rounds the target ended", lambda: shipper.num_failed)
        on, of_newest = self._recommender, "of the newest answers of the main release: how many, coverage, Gini"
        shown = "concentration"
        self.metrics.watch_all(shown, of_newest, "what", lambda: on.lineup.main.loaded.concentration.plain())
        held = self._recommender.steadied
        self.metrics.watch_all("stability", "of the newest lists: what stayed of those before", "what", held.plain)
        if audit is not None:
            self.metrics.watch_all("audit", "what the audit of answers found", "what", audit.counts)
            differ = "served values that differ from what is stored, by feature"
            self.metrics.watch_all("audit_mismatches", differ, "feature", audit.mismatches)
        titles, begun = "age of the newest title features", "when the newest round of housekeeping began"
        self.metrics.watch("title_features_age_seconds", titles, lambda: on.lineup.main.loaded.views.age_seconds())
        self.metrics.watch("housekeeping_started_timestamp_seconds", begun, lambda: self._kept_at.timestamp())
        self.metrics.watch("degraded", "number of things that /health/ready calls degraded", self._num_degraded)
        self.metrics.watch("resident_bytes", "memory of the process", partial(_resident_bytes, psutil.Process()))
        self.metrics.watch_table(
            "model", "1 for each model of who is in no arm", ("model", "fingerprint"), self._fingerprints
        )
        self.metrics.watch_all("build", "1 for the version of the package", "version", lambda: {__version__: 1.0})

    def _num_degraded(self) -> float:
        return float(len(self.ready()["degraded"]))

    def _fingerprints(self) -> dict[tuple[str, ...], float]:
        models = self._recommender.models
        found = {"intent": models.intent_fingerprint, "ranker": models.ranker_fingerprint}
        return {(name, fingerprint): 1.0 for name, fingerprint in found.items() if fingerprint is not None}

    def _ship_and_audit(self) -> None:
        """What was answered before all events of then were shipped saw no event that is not among them."""
        at = microseconds(self._clock())
        taken = [] if self._audit is None else self._audit.take()
        self._ship()
        if self._audit is None or not taken:
            return
        if any(event.received_at <= at for event in self._sessions.pending(1)):  # another process ships them just now
            self._audit.give_back(taken)
        else:
            self._audit.compare(taken)

    def _ship(self) -> None:
        self._events.ship(self._sessions, deleted=self._tombstones.read())

    def _ship_acks(self) -> None:
        for log in self._told:
            log.ship(now=self._clock())

    def _tidy_if_due(self) -> None:
        now, deleted = self._clock(), self._tombstones.read()
        if self._forgot_at is None or now - self._forgot_at >= TIDY_EVERY:  # whole files are written again
            self._decisions.forget(deleted)
            for log in self._told:
                log.forget(deleted)
                log.forget_parts(deleted)
            self._forgot_at = now
        if self._tidied_at is None or now - self._tidied_at >= TIDY_EVERY or deleted != self._tidied_of:
            self._sessions.expire(now=now)
            self._events.compact(deleted=deleted)
            self._tidied_at, self._tidied_of = now, dict(deleted)


def _resident_bytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss)


class NewestViews:
    """The slow views of what answers now: those of before are nobody's."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender

    def forget(self, member_id: str) -> int:
        """Remove a member; returns how many rows went."""
        return self._recommender.lineup.main.loaded.views.forget(member_id)


def open_service(
    config: ServiceConfig,
    *,
    source: ViewSource | None = None,
    parts: Parts | None = None,
    replay_parts: Parts | None = None,
    clock: Callable[[], datetime] = utc_now,
    timer: Callable[[], float] = time.perf_counter,
) -> Service:
    """Open everything a replica needs under the workspace; `source` gives the slow views.

    `parts` compute elsewhere what the models compute, `replay_parts` what is made again; None: here, and batched.

    Raises ValueError where models do not belong together, FileNotFoundError where there is no catalogue.
    """
    serving, folder = config.serving, config.workspace
    fresh_guards = partial(guards, serving.budget, serving.breaker, budget_ms=serving.budget_ms, timer=timer)
    of_stages = fresh_guards()
    loading = Loading(config, source, clock=clock, guard=of_stages[FEATURES], parts=parts)
    release, models, views, segments = loading.newest()
    sessions = open_session_log(serving.session_log, folder / "serving")
    events = EventLog(folder / "serving" / EVENTS_FOLDER)
    consents = Consents(folder / "serving" / CONSENTS_FILE)
    tombstones = Tombstones(folder / "serving" / TOMBSTONES_FILE)
    where = folder / "serving" / "decisions"
    decisions = DecisionLog(where, serving.decision_log, clock=clock, deleted=tombstones.read)
    intake = Intake(
        sessions, future_minutes=serving.future_minutes, clock=clock, deleted=tombstones.read, refused=consents.refused
    )
    audit = None
    versions = source if isinstance(source, VersionedViews) else None
    replay = Replay(folder / "registry", folder / "prepared", versions, parts=replay_parts or HERE)
    if serving.audit_share > 0:
        audit = Audit(replay, events=events.read, deleted=tombstones.read)
    offer = None if audit is None else audit.offer
    shadow = Shadow(
        folder / "serving" / SHADOWS_FOLDER,
        serving.shadow,
        patient=lambda: patient(serving, timer=timer),
        clock=clock,
        timer=timer,
    )
    recommender = Recommender(
        models,
        views,
        sessions,
        decisions,
        serving,
        clock=clock,
        timer=timer,
        audit=offer,
        segments=segments,
        release=release,
        stage_guards=of_stages,
        deleted=tombstones.read,
        shadow=shadow.offer,
        posteriors=PublishedPosteriors(folder / "registry"),
    )
    recommender.warm_up()
    logs = (sessions, decisions, events, tombstones)
    service = Service(
        recommender,
        intake,
        NewestViews(recommender),
        *logs,
        clock=clock,
        consents=consents,
        acks=AckLog(folder / "serving", durable=serving.session_log.durable),
        reports=ReportLog(folder / "serving", durable=serving.session_log.durable),
        audit=audit,
        replay=replay,
        registry=folder / "registry",
        future_minutes=serving.future_minutes,
        writes=Breaker(WRITES, serving.breaker, timer=timer),
        shared=SharedMetrics(
            folder / "serving" / "metrics",
            recommender.metrics,
            clock=clock,
            fresh_seconds=3 * serving.housekeeping_seconds,
            jobs=folder / JOB_METRICS,
        ),
    )
    rollouts = Rollouts(
        loading.registry,
        recommender,
        lambda found: recommender.load(*loading.parts(found), release=found.name),
        own_guards=lambda: of_stages | of_models(fresh_guards()),
        retry_seconds=serving.release_retry_seconds,
        clock=clock,
    )
    replicas = Replicas(folder / "serving" / "replicas", clock=clock, fresh_seconds=3 * serving.housekeeping_seconds)
    service.follow(
        Production(
            loading.registry,
            rollouts,
            replicas,
            lambda: recommender.lineup,
            clock=clock,
            decisions=where,
            shadow=shadow,
        )
    )
    return service
