"""kill -9 at twenty random moments of writing, shipping and compacting: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import functools
import random
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from foretaste.feedback.event_log import EventLog
from foretaste.feedback.session_log import SessionLog, SessionLogConfig
from foretaste.feedback.sqlite_session_log import SqliteSessionLog
from foretaste.ops.files import PARTIAL
from foretaste.testing.killing import ACTORS, killed_writers, written
from foretaste.testing.redis_server import open_redis_log
from foretaste.testing.session_log_events import CONFIG

KILLS = 20
DURABLE: SessionLogConfig = CONFIG.model_copy(update={"durable": True, "stored_events": 100_000})


@pytest.fixture(params=["sqlite", "redis"])
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], SessionLog]:
    if request.param == "redis":
        name = uuid.uuid4().hex
        return functools.partial(open_redis_log, request.getfixturevalue("redis_url"), name, False, DURABLE)
    return functools.partial(SqliteSessionLog, tmp_path / "sessions.db", DURABLE)


@pytest.mark.slow
def test_everything_acknowledged_is_in_both_logs_once(open_log: Callable[[], SessionLog], tmp_path: Path) -> None:
    folder = tmp_path / "events"
    reached = killed_writers(open_log, folder, times=KILLS, dice=random.Random(5))
    acknowledged = set().union(
        *(written(life, number) for life, last in enumerate(reached) for number in range(last + 1))
    )
    maybe = acknowledged.union(*(written(life, last + 1) for life, last in enumerate(reached)))
    events = EventLog(folder)
    with closing(open_log()) as log:
        stored = [row["event_id"] for a in range(ACTORS) for row in log.read(f"m{a}", limit=100_000)[0]]
        events.ship(log)
        assert log.pending(1) == []
    assert len(stored) == len(set(stored))
    assert acknowledged <= set(stored) <= maybe, f"lost: {sorted(acknowledged - set(stored))[:5]}"
    shipped = events.read()
    ids = shipped["event_id"].to_pylist()
    assert sorted(ids) == sorted(stored)
    numbered = set(zip(shipped["actor_id"].to_pylist(), shipped["sequence"].to_pylist(), strict=True))
    assert len(numbered) == len(ids)
    assert list(folder.glob(f"{PARTIAL}*")) == []
    events.compact()
    assert events.read() == shipped
