"""`foretaste keys`: make, list and revoke the API keys of a workspace; and the key of this machine's own programs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from rich.table import Table

from foretaste.contracts.tenants import DEFAULT
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import Workspace
from foretaste.ops.telemetry import console, say
from foretaste.serving.keys import (
    KEYS_FILE,
    LOCAL_KEY_FILE,
    Rate,
    Role,
    create_key,
    local_key,
    read_keys,
    revoke_key,
)

VARIABLE = "FORETASTE_API_KEY"


def utc_now() -> datetime:
    """The clock of the command line."""
    return datetime.now(UTC)


def keys(
    settings: Settings,
    action: str,
    *,
    tenant: str | None = None,
    role: str = Role.SERVER.value,
    per_second: float | None = None,
    burst: int | None = None,
    key: str | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> dict[str, Any]:
    """Create a key of a tenant, list them, or revoke one by its name; a running service heeds it at once.

    Raises ValueError naming what is missing or wrong.
    """
    path = settings.tables.serving / KEYS_FILE
    if action == "create":
        rate = _rate(per_second, burst)
        made = create_key(path, tenant or DEFAULT, Role(role), clock=clock, rate=rate)
        say(f"this key of tenant {tenant or DEFAULT} is shown once and kept nowhere; send it as X-API-Key:")
        print(made, flush=True)
        return {"tenant": tenant or DEFAULT, "role": role, "key": made.split("_")[1]}
    if action == "revoke":
        if key is None:
            raise ValueError("revoke: --key NAME is missing; `foretaste keys list` names them")
        gone = revoke_key(path, key)
        say(f"revoked key {gone.name} of tenant {gone.tenant}")
        return {"tenant": gone.tenant, "role": gone.role.value, "key": gone.name}
    found = read_keys(path)
    shown = [one for one in found.keys if tenant in (None, one.tenant)]
    table = Table("key", "tenant", "role", "created", "requests a second", "at once", title=str(path))
    for one in shown:
        of = found.rates.get(one.tenant)
        rate_cells = ("any", "any") if of is None else (f"{of.per_second:g}", str(of.burst))
        table.add_row(one.name, one.tenant, one.role.value, f"{one.created_at:%Y-%m-%d %H:%M}", *rate_cells)
    console.print(table)
    return {"keys": [{"key": one.name, "tenant": one.tenant, "role": one.role.value} for one in shown]}


def own_key(tables: Workspace, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key with which programs of this machine ask: of the environment, else of the workspace; None without one."""
    path = tables.serving / LOCAL_KEY_FILE
    return environment.get(VARIABLE) or (path.read_text().strip() if path.is_file() else None)


def first_key(settings: Settings, host: str) -> None:
    """See to it that somebody can ask the service that is about to listen on `host`.

    On loopback a key for this machine's programs is made. Raises ValueError elsewhere, where there is no key at all.
    """
    folder = settings.tables.serving
    if _loopback(host):
        local_key(folder, clock=utc_now)
        say(f"the API key of this machine's programs is in {folder / LOCAL_KEY_FILE}")
    elif not read_keys(folder / KEYS_FILE).keys:
        raise ValueError(
            f"nobody could ask a service on {host}: make a key first, `foretaste keys create --tenant NAME`"
        )


def _rate(per_second: float | None, burst: int | None) -> Rate | None:
    if per_second is None:
        if burst is not None:
            raise ValueError("--burst: needs --rate, too")
        return None
    if per_second <= 0 or (burst is not None and burst < 1):
        raise ValueError(f"--rate and --burst: wanted above 0 and at least 1, got {per_second} and {burst}")
    return Rate(per_second=per_second, burst=burst or max(1, round(2 * per_second)))


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
