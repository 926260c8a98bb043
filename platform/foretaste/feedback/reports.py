"""Feedback that the platform cannot see itself: durable before it is acknowledged, each reward_id once."""

from __future__ import annotations

from pathlib import Path

from foretaste.contracts.columns import REPORTED
from foretaste.feedback.row_log import Kind, RowLog

TOLD = Kind("rewards", REPORTED, ("reward_id",), ("decision_id", "reward_id"))


class ReportLog(RowLog):
    """What was reported in one workspace, in `folder`."""

    def __init__(self, folder: Path, *, durable: bool = True, busy_seconds: float = 10.0) -> None:
        """As of RowLog."""
        super().__init__(folder, TOLD, durable=durable, busy_seconds=busy_seconds)
