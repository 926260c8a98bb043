"""Names of decisions."""

from __future__ import annotations

import re
from datetime import datetime

from foretaste.feedback.session_log import microseconds


def decision_name(at: datetime, *, bits: int) -> str:
    """Name a decision so that names sort by time (the milliseconds come first) and nobody guesses them."""
    return f"{microseconds(at) // 1000:012x}{bits:020x}"


def is_decision_name(name: str) -> bool:
    """Say whether `decision_name` can have made it, so that nobody has the whole log read for nonsense."""
    return re.fullmatch(r"[0-9a-f]{32}", name) is not None
