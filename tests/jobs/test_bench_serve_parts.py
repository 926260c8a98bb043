"""What faults, freshness and replays are counted as; and one part on real processes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from foretaste.feedback.session_log import SESSIONS_FILE, SessionLogConfig, open_session_log
from foretaste.jobs.bench_serve_calls import Address, Population
from foretaste.jobs.bench_serve_config import ServeBenchConfig
from foretaste.jobs.bench_serve_faults import Ended, Span, bars_of, recovery, summed
from foretaste.jobs.bench_serve_freshness import bars_of as freshness_bars
from foretaste.jobs.bench_serve_freshness import checked
from foretaste.jobs.bench_serve_injected import Injected, decision_disk, locked
from foretaste.jobs.bench_serve_replay import bars_of as replay_bars
from foretaste.jobs.bench_serve_stored import Stored, missing
from foretaste.jobs.faulty import Fault, Faults
from foretaste.jobs.settings import Settings

SPAN = Span("fault", 10.0, 20.0, 30.0)


def ended(due: float, status: int = 200, **more: Any) -> Ended:
    return Ended("recommend", due, due + 0.01, status, status in (429, 503), **more)


def every_tenth(since: float, until: float, **more: Any) -> list[Ended]:
    return [ended(since + 0.1 * number, **more) for number in range(round(10 * (until - since)))]


def test_recovery_ends_with_the_last_second_in_which_much_was_not_well() -> None:
    late = every_tenth(20, 23.0, fallback="ranker_late")
    assert recovery([*late, *every_tenth(23, 30)], SPAN, 0.1) == 3.0
    assert recovery(every_tenth(20, 30), SPAN, 0.1) == 0.0
    assert recovery([*every_tenth(20, 29.5), *every_tenth(29.5, 30, status=503)], SPAN, 0.1) is None


def test_one_who_is_late_now_and_then_is_well() -> None:
    rows = every_tenth(20, 30)
    rows[45] = ended(24.5, fallback="ranker_late")
    assert recovery(rows, SPAN, 0.1) == 0.0


def test_only_shedding_that_says_when_to_come_again_is_stated() -> None:
    assert not ended(0, 503).unstated
    assert not ended(0, 429).unstated
    assert ended(0, 500).unstated
    assert ended(0, 0).unstated
    assert Ended("events", 0.0, 0.1, 503, False).unstated


def test_a_store_holds_its_bars_only_where_nothing_is_lost_empty_or_failed() -> None:
    rows = [*every_tenth(0, 10), *every_tenth(10, 20, fallback="features_late"), *every_tenth(20, 30)]
    figures = summed(rows, [SPAN]) | {"missing_events": 0, "missing_decisions": 0}
    config = ServeBenchConfig()
    assert figures["faults"]["fault"]["fallbacks"] == {"features_late": 100}
    assert all(one["holds"] for one in bars_of(figures, config).values())
    spoilt = summed([*rows, ended(15.0, 500), ended(15.0, empty=True)], [SPAN])
    found = bars_of(spoilt | {"missing_events": 1, "missing_decisions": 2}, config)
    assert [one["holds"] for one in found.values()] == [False, False, True, False, False]


def test_a_locked_session_log_takes_nothing_until_it_is_mended(tmp_path: Path) -> None:
    log = open_session_log(SessionLogConfig(busy_seconds=0.05), tmp_path)
    event = {"event_id": "e", "member_id": "m", "at": 1, "action": "detail", "title_id": "t"}
    now = datetime.now(UTC)
    fault = locked(tmp_path, "locked")
    fault.begin()
    with pytest.raises(sqlite3.OperationalError):
        log.append([event], received_at=now)
    assert log.read("m", limit=5)[0] == []
    fault.mend()
    fault.mend()
    assert not log.append([event], received_at=now)[0].duplicate
    log.close()
    assert (tmp_path / SESSIONS_FILE).is_file()


def test_what_was_acknowledged_is_looked_for_where_it_is_kept(tmp_path: Path) -> None:
    settings = Settings(workspace=tmp_path)
    (tmp_path / "serving" / "decisions").mkdir(parents=True)
    log = open_session_log(settings.serving.session_log, tmp_path / "serving")
    event = {"event_id": "there", "member_id": "m", "at": 1, "action": "detail", "title_id": "t"}
    log.append([event], received_at=datetime.now(UTC))
    log.close()
    found = missing(settings, Stored({"there", "lost"}, {"no such decision"}))
    assert (found["stored_events"], found["missing_events"], found["missing_decisions"]) == (2, 1, 1)
    assert found["missing_examples"] == ["lost", "no such decision"]


def test_faults_are_on_while_they_are_switched_on(tmp_path: Path) -> None:
    faults = Faults(tmp_path)
    begin, end = faults.switch(Fault.DISK_FULL)
    faults.full()
    begin()
    with pytest.raises(OSError, match="No space"):
        faults.full()
    faults.fail(Fault.INTENT_FAILS)
    end()
    faults.full()


def test_without_leave_to_mount_writes_fail_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mount").symlink_to("/bin/false")
    monkeypatch.setenv("PATH", str(tmp_path))
    faults = Faults(tmp_path)
    with decision_disk(tmp_path / "decisions", faults) as disk:
        disk.begin()
        assert faults.on(Fault.DISK_FULL)
        disk.mend()
        assert not faults.on(Fault.DISK_FULL)
        assert "not allowed" in disk.how


def test_a_fault_that_nobody_mends_is_left_to_the_service() -> None:
    begun: list[int] = []
    fault = Injected("kill", lambda: begun.append(1), seconds=0.0)
    fault.begin()
    fault.mend()
    assert begun == [1]


@asynccontextmanager
async def service(*, late: set[int]) -> AsyncIterator[int]:
    """Acknowledges events, and answers with the newest one of the member, or of some turns with the one before."""
    newest: dict[str, list[str]] = {}
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while head := await reader.readuntil(b"\r\n\r\n"):
            body = orjson.loads(await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])))
            if b"/v1/events" in head:
                event = body["events"][0]
                newest.setdefault(event["member_id"], ["none"]).append(event["event_id"])
                answer: dict[str, Any] = {"accepted": 1, "duplicate": 0, "rejected": []}
            else:
                asked += 1
                last = newest[body["member_id"]][-2 if asked in late else -1]
                freshness = {"last_event_id": last, "stale": []}
                items = [{"title_id": f"t{asked}"}]
                answer = {"decision_id": f"d{asked}", "items": items, "freshness": freshness}
            written = orjson.dumps(answer)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(written) + written)

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(quietly, "127.0.0.1", 0) as running:
        yield int(running.sockets[0].getsockname()[1])


@pytest.mark.parametrize("late", [set(), {3, 5}])
def test_an_answer_that_is_older_than_an_acknowledged_event_is_noticed(late: set[int]) -> None:
    people = Population([f"m{number}" for number in range(10)], ["t"])
    config = ServeBenchConfig(checks=60, fresh_members=10)

    async def run() -> Any:
        async with service(late=late) as port:
            return await checked(people, config, Address("127.0.0.1", port, None))

    found = asyncio.run(run())
    assert found.checks >= 60
    assert {f"d{number}" for number in late} == set(found.older)
    assert len(found.changed_ms) == len(found.acknowledged_ms)
    bars = freshness_bars(found)
    assert [one["holds"] for what, one in bars.items() if "older" in what] == [not late]
    assert found.other_list == found.lists > 0


def test_a_replay_of_only_the_usual_holds_no_bar_and_one_that_differs_does_not_either() -> None:
    good = {
        "by_library": {"identical": 10, "replayed": 10},
        "over_http": {"identical": 2, "replayed": 2},
        "decisions": 10,
        "refused": [],
        "empty_lists": 0,
        "explored": 1,
        "guests": 1,
        "asked_for": {"filter": 1},
        "fallbacks": {"ranker_failed": 1},
        "models": {"a": 5, "b": 5},
    }
    assert all(one["holds"] for one in replay_bars(good).values())
    for what, value in (
        ("by_library", {"identical": 9, "replayed": 10}),
        ("over_http", {"identical": 0, "replayed": 0}),
        ("fallbacks", {}),
        ("models", {"a": 10, "None": 1}),
        ("explored", 0),
    ):
        assert not all(one["holds"] for one in replay_bars(good | {what: value}).values()), what
