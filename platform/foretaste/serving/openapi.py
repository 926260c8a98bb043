"""The OpenAPI document: what FastAPI writes, with the errors as they really are."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from foretaste.contracts.wire import Problem


def document(app: FastAPI) -> None:
    """Have the app describe itself with the schema of its problems, which no route names as its model."""
    written: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not written:
            written.update(get_openapi(title=app.title, version=app.version, routes=app.routes))
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            inner = problem.pop("$defs", {})
            written.setdefault("components", {}).setdefault("schemas", {}).update(inner | {"Problem": problem})
        return written

    app.openapi = openapi  # type: ignore[method-assign]
