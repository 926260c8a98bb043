"""Requests and their stages as spans: from the laps that are taken anyway, within the trace that a request names."""

from __future__ import annotations

import asyncio
import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from foretaste.serving.ingress import build_app
from foretaste.serving.tracing import SpanFile, TraceExporter, Tracing, TracingConfig, open_tracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NAMED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
WHO = {"member_id": "m-secret", "session_id": "s-secret"}


def talk(bench: Any, tracing: Tracing | None, *calls: tuple[str, str, Any, dict[str, str]]) -> list[httpx.Response]:
    found: list[httpx.Response] = []

    async def whole() -> None:
        app = build_app(bench.service(), max_body_bytes=100_000, tracing=tracing)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                for method, path, body, headers in calls:
                    found.append(await client.request(method, path, json=body, headers=headers))

    asyncio.run(whole())
    return found


def traced(bench: Any, *calls: tuple[str, str, Any, dict[str, str]], share: float = 1.0) -> list[ReadableSpan]:
    kept = InMemorySpanExporter()
    talk(bench, Tracing(TracingConfig(share=share), SimpleSpanProcessor(kept)), *calls)
    return list(kept.get_finished_spans())


def test_a_list_is_a_span_with_its_stages_within_the_trace_that_the_request_names(bench: Any) -> None:
    bench.ranker.failure = RuntimeError("broken")
    spans = traced(bench, ("POST", "/v1/recommend", WHO, NAMED), share=0.0)
    (root,) = [span for span in spans if span.kind.name == "SERVER"]
    assert root.name == "POST /v1/recommend"
    assert f"{root.context.trace_id:032x}" == TRACE
    assert root.parent is not None
    assert f"{root.parent.span_id:016x}" == PARENT
    attributes = dict(root.attributes or {})
    assert attributes["http.response.status_code"] == 200
    assert attributes["foretaste.fallback"] == "ranker_failed"
    assert attributes["foretaste.decision_id"]
    stages = [span for span in spans if span is not root and span.name != "waiting"]
    logged = bench.decisions.get(attributes["foretaste.decision_id"])
    assert [span.name for span in stages][: len(logged["timings"])] == [one["stage"] for one in logged["timings"]]
    assert {span.parent.span_id for span in stages if span.parent} == {root.context.span_id}
    for before, after in pairwise(stages):
        assert before.end_time is not None
        assert after.start_time is not None
        assert before.end_time <= after.start_time + 1
    assert "secret" not in str([span.to_json() for span in spans])


def test_intents_are_traced_too_and_errors_say_so_and_health_is_not(bench: Any) -> None:
    bench.decisions.close()
    spans = traced(
        bench,
        ("POST", "/v1/intent", WHO, {}),
        ("POST", "/v1/recommend", WHO, {}),
        ("GET", "/health/live", None, {}),
        ("GET", "/metrics", None, {}),
    )
    roots = {span.name: span for span in spans if span.kind.name == "SERVER"}
    assert set(roots) == {"POST /v1/intent", "POST /v1/recommend"}
    assert roots["POST /v1/recommend"].status.status_code.name == "ERROR"
    inside = [
        span.name for span in spans if span.parent and span.parent.span_id == roots["POST /v1/intent"].context.span_id
    ]
    assert [name for name in inside if name != "waiting"] == ["session_log", "intent"]


def test_a_share_of_0_traces_nobody_who_is_not_traced_already(bench: Any) -> None:
    unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    told = [{}, {"traceparent": "nonsense"}, unsampled]
    assert traced(bench, *(("POST", "/v1/recommend", WHO, headers) for headers in told), share=0.0) == []


def test_nothing_is_traced_by_default(tmp_path: Path) -> None:
    assert open_tracing(TracingConfig(), tmp_path) is None


def test_a_file_has_a_line_a_span(bench: Any, tmp_path: Path) -> None:
    tracing = open_tracing(TracingConfig(exporter=TraceExporter.FILE, share=1.0), tmp_path / "traces")
    talk(bench, tracing, ("POST", "/v1/recommend", WHO, {}))
    (file,) = (tmp_path / "traces").glob("*.jsonl")
    names = [json.loads(line)["name"] for line in file.read_text().splitlines()]
    assert {"POST /v1/recommend", "session_log", "policy"} <= set(names)


def test_a_file_of_spans_keeps_the_newest_and_does_not_grow_without_end(tmp_path: Path) -> None:
    path = tmp_path / "host-1.jsonl"
    out = SpanFile(path, most_bytes=20_000)
    for number in range(1_000):
        out.write(f"{number:099d}\n")
    out.close()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 20_000
    assert path.read_text().splitlines()[-1] == f"{999:099d}"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["host-1.jsonl", "host-1.jsonl.1"]


def test_files_of_processes_that_ended_long_ago_go_when_another_begins(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"old-{number}.jsonl").write_text("{}\n")
        os.utime(tmp_path / f"old-{number}.jsonl", (number, number))
    tracing = open_tracing(TracingConfig(exporter=TraceExporter.FILE, files=3), tmp_path)
    assert tracing is not None
    tracing.close()
    names = {file.name for file in tmp_path.iterdir()}
    assert {"old-3.jsonl", "old-4.jsonl"} < names
    assert len(names) == 3


def test_a_collector_is_sent_the_spans(bench: Any) -> None:
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
    config = TracingConfig(exporter=TraceExporter.OTLP, endpoint=endpoint, share=1.0)
    talk(bench, open_tracing(config, Path()), ("POST", "/v1/recommend", WHO, NAMED))
    server.shutdown()
    server.server_close()
    sent = [ExportTraceServiceRequest.FromString(body) for body in bodies]
    spans = [span for one in sent for of in one.resource_spans for scope in of.scope_spans for span in scope.spans]
    assert {"POST /v1/recommend", "policy"} <= {span.name for span in spans}
    assert {span.trace_id.hex() for span in spans} == {TRACE}
