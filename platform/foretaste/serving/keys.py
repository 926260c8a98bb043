"""API keys of tenants: a file of digests that the service reads, and the verbs that change it.

A key is `ft_` + its name (8 hexadecimal digits, no secret) + `_` + 64 hexadecimal digits. They are 256 random bits,
which nobody guesses however fast the digest is; so a salted BLAKE2b is kept of them, and not one made to be slow. A
tenant may have any number of valid keys: rotation is to create the second one, hand it out, and revoke the first.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from pydantic import Field, ValidationError

from foretaste.contracts.config import Frozen
from foretaste.contracts.tenants import checked_tenant
from foretaste.ops.files import whole_file

KEYS_FILE = "keys.json"
LOCAL_KEY_FILE = "local.key"
"""The key of this machine's own programs, in plain text, readable by its owner alone."""
MAX_KEY_LENGTH = 200

_KEY = re.compile(r"ft_([0-9a-f]{8})_([0-9a-f]{64})")
_PERSON = b"foretaste key"
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_log = logging.getLogger(__name__)


class Role(StrEnum):
    """What a key may be used for; each may what those before it may."""

    CLIENT = "client"  # what a browser needs: events, lists, intents, acks
    SERVER = "server"  # also what is stored: decisions, replays, sessions, members
    OPERATOR = "operator"  # also what concerns all tenants: models


class Key(Frozen):
    """A key as it is kept."""

    name: str = Field(pattern=r"^[0-9a-f]{8}$")
    tenant: str
    role: Role
    salt: str
    digest: str = Field(repr=False)
    created_at: datetime


_NOBODY = Key(name="0" * 8, tenant="", role=Role.CLIENT, salt="00" * 16, digest="00" * 32, created_at=_NEVER)
"""Compared with where no key is of the presented name."""


class Rate(Frozen):
    """How often a tenant may ask, over all replicas."""

    per_second: float = Field(gt=0)
    burst: int = Field(ge=1, description="requests at once")


class Keys(Frozen):
    """The whole file."""

    keys: tuple[Key, ...] = ()
    rates: dict[str, Rate] = Field({}, description="by tenant; one without is not limited")


class Caller(Frozen):
    """Who asks."""

    tenant: str
    role: Role
    key: str | None = None  # its name


class KeyRing:
    """The keys at a path as they are now; a change of the file counts from the next request on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, ...] | None = None
        self._by_name: dict[str, Key] = {}
        self.rates: dict[str, Rate] = {}

    def caller(self, presented: str) -> Caller | None:
        """Who presents this key; None where it is none that counts. Takes as long for a key that is not there."""
        self._refresh()
        parts = _KEY.fullmatch(presented) if len(presented) <= MAX_KEY_LENGTH else None
        name, secret = parts.groups() if parts else ("", "0" * 64)
        key = self._by_name.get(name)
        kept = key or _NOBODY
        right = hmac.compare_digest(_digest(secret, kept.salt), kept.digest)
        return Caller(tenant=key.tenant, role=key.role, key=key.name) if key is not None and right else None

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
            version: tuple[int, ...] = (status.st_ino, status.st_size, status.st_mtime_ns)
        except FileNotFoundError:
            version = ()
        if version == self._version:
            return
        try:
            found = read_keys(self._path)
        except ValueError:
            _log.exception("the keys cannot be read; those of before go on counting")
            self._version = version
            return
        self._by_name, self.rates, self._version = {key.name: key for key in found.keys}, dict(found.rates), version


def read_keys(path: Path) -> Keys:
    """Read the file; no keys where there is none. Raises ValueError where it is damaged, without what is in it."""
    try:
        return Keys.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Keys()
    except ValidationError as error:
        where = ", ".join(".".join(map(str, one["loc"])) or one["type"] for one in error.errors())
        raise ValueError(f"keys {path}: cannot be read: {where}") from None


def create_key(path: Path, tenant: str, role: Role, *, clock: Callable[[], datetime], rate: Rate | None = None) -> str:
    """Add a key and give it, the only time that it is seen; with `rate` the tenant's rate from now on.

    Raises ValueError for what is no name of a tenant.
    """
    checked_tenant(tenant)
    name, secret, salt = secrets.token_hex(4), secrets.token_hex(32), secrets.token_hex(16)
    key = Key(name=name, tenant=tenant, role=role, salt=salt, digest=_digest(secret, salt), created_at=clock())
    with _alone(path):
        found = read_keys(path)
        rates = found.rates if rate is None else {**found.rates, tenant: rate}
        _write(Keys(keys=(*found.keys, key), rates=rates), path)
    return f"ft_{name}_{secret}"


def revoke_key(path: Path, name: str) -> Key:
    """Take a key away and give what it was. Raises ValueError naming those that there are."""
    with _alone(path):
        found = read_keys(path)
        gone = next((key for key in found.keys if key.name == name), None)
        if gone is None:
            raise ValueError(
                f"there is no key {name!r}; there are {', '.join(key.name for key in found.keys) or 'none'}"
            )
        _write(Keys(keys=tuple(key for key in found.keys if key.name != name), rates=found.rates), path)
    return gone


def local_key(folder: Path, *, clock: Callable[[], datetime]) -> str:
    """The key of this machine's own programs: an operator's of the default tenant, made where none is valid."""
    path, ring = folder / LOCAL_KEY_FILE, KeyRing(folder / KEYS_FILE)
    known = path.read_text().strip() if path.is_file() else ""
    if ring.caller(known) is not None:
        return known
    key = create_key(folder / KEYS_FILE, "default", Role.OPERATOR, clock=clock)
    _write_secret(key + "\n", path)
    return key


def _digest(secret: str, salt: str) -> str:
    return hashlib.blake2b(bytes.fromhex(secret), salt=bytes.fromhex(salt), person=_PERSON, digest_size=32).hexdigest()


def _write(keys: Keys, path: Path) -> None:
    _write_secret(keys.model_dump_json(indent=1), path)


def _write_secret(text: str, path: Path) -> None:
    with whole_file(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
