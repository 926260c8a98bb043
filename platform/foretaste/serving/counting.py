"""Every request counted by its endpoint, its status and what it took."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastapi import FastAPI, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foretaste.serving.metrics import CONTENT_TYPE, Metrics
from foretaste.serving.shedding import SHED_PATHS

OTHER = "other"
METRICS_PATH = "/metrics"
UNROUTED = SHED_PATHS | {"/v1/events"}
"""Endpoints of which also that is told apart which was refused before it was routed."""


class Counting:
    """Counts what goes through it; a path that no route has is «other», so that nobody makes labels."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, timer: Callable[[], float]) -> None:
        self._app = app
        self._metrics = metrics
        self._timer = timer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = self._timer(), 500

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_look)
        finally:
            self._metrics.request(self._endpoint(scope), status, self._timer() - begun)

    def _endpoint(self, scope: Scope) -> str:
        path = getattr(scope.get("route"), "path", None) or scope["path"]
        return str(path) if "route" in scope or path in UNROUTED else OTHER


def add_metrics(app: FastAPI, metrics: Metrics) -> None:
    """Tell the counts at /metrics."""

    @app.get(METRICS_PATH, response_class=Response, responses={200: {"content": {CONTENT_TYPE: {}}}})
    def read() -> Response:
        """Counts and times of all processes of the workspace, as Prometheus reads them."""
        return Response(metrics.told(), media_type=CONTENT_TYPE)


def count_requests(app: FastAPI, metrics: Metrics, *, timer: Callable[[], float] = time.perf_counter) -> None:
    """Count the requests of an app."""
    app.add_middleware(Counting, metrics=metrics, timer=timer)
