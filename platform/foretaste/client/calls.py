"""Plain calls of the HTTP interface: each is one request, and what is refused is told in the service's own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request again may succeed."""


class CallError(ConnectionError):
    """A call that was not answered as wished; `status` is 0 where nothing was answered at all."""

    def __init__(self, message: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after  # seconds, where the service says so

    @property
    def passes(self) -> bool:
        """Whether the same call may succeed later."""
        return self.status == 0 or self.status in RETRIED


class Calls:
    """Blocking calls to one service; raises CallError, a ConnectionError, with the service's words when it refuses."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_seconds: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {} if key is None else {"X-API-Key": key}
        self._http = httpx.Client(base_url=url, timeout=timeout_seconds, headers=headers, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def events(self, events: Sequence[Mapping[str, Any]], *, timeout_seconds: float | None = None) -> dict[str, Any]:
        """Send events; what is accepted or a duplicate is durable."""
        return self.call("POST", "/v1/events", {"events": list(events)}, timeout_seconds=timeout_seconds)

    def recommend(self, **request: Any) -> dict[str, Any]:
        """Ask for a list."""
        return self.call("POST", "/v1/recommend", request)

    def intent(self, **request: Any) -> dict[str, Any]:
        """Ask what a member or a guest is probably here for; nothing is logged."""
        return self.call("POST", "/v1/intent", request)

    def ack(
        self, decision_id: str, shown: Sequence[str], at: str, *, timeout_seconds: float | None = None
    ) -> dict[str, Any]:
        """Tell what of a list was really shown; safe to repeat."""
        path = f"/v1/decisions/{quote(decision_id, safe='')}/ack"
        return self.call("POST", path, {"shown": list(shown), "at": at}, timeout_seconds=timeout_seconds)

    def decision(self, decision_id: str) -> dict[str, Any]:
        """Read a logged decision."""
        return self.call("GET", f"/v1/decisions/{quote(decision_id, safe='')}")

    def replay(self, decision_id: str, **models: str) -> dict[str, Any]:
        """Have a decision made again, by default with its own models."""
        return self.call("POST", f"/v1/decisions/{quote(decision_id, safe='')}/replay", models)

    def session(self, session_id: str, *, member_id: str | None = None) -> dict[str, Any]:
        """Read what the service knows of a session's guest, or of a member."""
        query = "" if member_id is None else f"?member_id={quote(member_id, safe='')}"
        return self.call("GET", f"/v1/sessions/{quote(session_id, safe='')}{query}")

    def merge(self, member_id: str, session_id: str) -> dict[str, Any]:
        """Make what a guest did the member's; safe to repeat."""
        return self.call("POST", f"/v1/members/{quote(member_id, safe='')}/merge", {"session_id": session_id})

    def consent(self, member_id: str, consent: bool) -> dict[str, Any]:
        """Say whether anything of a member may be stored from now on."""
        return self.call("PUT", f"/v1/members/{quote(member_id, safe='')}/consent", {"consent": consent})

    def delete(self, member_id: str) -> dict[str, Any]:
        """Have a member forgotten; safe to repeat."""
        return self.call("DELETE", f"/v1/members/{quote(member_id, safe='')}")

    def ready(self) -> bool:
        """Say whether the service takes requests."""
        try:
            return self._http.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def call(self, method: str, path: str, body: Any = None, *, timeout_seconds: float | None = None) -> dict[str, Any]:
        """Make one call. Raises CallError."""
        more = {} if timeout_seconds is None else {"timeout": timeout_seconds}
        try:
            answer = self._http.request(method, path, json=body, **more)  # type: ignore[arg-type]
        except httpx.TransportError as error:
            raise CallError(f"{method} {self._http.base_url}{path}: {error}") from error
        if answer.is_error:
            after = _seconds(answer.headers.get("retry-after"))
            told = f"{method} {path}: {answer.status_code}: {answer.text}"
            raise CallError(told, status=answer.status_code, retry_after=after)
        try:
            result: dict[str, Any] = answer.json()
        except ValueError as error:
            raise CallError(f"{method} {path}: {answer.status_code}: the answer is not JSON") from error
        return result


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None
