"""`foretaste validate`: say what is wrong with files before anything is built on them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foretaste.ops.telemetry import console
from foretaste.sessions.validate import validate_files


def validate(files: Sequence[Path], *, titles: Path | None, quarantine: Path | None) -> dict[str, Any]:
    """Check files against their contracts, show what was found, and write bad rows aside when asked."""
    report = validate_files(files, titles_path=titles, quarantine=quarantine, now=datetime.now(UTC))
    console.print(report.table())
    return report.to_json()
