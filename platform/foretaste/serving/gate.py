"""Who comes in: the first look at a request, before its body is read."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from foretaste.contracts.tenants import DEFAULT
from foretaste.serving.keys import Caller, KeyRing, Role
from foretaste.serving.problems import problem
from foretaste.serving.rates import TokenBucket

API_KEY = "X-API-Key"
CALLER = "foretaste.caller"
"""Key of the request's scope."""
MAX_HEADERS, MAX_HEADER_BYTES, MAX_PATH_BYTES = 100, 16_384, 4_096

OPEN = frozenset({"/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs", "/docs/oauth2-redirect"})
"""Paths that need no key: nothing of members or tenants is told there."""
ANYBODY = Caller(tenant=DEFAULT, role=Role.OPERATOR)
"""Who asks where no keys are wanted."""

_OF_CLIENTS = re.compile(r"/v1/(events|recommend|recommend/next|rank|intent|decisions/[^/]+/ack)")
_OF_OPERATORS = re.compile(r"/v1/models/.+")


def caller(request: Request) -> Caller:
    """Who asks."""
    found: Caller = request.scope.get(CALLER, ANYBODY)
    return found


def permitted(role: Role, path: str) -> bool:
    """Whether a role may use a path."""
    if role is Role.CLIENT:
        return _OF_CLIENTS.fullmatch(path) is not None
    return role is Role.OPERATOR or _OF_OPERATORS.fullmatch(path) is None


class Gate:
    """Refuses what is too large, who has no key, who may not, and who asks too often; notes who asks."""

    def __init__(
        self, app: ASGIApp, *, keys: KeyRing | None, share: float = 1.0, timer: Callable[[], float] = time.monotonic
    ) -> None:
        """Without `keys` everybody is the default tenant. `share` of a tenant's rate is this process's to give."""
        self._app = app
        self._keys = keys
        self._share = share
        self._timer = timer
        self._buckets: dict[str, TokenBucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, detail, headers = self._look(scope)
        if status:
            await problem(Request(scope), status, detail, headers=headers)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _look(self, scope: Scope) -> tuple[int, str, Mapping[str, str]]:
        """Status 0 where a request may come in, else what it is answered."""
        headers, path = scope["headers"], scope["path"]
        if len(scope.get("raw_path") or path.encode()) + len(scope.get("query_string", b"")) > MAX_PATH_BYTES:
            return 414, f"the path has more than {MAX_PATH_BYTES} bytes", {}
        if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
            return 431, f"wanted at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes in all", {}
        if self._keys is None or path in OPEN:
            return 0, "", {}
        presented = [value for name, value in headers if name == b"x-api-key"]
        who = self._keys.caller(presented[0].decode("latin-1")) if len(presented) == 1 else None
        if who is None:
            return 401, f"{API_KEY}: wanted a valid key, once", {"WWW-Authenticate": "ApiKey"}
        scope[CALLER] = who
        if not permitted(who.role, path):
            return 403, f"{API_KEY}: a key of role {who.role.value} may not do this", {}
        seconds = self._wait(who.tenant, self._keys)
        if seconds > 0:
            return 429, "the tenant asks more often than agreed", {"Retry-After": str(max(1, math.ceil(seconds)))}
        return 0, "", {}

    def _wait(self, tenant: str, keys: KeyRing) -> float:
        rate = keys.rates.get(tenant)
        if rate is None:
            return 0.0
        limits = (rate.per_second * self._share, max(1.0, rate.burst * self._share))
        bucket = self._buckets.get(tenant)
        if bucket is None or bucket.limits != limits:
            bucket = self._buckets[tenant] = TokenBucket(*limits, timer=self._timer)
        return bucket.take()
