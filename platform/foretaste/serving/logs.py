"""What the service says while it works: one line a request and one a trouble, without personal data and without keys.

Of an error its type and place are told and not its words, for those may quote what a client sent. Requests are named by
their endpoint and not by their path, which holds ids.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foretaste.serving.gate import CALLER
from foretaste.serving.problems import REQUEST_ID_KEY
from foretaste.serving.tracing import TRACE_ID_KEY

ACCESS = "foretaste.access"
MAX_FRAMES = 20

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_access = logging.getLogger(ACCESS)


class LogFormat(StrEnum):
    """How lines are written."""

    JSON = "json"
    TEXT = "text"
    NONE = "none"  # nothing is configured: Python's own logging is as the program left it


class Lines(logging.Formatter):
    """Records as lines: JSON objects, or the same as `name=value` for people."""

    def __init__(self, kind: LogFormat) -> None:
        super().__init__()
        self._kind = kind

    def format(self, record: logging.LogRecord) -> str:
        """Make the line of a record."""
        told = plain(record)
        if self._kind is LogFormat.JSON:
            return orjson.dumps(told, default=str).decode()
        return " ".join(f"{name}={value}" for name, value in told.items())


def plain(record: logging.LogRecord) -> dict[str, Any]:
    """What is told of a record."""
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    told: dict[str, Any] = {"at": at, "level": record.levelname.lower(), "logger": record.name}
    request = getattr(record, "request", None)
    told |= request if isinstance(request, dict) else {"message": record.getMessage(), "request_id": _request_id.get()}
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
        told["error"] = type(error).__name__
        told["trace"] = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return told


def configure(kind: LogFormat, stream: IO[str] | None = None) -> None:
    """Have all that the package logs written to `stream`, by default standard error; again replaces what was."""
    logger = logging.getLogger("foretaste")
    for handler in [one for one in logger.handlers if isinstance(one.formatter, Lines)]:
        logger.removeHandler(handler)
    if kind is LogFormat.NONE:
        return
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Lines(kind))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


class AccessLog:
    """Logs a line for every request once it is answered: when, id, tenant, endpoint, status, milliseconds."""

    def __init__(self, app: ASGIApp, *, timer: Callable[[], float] = time.perf_counter) -> None:
        self._app = app
        self._timer = timer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wrap one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = self._timer(), 500
        token = _request_id.set(scope.get(REQUEST_ID_KEY))

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            _request_id.reset(token)
            if _access.isEnabledFor(logging.INFO):
                _access.info("request", extra={"request": _told(scope, status, (self._timer() - began) * 1e3)})


def _told(scope: Scope, status: int, ms: float) -> dict[str, Any]:
    route, caller = scope.get("route"), scope.get(CALLER)
    traced = {"trace_id": scope[TRACE_ID_KEY]} if TRACE_ID_KEY in scope else {}
    return traced | {
        "request_id": scope.get(REQUEST_ID_KEY),
        "tenant": None if caller is None else caller.tenant,
        "key": None if caller is None else caller.key,
        "method": scope["method"],
        "endpoint": getattr(route, "path", "none"),
        "status": status,
        "ms": round(ms, 3),
    }
