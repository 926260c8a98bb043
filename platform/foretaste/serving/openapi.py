"""The OpenAPI document: what FastAPI writes, with the key that is wanted and the errors as they really are."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from foretaste.contracts.wire import Problem
from foretaste.serving.gate import API_KEY, OPEN
from foretaste.serving.problems import MEDIA_TYPE

_SCHEME = "ApiKey"
_OF_ALL = {414: "the path is too long", 431: "the headers are too large"}
_OF_KEYS = {
    401: "no valid key",
    403: "the key's role may not do this",
    429: "the tenant asks more often than agreed, or the service has more than it can do; see Retry-After",
}


def problem_response(description: str) -> dict[str, Any]:
    """A response that is application/problem+json."""
    return {"description": description, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


def document(app: FastAPI, *, keys: bool) -> None:
    """Have the app describe itself: its problems, which no route names as its model, and whether `keys` are wanted."""
    written: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not written:
            written.update(get_openapi(title=app.title, version=app.version, routes=app.routes))
            _complete(written, keys=keys)
        return written

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(written: dict[str, Any], *, keys: bool) -> None:
    parts = written.setdefault("components", {})
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    inner = problem.pop("$defs", {})
    schemas = parts.setdefault("schemas", {})
    schemas.update(inner | {"Problem": problem})
    if keys:
        parts["securitySchemes"] = {_SCHEME: {"type": "apiKey", "in": "header", "name": API_KEY}}
    for path, operations in written["paths"].items():
        wanted = keys and path not in OPEN
        known = _OF_ALL | (_OF_KEYS if wanted else {429: _OF_KEYS[429]} if path not in OPEN else {})
        known |= {404: "there is nothing of this name"} if "{" in path else {}
        for operation in operations.values():
            for status, description in known.items():
                operation["responses"].setdefault(str(status), problem_response(description))
            if wanted:
                operation["security"] = [{_SCHEME: []}]
