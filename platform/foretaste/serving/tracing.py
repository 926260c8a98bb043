"""Requests and the stages of their answers as spans of OpenTelemetry, where that is wanted; off by default.

Nothing is measured for it: a stage's span is made of the lap that the answer's watch took anyway, once the answer is
there. An incoming `traceparent` is continued. No span names a member, a session or a title; a decision is named, so
that a trace leads to what was logged.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic import Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foretaste.contracts.config import Frozen
from foretaste.serving.problems import REQUEST_ID_KEY
from foretaste.serving.watch import Watch

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span, Status, Tracer

TRACE_ID_KEY = "foretaste.trace_id"
"""Key of the request's scope, where it is traced."""
TRACES_FOLDER = "traces"
NOT_TRACED = frozenset({"/health/live", "/health/ready", "/metrics", "/openapi.json"})
WAITING = "waiting"


class TraceExporter(StrEnum):
    """Where spans go."""

    NONE = "none"
    OTLP = "otlp"  # to a collector, over HTTP
    FILE = "file"  # lines of JSON in the workspace, serving/traces, one file a process


class TracingConfig(Frozen):
    """Which requests are traced, and where to."""

    exporter: TraceExporter = Field(TraceExporter.NONE, description="where spans go: none, otlp, file")
    endpoint: str = Field("http://127.0.0.1:4318/v1/traces", description="of the collector, for otlp over HTTP")
    share: float = Field(
        0.01, ge=0, le=1, description="share of requests that are traced where none says; a traceparent decides itself"
    )
    service_name: str = Field("foretaste", description="under which the collector files the spans")


class _Traced:
    """A request that is traced."""

    def __init__(self, tracer: Tracer, span: Span, now_ns: Callable[[], int]) -> None:
        self._tracer, self.span, self._now_ns = tracer, span, now_ns

    def stages(self, watch: Watch, attributes: Mapping[str, Any]) -> None:
        """Make the spans of an answer's laps, back from now."""
        from opentelemetry.trace import set_span_in_context

        inside = set_span_in_context(self.span)
        at_ms = -watch.elapsed_ms
        laps: list[tuple[str, float, dict[str, int]]] = []
        if watch.waited_ms:
            laps.append((WAITING, watch.waited_ms, {}))
        laps += [(lap.stage, lap.ms, {"num_in": lap.num_in, "num_out": lap.num_out}) for lap in watch.laps]
        now_ns = self._now_ns()
        for name, ms, numbers in laps:
            begin, end = (now_ns + round(1e6 * each) for each in (at_ms, at_ms + ms))
            self._tracer.start_span(name, inside, attributes=numbers, start_time=begin).end(end)
            at_ms += ms
        told = {f"foretaste.{name}": value for name, value in attributes.items() if value is not None}
        self.span.set_attributes(told)


_current: ContextVar[_Traced | None] = ContextVar("traced", default=None)


def tell(watch: Watch, **attributes: str | bool | None) -> None:
    """Have the request that is answered just now show its stages, where it is traced."""
    traced = _current.get()
    if traced is not None:
        traced.stages(watch, attributes)


class Tracing:
    """Begins and ends the spans of requests."""

    def __init__(
        self,
        config: TracingConfig,
        processor: SpanProcessor,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        out: IO[str] | None = None,
    ) -> None:
        """`processor` is given every span that ends; `now_ns` gives nanoseconds since 1970. `out` is closed at last."""
        self._out = out
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        named = Resource({"service.name": config.service_name, "process.pid": os.getpid()})
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(config.share)), resource=named, shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("foretaste")
        self._now_ns = now_ns

    @contextmanager
    def request(self, scope: Scope) -> Iterator[Span]:
        """A span around what answers a request, within the trace that it names."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        outside = TraceContextTextMapPropagator().extract(headers)
        span = self._tracer.start_span(scope["method"], outside, SpanKind.SERVER, start_time=self._now_ns())
        token = _current.set(_Traced(self._tracer, span, self._now_ns) if span.is_recording() else None)
        if span.is_recording():
            scope[TRACE_ID_KEY] = f"{span.get_span_context().trace_id:032x}"
        try:
            yield span
        except BaseException as error:  # its words may quote what a client sent
            span.set_status(_error(type(error).__name__))
            raise
        finally:
            _current.reset(token)
            route = getattr(scope.get("route"), "path", None)
            if route is not None:
                span.update_name(f"{scope['method']} {route}")
                span.set_attribute("http.route", route)
            span.set_attribute("http.request.method", scope["method"])
            if scope.get(REQUEST_ID_KEY):
                span.set_attribute("foretaste.request_id", scope[REQUEST_ID_KEY])
            span.end(self._now_ns())

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
        if self._out is not None:
            self._out.close()


class TraceRequests:
    """Traces what goes through it."""

    def __init__(self, app: ASGIApp, *, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on within its span."""
        if scope["type"] != "http" or scope["path"] in NOT_TRACED:
            await self._app(scope, receive, send)
            return
        with self._tracing.request(scope) as span:

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(_error(str(message["status"])))
                await send(message)

            await self._app(scope, receive, noting)


def open_tracing(config: TracingConfig, folder: Path) -> Tracing | None:
    """Trace as configured, files under `folder`; None where nothing is traced."""
    if config.exporter is TraceExporter.NONE:
        return None
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    exporter: SpanExporter
    out = None
    if config.exporter is TraceExporter.OTLP:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(config.endpoint)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        out = (folder / f"{os.getpid()}.jsonl").open("a", encoding="utf-8")
        exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
    return Tracing(config, BatchSpanProcessor(exporter), out=out)


def _error(what: str) -> Status:
    from opentelemetry.trace import Status, StatusCode

    return Status(StatusCode.ERROR, what)
