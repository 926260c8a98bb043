"""A client of the HTTP interface: what the demonstration and `foretaste recommend` call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx
from rich.table import Table

from foretaste.ops.telemetry import console, say


class Client:
    """Blocking calls to one service; raises ConnectionError with the service's own words when it refuses."""

    def __init__(self, url: str, *, key: str | None = None, timeout_seconds: float = 30.0) -> None:
        headers = {} if key is None else {"X-API-Key": key}
        self._http = httpx.Client(base_url=url, timeout=timeout_seconds, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def events(self, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Send events; what is returned is durable."""
        return self._call("POST", "/v1/events", {"events": list(events)})

    def recommend(self, **request: Any) -> dict[str, Any]:
        """Ask for a list."""
        return self._call("POST", "/v1/recommend", request)

    def intent(self, **request: Any) -> dict[str, Any]:
        """Ask what a member or a guest is probably here for; nothing is logged."""
        return self._call("POST", "/v1/intent", request)

    def decision(self, decision_id: str) -> dict[str, Any]:
        """Read a logged decision."""
        return self._call("GET", f"/v1/decisions/{decision_id}", None)

    def ready(self) -> bool:
        """Say whether the service takes requests."""
        try:
            return self._http.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def _call(self, method: str, path: str, body: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise ConnectionError(f"{method} {self._http.base_url}{path}: {error}") from error
        if answer.is_error:
            raise ConnectionError(f"{method} {path}: {answer.status_code}: {answer.text}")
        result: dict[str, Any] = answer.json()
        return result


def recommend(
    url: str, *, member_id: str | None, session_id: str, k: int, policy: str | None, key: str | None = None
) -> dict[str, Any]:
    """Ask once and show the answer as a table."""
    request = {"session_id": session_id, "k": k, "explain": "items"}
    request |= {name: value for name, value in (("member_id", member_id), ("policy", policy)) if value is not None}
    with Client(url, key=key) as client:
        answer = client.recommend(**request)
    table = Table("", "title", "score", "propensity", "why", title=f"decision {answer['decision_id']}")
    for item in answer["items"]:
        why = ", ".join(item["reasons"])
        row = (item["position"] + 1, item["name"], f"{item['score']:.3f}", f"{item['propensity']:.3f}", why)
        table.add_row(*map(str, row))
    console.print(table)
    layout = answer["layout"]
    hint = "" if layout is None else f"; lay the page out to {layout['hint']} ({layout['probability']:.0%})"
    say(f"{answer['top_intent'] or 'no intent is predicted'}{hint}")
    return answer
