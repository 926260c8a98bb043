"""Three processes write and two read one session log: every read is made again from the event log by its mark."""

from __future__ import annotations

import multiprocessing
import socket
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from foretaste.feedback.event_log import EventLog
from foretaste.feedback.past import Past
from foretaste.feedback.session_log import SessionLogConfig, microseconds, open_session_log
from foretaste.testing.processes import K, Read, read, write

WRITERS, READERS = 3, 2
WINDOW_DAYS = 2.0


def config(kind: str, url: str, prefix: str) -> SessionLogConfig:
    where = {"kind": kind} | ({"url": url, "prefix": prefix} if kind == "redis" else {})
    more = {"read_events": K, "stored_events": 10_000, "window_days": WINDOW_DAYS, "guest_days": None}
    return SessionLogConfig.model_validate(where | more | {"durable": False, "busy_seconds": 60.0})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_every_read_beside_writers_is_made_again_by_its_mark(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("redis_url") if kind == "redis" else ""
    with socket.socket() as unique:
        unique.bind(("127.0.0.1", 0))
        settings = config(kind, url, f"reads-{unique.getsockname()[1]}")
    context = multiprocessing.get_context("spawn")
    begin_us = microseconds(datetime.now(UTC))
    done, out = context.Event(), context.Queue()
    writers = [context.Process(target=write, args=(settings, tmp_path, seed, begin_us)) for seed in range(WRITERS)]
    readers = [
        context.Process(target=read, args=(settings, tmp_path, 10 + n, begin_us, done, out)) for n in range(READERS)
    ]
    events = EventLog(tmp_path / "events")
    with closing(open_session_log(settings, tmp_path)) as log:
        for process in (*writers, *readers):
            process.start()
        while any(process.is_alive() for process in writers):
            events.ship(log)
            events.compact()
            time.sleep(0.02)
        done.set()
        reads: list[Read] = [one for _ in readers for one in out.get(timeout=120)]
        for process in (*writers, *readers):
            process.join(timeout=60)
            assert process.exitcode == 0
        events.ship(log)
    past = Past(events.read())
    for actor, asof, mark, ids in reads:
        seen = past.visible(actor, limit=K, mark=mark, before_us=asof, window_us=settings.window_us(actor))
        assert past.events.take(seen)["event_id"].to_pylist() == ids, (actor, asof, mark)
    assert len(reads) >= 100
    assert len({mark for _, _, mark, _ in reads}) > 20  # while it grew
    assert max(len(ids) for *_, ids in reads) == K
