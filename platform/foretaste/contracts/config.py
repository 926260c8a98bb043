"""Configuration as a frozen value: unknown keys fail, bounds are in the type, every value has a fingerprint.

Each stage keeps its own configuration class beside what it configures; `jobs.settings` composes them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Frozen(BaseModel):
    """A configuration: immutable, closed, comparable, and with a fingerprint that goes into every record."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", protected_namespaces=())

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with any value."""
        body = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(body.encode(), digest_size=6).hexdigest()


def filled(value: Any, environment: Mapping[str, str], *, what: str) -> Any:
    """The value with each `${NAME}` in its strings as the environment has it: how secrets stay out of files.

    Raises ValueError naming the variables that are not set.
    """
    missing: set[str] = set()

    def known(found: re.Match[str]) -> str:
        if not environment.get(found[1]):
            missing.add(found[1])
        return environment.get(found[1], "")

    def fill(one: Any) -> Any:
        if isinstance(one, str):
            return _VARIABLE.sub(known, one)
        if isinstance(one, Mapping):
            return {key: fill(child) for key, child in one.items()}
        return [fill(child) for child in one] if isinstance(one, list | tuple) else one

    result = fill(value)
    if missing:
        raise ValueError(f"{what}: wanted the environment to set {', '.join(sorted(missing))}")
    return result
