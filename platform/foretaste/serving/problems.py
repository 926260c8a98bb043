"""Errors as application/problem+json, each naming what is wrong and with which field."""

from __future__ import annotations

import http
import logging
import sqlite3
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from foretaste.contracts.wire import FieldProblem, Problem
from foretaste.serving.nesting import FieldError

REQUEST_ID = "X-Request-ID"
REQUEST_ID_KEY, ECHO_KEY = "foretaste.request_id", "foretaste.echo_request_id"
"""Keys of the request's scope."""
MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
MAX_FIELD = 200  # a key that nobody knows may be as long as the body

_log = logging.getLogger(__name__)


class ConflictError(Exception):
    """What was asked for cannot be done with what is stored; the message says why."""


class RefusedError(Exception):
    """A request that is well formed and still cannot be answered; the message names the field."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


def problem(
    request: Request, status: int, detail: str, *, errors: Sequence[FieldProblem] = (), headers: Any = None
) -> Response:
    """Make the answer of a request that failed."""
    request_id = str(request.scope.get(REQUEST_ID_KEY, ""))
    body = Problem(
        title=http.HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        request_id=request_id,
        errors=list(errors)[:MAX_ERRORS],
    )
    both = dict(headers or {})
    if request.scope.get(ECHO_KEY):
        both[REQUEST_ID] = request_id  # after an unexpected error nothing else sets it
    return Response(body.model_dump_json(), status_code=status, media_type=MEDIA_TYPE, headers=both)


def install(app: FastAPI) -> None:
    """Have every error of the app answered as a problem."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(ConflictError, _conflict)
    app.add_exception_handler(HTTPException, _http)
    for down in (OSError, sqlite3.Error):
        app.add_exception_handler(down, _unavailable)
    app.add_exception_handler(Exception, _unexpected)


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(e["type"] == "json_invalid" for e in found):
        why = str(found[0].get("ctx", {}).get("error", found[0]["msg"]))
        return problem(request, 400, f"the body is not JSON: {why}")
    errors = [
        FieldProblem(field=".".join(str(part) for part in e["loc"][1:])[:MAX_FIELD], code=e["type"], message=e["msg"])
        for e in found
    ]
    first = errors[0]
    return problem(request, 422, f"{first.field or 'body'}: {first.message}", errors=errors)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    errors = [FieldProblem(field=error.field, code="refused", message=error.message)]
    return problem(request, 422, f"{error.field}: {error.message}", errors=errors)


def _conflict(request: Request, error: Exception) -> Response:
    return problem(request, 409, str(error))


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, FieldError):
        found = FieldProblem(field=error.field[:MAX_FIELD], code="refused", message=error.message)
        return problem(request, error.status_code, f"{found.field or 'body'}: {found.message}", errors=[found])
    return problem(request, error.status_code, str(error.detail), headers=error.headers)


def _unavailable(request: Request, error: Exception) -> Response:
    _log.error("request %s failed: %s", request.scope.get(REQUEST_ID_KEY), error)
    detail = "a store of the service does not answer; nothing of the request is certain, the same request again is safe"
    return problem(request, 503, detail, headers={"Retry-After": "1"})


def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("request %s failed", request.scope.get(REQUEST_ID_KEY), exc_info=error)
    return problem(request, 500, "the request failed; the log of the service has the reason under request_id")
