"""The session log is filled with the newest events of members that an answer may see, once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from foretaste.feedback.session_log import SessionLog, microseconds
from foretaste.feedback.sqlite_session_log import SqliteSessionLog
from foretaste.jobs.backfill import Backfilled, backfill
from foretaste.testing.builders import events_table, interactions_table, prepared_folder, titles_table
from foretaste.testing.redis_server import open_redis_log
from foretaste.testing.session_log_events import CONFIG

NOW = datetime(2026, 3, 1, tzinfo=UTC)
AT = [datetime(2026, 2, 1, hour, tzinfo=UTC) for hour in range(4)]
WINDOW = CONFIG.model_copy(update={"window_days": 60.0})


@pytest.fixture(params=["sqlite", "redis"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionLog]:
    if request.param == "sqlite":
        log: SessionLog = SqliteSessionLog(tmp_path / "sessions.db", WINDOW)
    else:
        log = open_redis_log(request.getfixturevalue("redis_url"), uuid.uuid4().hex, False, WINDOW)
    with closing(log):
        yield log


def act(event_id: str, at: datetime, *, member_id: str | None = "m", action: str = "play") -> dict[str, Any]:
    row = {"event_id": event_id, "member_id": member_id, "session_id": "s", "at": at, "action": action}
    return row | {"title_id": "t"}


def prepared(folder: Path, *acts: dict[str, Any]) -> Path:
    prepared_folder(folder, interactions_table([]), titles_table(1), acts=events_table(list(acts)))
    return folder


def test_each_member_gets_their_newest_events_in_order_and_guests_get_none(log: SessionLog, tmp_path: Path) -> None:
    folder = prepared(tmp_path, act("g", AT[0], member_id=None), *(act(f"e{i}", AT[i]) for i in range(4)))
    done: list[float] = []
    for told in (Backfilled(3, 0, 0, 0), Backfilled(0, 3, 0, 0)):
        assert backfill(folder, log, newest=3, received_at=NOW, advance=done.append) == told
    found, _ = log.read("m", limit=10)
    assert [(row["event_id"], row["at"]) for row in found] == [(f"e{i}", microseconds(AT[i])) for i in (1, 2, 3)]
    assert log.read("guest:s", limit=10)[0] == []
    assert done == [3, 3]


def test_what_no_answer_may_see_is_skipped_and_counted(log: SessionLog, tmp_path: Path) -> None:
    edge = NOW - timedelta(days=60)
    folder = prepared(
        tmp_path,
        act("out", edge - timedelta(microseconds=1)),
        act("edge", edge),
        act("in", AT[0]),
        act("before", AT[1], member_id="gone"),
        act("after", AT[2], member_id="gone"),
        act("shown", AT[3], action="impression"),
    )
    deleted = {"gone": microseconds(AT[1]), "nobody": 5}
    told = backfill(folder, log, newest=3, received_at=NOW, advance=lambda _: None, deleted=deleted)
    assert told == Backfilled(added=3, known=0, too_old=1, deleted=1)
    assert [row["event_id"] for row in log.read("m", limit=10)[0]] == ["edge", "in"]
    assert [row["event_id"] for row in log.read("gone", limit=10)[0]] == ["after"]
