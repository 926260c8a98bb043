"""What clients said that they really showed: a row a title, durable before it is acknowledged, each once."""

from __future__ import annotations

from pathlib import Path

from foretaste.contracts.columns import ACKS
from foretaste.feedback.row_log import Kind, RowLog

ACKED = Kind("acks", ACKS, ("decision_id", "title_id"), ("decision_id", "position"))


class AckLog(RowLog):
    """The acks of one workspace, in `folder`."""

    def __init__(self, folder: Path, *, durable: bool = True, busy_seconds: float = 10.0) -> None:
        """As of RowLog."""
        super().__init__(folder, ACKED, durable=durable, busy_seconds=busy_seconds)

    def of(self, decision_id: str) -> list[str]:
        """Titles of a decision that are known as shown, in order of their places."""
        return [str(row["title_id"]) for row in self._rows("WHERE decision_id = ? ORDER BY position", (decision_id,))]
