"""Configuration as a frozen value: unknown keys fail, bounds are in the type, every value has a fingerprint.

Each stage keeps its own configuration class beside what it configures; `jobs.settings` composes them.
"""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A configuration: immutable, closed, comparable, and with a fingerprint that goes into every record."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", protected_namespaces=())

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with any value."""
        body = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(body.encode(), digest_size=6).hexdigest()
