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
from foretaste.policies.slate import Price
from foretaste.serving.breaker import Breaker, State
from foretaste.serving.budget import Guard, Guards
from foretaste.serving.shedding import Admission, Shed
from foretaste.serving.watch import Watch

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "foretaste_"

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
_AGES = (0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0, 86_400.0, 604_800.0, 2_592_000.0)
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
        self._arms = self._counter("arm_answers", "lists by arm, while there are any", "arm")
        self._sheds = self._counter("sheds", "requests refused for want of room", "reason")
        self._events = self._counter("events", "events by what became of them", "outcome")
        self._age = Histogram(
            f"{PREFIX}newest_event_age_seconds",
            "from the newest event that an answer used to the answer",
            buckets=_AGES,
            registry=self.registry,
        )
        for reason in Shed:
            self._sheds.labels(reason.value)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request."""
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
        if freshness.age_seconds is not None:
            self._age.observe(freshness.age_seconds)

    def explored(self, kind: Kind, surface: str, policy: str, price: Price | None) -> None:
        """Add what the dice of a list are expected to give up, and what it would have been worth without them."""
        named = "rank" if kind is Kind.RANK else surface  # that of a ranking is any text
        if price is not None:
            self._given_up.labels(named, policy).inc(float(price.given_up_K.sum()))
            self._best.labels(named, policy).inc(float(price.best_K.sum()))

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
        self.registry.register(_Values(PREFIX + name, about, label, values))

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

    def __init__(self, name: str, about: str, label: str, values: Callable[[], Mapping[str, float]]) -> None:
        self._name = name
        self._about = about
        self._label = label
        self._values = values

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Look them up."""
        family = GaugeMetricFamily(self._name, self._about, labels=[self._label])
        for key, value in sorted(self._values().items()):
            family.add_metric([key], float(value))
        yield family
