"""Whose data it is: every id of a tenant carries the tenant inside the platform, and none outside.

A member of tenant `acme` is `acme` + U+001F + id in every store and table; so are sessions and events. No id that a
client sends can hold that character, so one tenant can name nothing of another's. The default tenant's ids stay as they
are: what was stored before there were tenants is its own.
"""

from __future__ import annotations

import re

DEFAULT = "default"
SEPARATOR = "\x1f"
MAX_LENGTH = 32

_NAME = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{MAX_LENGTH - 1}}}")


def checked_tenant(name: str) -> str:
    """The name of a tenant. Raises ValueError saying what a name looks like."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"tenant {name!r}: wanted 1 to {MAX_LENGTH} of a-z, 0-9, _ and -, not beginning with _ or -")
    return name


def inside(outer: str, tenant: str) -> str:
    """The id under which a tenant's `outer` is stored."""
    return outer if tenant == DEFAULT else f"{tenant}{SEPARATOR}{outer}"


def outside(inner: str) -> str:
    """The id as its tenant knows it."""
    return inner.rpartition(SEPARATOR)[2]


def tenant_of(inner: str) -> str:
    """The tenant that an id is of."""
    return inner.partition(SEPARATOR)[0] if SEPARATOR in inner else DEFAULT
