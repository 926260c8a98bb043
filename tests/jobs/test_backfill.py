"""The session log is filled with the newest events of members, once."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from foretaste.feedback.session_log import microseconds
from foretaste.feedback.sqlite_session_log import SqliteSessionLog
from foretaste.jobs.backfill import backfill
from foretaste.testing.builders import events_table, interactions_table, prepared_folder, titles_table

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_each_member_gets_their_newest_events_in_order_and_guests_get_none(tmp_path: Path) -> None:
    at = [datetime(2026, 2, 1, hour, tzinfo=UTC) for hour in range(4)]
    rows = [
        {"event_id": f"e{i}", "member_id": "m", "session_id": "s", "at": at[i], "action": "play", "title_id": "t"}
        for i in range(4)
    ]
    guest = {"event_id": "g", "member_id": None, "session_id": "gs", "at": at[0], "action": "play", "title_id": "t"}
    acts = events_table([guest, *rows])
    prepared_folder(tmp_path, interactions_table([]), titles_table(1), acts=acts)
    log = SqliteSessionLog(tmp_path / "sessions.db")
    done: list[float] = []
    try:
        for added in (3, 0):
            assert backfill(tmp_path, log, newest=3, received_at=NOW, advance=done.append) == added
        found, _ = log.read("m", limit=10)
        assert [(row["event_id"], row["at"]) for row in found] == [(f"e{i}", microseconds(at[i])) for i in (1, 2, 3)]
        assert log.read("guest:gs", limit=10)[0] == []
    finally:
        log.close()
    assert done == [3, 3]
