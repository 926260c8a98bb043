"""What a process counts of itself, as Prometheus reads it: `GET /metrics`.

Labels are closed lists (endpoints, stages, reasons, stores): never a member, a title or a tenant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from foretaste.contracts.controls import Kind
from foretaste.contracts.wire import EventsAnswer, FallbackAnswer, Freshness
from foretaste.policies.slate import Slate
from foretaste.serving.breaker import Breaker, State
from foretaste.serving.budget import SESSION_LOG, Guard, Guards
from foretaste.serving.propensities import Draw
from foretaste.serving.shedding import Admission, Shed
from foretaste.serving.slow import MEMBERS, TITLES
from foretaste.serving.watch import Watch

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "foretaste_"

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
_AGES = (0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 86_400.0, 604_800.0, 2_592_000.0)
FAILED = ("500", "503")
_STATES = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}


class Metrics:
    """Counters of one process in a registry of their own; every method may be called from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.told: Callable[[], bytes] = self.text
        """What /metrics says: these, or with them those of other processes."""
        self._requests = self._counter("requests", "requests answered", "endpoint", "status")
        self._request_seconds = self._histogram("request_seconds", "from request to answer", "endpoint")
        self._stage_seconds = self._histogram("stage_seconds", "what a stage of an answer took", "stage")
        self._answers = self._counter("answers", "lists by what their scores are of", "level")
        self._fallbacks = self._counter("fallbacks", "lists that are not the full ones", "reason")
        self._best = self._counter("estimated_reward", "of lists, had no dice been used", "surface", "policy")
        given_up = "estimated reward that dice were expected to give up, at most"
        self._given_up = self._counter("estimated_reward_given_up", given_up, "surface", "policy")
        self._places = self._counter("places", "places of lists, by what filled them", "surface", "policy", "by")
        at_first = "first places of audited lists, by the bin of the probability of what was put there"
        self._drawn = self._counter("propensity_drawn", f"{at_first}: how often", "policy", "below")
        self._expected = self._counter("propensity_expected", f"{at_first}: expected", "policy", "below")
        self._variance = self._counter("propensity_variance", f"{at_first}: variance of that", "policy", "below")
        differ = "first places whose logged propensity is not what the policy says"
        self._differing = self._counter("propensity_differs", differ, "policy")
        self._arms = self._counter("arm_answers", "lists by arm, while there are any", "arm")
        self._sheds = self._counter("sheds", "requests refused for want of room", "reason")
        self._stale = self._counter("stale_inputs", "inputs of answers that were absent or too old", "input")
        self._housekeeping_failures = self._counter("housekeeping_failures", "steps of housekeeping that failed")
        self._events = self._counter("events", "events by what became of them", "outcome")
        self._age = Histogram(
            f"{PREFIX}newest_event_age_seconds",
            "from the newest event that an answer used to the answer",
            buckets=_AGES,
            registry=self.registry,
        )
        for reason in Shed:  # what counts from 0 on is seen to rise the first time, too
            self._sheds.labels(reason.value)
        for name in (SESSION_LOG, MEMBERS, TITLES):
            self._stale.labels(name)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request. The first error of an endpoint is a rise from 0, not a series that begins with it."""
        for failed in FAILED:
            self._requests.labels(endpoint, failed)
        self._requests.labels(endpoint, str(status)).inc()
        self._request_seconds.labels(endpoint).observe(seconds)

    def answered(self, watch: Watch, freshness: Freshness, fallback: FallbackAnswer, *, arm: str | None = None) -> None:
        """Count an answer: what its stages took, what it is made of, how old what it knew was, and for which arm."""
        if arm is not None:
            self._arms.labels(arm).inc()
        for lap in watch.laps:
            self._stage_seconds.labels(lap.stage).observe(lap.ms / 1e3)
        if fallback.level is not None:
            self._answers.labels(fallback.level.value).inc()
        if fallback.reason is not None:
            self._fallbacks.labels(fallback.reason.value).inc()
        for name in freshness.stale:
            self._stale.labels(name).inc()
        if freshness.age_seconds is not None:
            self._age.observe(freshness.age_seconds)

    def explored(self, kind: Kind, surface: str, policy: str, slate: Slate) -> None:
        """Count the places that dice filled and that scores did; add what the dice are expected to give up, and what
        the list would have been worth without them.
        """
        named = "rank" if kind is Kind.RANK else surface  # that of a ranking is any text
        num_explored = int(slate.explored_K.sum())
        self._places.labels(named, policy, "dice").inc(num_explored)
        self._places.labels(named, policy, "scores").inc(len(slate) - num_explored)
        if (price := slate.price) is not None:
            self._given_up.labels(named, policy).inc(float(price.given_up_K.sum()))
            self._best.labels(named, policy).inc(float(price.best_K.sum()))

    def drawn(self, policy: str, draw: Draw) -> None:
        """Count a first place beside what its policy says of it."""
        for below, expected, variance in draw.bins:
            self._drawn.labels(policy, below).inc(float(below == draw.below))
            self._expected.labels(policy, below).inc(expected)
            self._variance.labels(policy, below).inc(variance)
        self._differing.labels(policy).inc(float(draw.differs))

    def kept(self, *, num_failed: int) -> None:
        """Count a round of housekeeping."""
        self._housekeeping_failures.inc(num_failed)

    def shed(self, reason: Shed) -> None:
        """Count a request that was refused."""
        self._sheds.labels(reason.value).inc()

    def stored(self, answer: EventsAnswer) -> None:
        """Count a batch of events."""
        for outcome, number in (("accepted", answer.accepted), ("duplicate", answer.duplicate)):
            self._events.labels(outcome).inc(number)
        self._events.labels("rejected").inc(len(answer.rejected))

    def watch_breakers(self, breakers: Iterable[Breaker]) -> None:
        """Tell the state of breakers: 0 closed, 1 half open, 2 open."""
        gauge = self._gauge("breaker_state", "0 closed, 1 half open: one request tries, 2 open: not asked", "store")
        for breaker in breakers:
            gauge.labels(breaker.name).set_function(partial(_state, breaker))

    def watch_stages(self, guards: Guards) -> None:
        """Tell what stages usually take; one that takes longer than is left is not begun."""
        gauge = self._gauge("stage_usual_seconds", "mean and two deviations of what a stage takes", "stage")
        for stage, guard in guards.items():
            gauge.labels(stage).set_function(partial(_usual_seconds, guard))

    def watch_queue(self, admission: Admission) -> None:
        """Tell how many requests for an answer are computed and wait."""
        gauge = self._gauge("answers_pending", "requests for an answer that are computed, and that wait", "state")
        gauge.labels("in_flight").set_function(lambda: admission.num_in_flight)
        gauge.labels("waiting").set_function(lambda: admission.num_waiting)

    def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
        """Tell one number as it is when it is asked for."""
        Gauge(PREFIX + name, about, registry=self.registry).set_function(value)

    def watch_all(self, name: str, about: str, label: str, values: Callable[[], Mapping[str, float]]) -> None:
        """Tell numbers by the values of one label, as they are when they are asked for: a closed list, please."""
        self.watch_table(name, about, (label,), lambda: {(key,): value for key, value in values().items()})

    def watch_table(
        self, name: str, about: str, labels: tuple[str, ...], values: Callable[[], Mapping[tuple[str, ...], float]]
    ) -> None:
        """The same by the values of several labels."""
        self.registry.register(_Values(PREFIX + name, about, labels, values))

    def text(self) -> bytes:
        """All of it in the text format of Prometheus."""
        return generate_latest(self.registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, *labels: str) -> Histogram:
        return Histogram(PREFIX + name, about, labels, buckets=_SECONDS, registry=self.registry)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, about, labels, registry=self.registry)


def _state(breaker: Breaker) -> float:
    return _STATES[breaker.state]


def _usual_seconds(guard: Guard) -> float:
    return guard.usual.ms / 1e3


class _Values(Collector):
    """Numbers that are looked up when they are asked for."""

    def __init__(
        self,
        name: str,
        about: str,
        labels: tuple[str, ...],
        values: Callable[[], Mapping[tuple[str, ...], float]],
    ) -> None:
        self._name = name
        self._about = about
        self._labels = labels
        self._values = values

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Look them up."""
        family = GaugeMetricFamily(self._name, self._about, labels=list(self._labels))
        for key, value in sorted(self._values().items()):
            family.add_metric(list(key), float(value))
        yield family
