"""Requests on their way in and rows on their way out: where ids take on their tenant and lose it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from foretaste.contracts.tenants import DEFAULT, inside, outside

ACTOR_IDS = ("member_id", "session_id")
EVENT_IDS = (*ACTOR_IDS, "event_id")
"""Ids that are a tenant's own; titles are everybody's, and decisions are named by dice."""
R = TypeVar("R", bound=BaseModel)


def request_inside(request: R, tenant: str) -> R:
    """A request with the ids under which its tenant's data are stored; itself for the default tenant."""
    return (
        request if tenant == DEFAULT else _with(request, {id_: inside(value, tenant) for id_, value in _ids(request)})
    )


def request_outside(request: R) -> R:
    """A request as its tenant sent it."""
    return _with(request, {id_: outer for id_, value in _ids(request) if (outer := outside(value)) != value})


def row_inside(row: dict[str, Any], tenant: str) -> dict[str, Any]:
    """A row of EVENTS with the ids under which it is stored."""
    if tenant == DEFAULT:
        return row
    return row | {name: inside(row[name], tenant) for name in EVENT_IDS if row.get(name) is not None}


def row_outside(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of any table as its tenant knows it."""
    return dict(row) | {name: outside(row[name]) for name in EVENT_IDS if row.get(name) is not None}


def _ids(request: BaseModel) -> list[tuple[str, str]]:
    return [(name, value) for name in ACTOR_IDS if (value := getattr(request, name, None)) is not None]


def _with(request: R, ids: Mapping[str, str]) -> R:
    return request.model_copy(update=ids) if ids else request
