"""Requests and the stages of their answers as spans of OpenTelemetry, where that is wanted; off by default.

Nothing is measured for it: a stage's span is made of the lap that the answer's watch took anyway, once the answer is
there. An incoming `traceparent` is continued. No span names a member, a session or a title; a decision is named, so
that a trace leads to what was logged.
"""

from __future__ import annotations

import io
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from enum import StrEnum
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

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
LINES = ".jsonl"
NOT_TRACED = frozenset({"/health/live", "/health/ready", "/metrics", "/openapi.json"})
WAITING = "waiting"


class TraceExporter(StrEnum):
    """Where spans go."""

    NONE = "none"
    OTLP = "otlp"  # to a collector, over HTTP
    FILE = "file"  # lines of JSON in the workspace, serving/traces, a file a process and the one before


class TracingConfig(Frozen):
    """Which requests are traced, and where to."""

    exporter: TraceExporter = Field(TraceExporter.NONE, description="where spans go: none, otlp, file")
    endpoint: str = Field("http://127.0.0.1:4318/v1/traces", description="of the collector, for otlp over HTTP")
    share: float = Field(
        0.01, ge=0, le=1, description="share of requests that are traced where none says; a traceparent decides itself"
    )
    service_name: str = Field("foretaste", description="under which the collector files the spans")
    file_mb: float = Field(64.0, gt=0, description="megabytes of spans that a process keeps, for file; the oldest go")
    files: int = Field(
        32, ge=1, description="files that are kept, for file: those of processes that ended longest ago go"
    )


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


def carried() -> str | None:
    """The request that is answered just now, as another process goes on with it; None where it is not traced."""
    traced = _current.get()
    if traced is None:
        return None
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(traced.span))
    return carrier.get("traceparent")


def continued(tracing: Tracing | None, name: str, trace: str | None, **attributes: str) -> AbstractContextManager[None]:
    """A span within the trace that another process `carried` here; nothing where there is none."""
    if tracing is None or trace is None:
        return nullcontext()
    return tracing.continued(name, trace, **attributes)


class Tracing:
    """Begins and ends the spans of requests."""

    def __init__(
        self,
        config: TracingConfig,
        processor: SpanProcessor,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        out: io.TextIOBase | None = None,
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

    @contextmanager
    def continued(self, name: str, trace: str, **attributes: str) -> Iterator[None]:
        """A span around what is done here for a request of another process, whose `traceparent` is given."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        outside = TraceContextTextMapPropagator().extract({"traceparent": trace})
        span = self._tracer.start_span(name, outside, SpanKind.SERVER, start_time=self._now_ns())
        span.set_attributes({f"foretaste.{key}": value for key, value in attributes.items()})
        try:
            yield
        except BaseException as error:
            span.set_status(_error(type(error).__name__))
            raise
        finally:
            span.end(self._now_ns())

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
        if self._out is not None:
            self._out.close()


class SpanFile(io.TextIOBase):
    """A file of lines that does not grow without end: at half its size it becomes NAME.1, and what was that goes."""

    def __init__(self, path: Path, *, most_bytes: int) -> None:
        self._handler = _Rotated(path, maxBytes=max(1, most_bytes // 2), backupCount=1, encoding="utf-8")

    def write(self, text: str) -> int:
        """Write a line. Raises OSError where the disk takes none."""
        self._handler.emit(logging.makeLogRecord({"msg": text.rstrip("\n")}))
        return len(text)

    def flush(self) -> None:
        """Hand everything to the disk."""
        if not self.closed:
            self._handler.flush()

    def close(self) -> None:
        """Write no more."""
        self._handler.close()
        super().close()


class _Rotated(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Have the exporter hear of it, which logs it, instead of printing."""
        raise


def _remove_oldest(folder: Path, *, keep: int) -> None:
    """Remove files of spans but for the `keep` that were written to last."""
    known = []
    for path in folder.glob(f"*{LINES}*"):
        try:
            known.append((path.stat().st_mtime_ns, path))
        except FileNotFoundError:  # another process removes, too
            continue
    known.sort()
    for _, path in known[: max(0, len(known) - keep)]:
        path.unlink(missing_ok=True)


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
        _remove_oldest(folder, keep=config.files - 1)
        name = f"{socket.gethostname()}-{os.getpid()}{LINES}"  # pods have the same process ids
        out = SpanFile(folder / name, most_bytes=round(config.file_mb * 1e6))
        exporter = ConsoleSpanExporter(out=cast(TextIO, out), formatter=lambda span: span.to_json(indent=None) + "\n")
    return Tracing(config, BatchSpanProcessor(exporter), out=out)


def _error(what: str) -> Status:
    from opentelemetry.trace import Status, StatusCode

    return Status(StatusCode.ERROR, what)
