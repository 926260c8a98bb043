"""The headers with which a test asks a service that wants a key."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from foretaste.serving.gate import API_KEY
from foretaste.serving.keys import local_key

_AT = datetime(2026, 1, 1, tzinfo=UTC)


def key_headers(workspace: Path) -> dict[str, str]:
    """Headers with the key of a workspace's own programs, which is made where there is none."""
    return {API_KEY: local_key(workspace / "serving", clock=lambda: _AT)}
