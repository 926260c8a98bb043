"""What every session log has to keep: run each of `CLAUSES` on an opener of your log.

An opener is called with a configuration and gives a log; two calls open the same store, which is empty at first. It
has to be picklable, because one clause writes from another process.
"""

from __future__ import annotations

import multiprocessing
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from foretaste.contracts.events import actor_id
from foretaste.feedback.session_log import Appended, SessionLog, SessionLogConfig

Opener = Callable[[SessionLogConfig], SessionLog]

K = 5
CONFIG = SessionLogConfig(read_events=K, stored_events=1_000, durable=False, busy_seconds=60.0)
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def event(event_id: str, at: int, *, member_id: str | None = "m1", **more: Any) -> dict[str, Any]:
    """Make an event of a member `at` microseconds."""
    return {"event_id": event_id, "member_id": member_id, "session_id": "s1", "at": at, "action": "play"} | more


def expected(events: Iterable[dict[str, Any]], actor: str, *, limit: int) -> list[str]:
    """The slow twin of a read: ids of the newest of the set of events, ties by the bytes of event_id."""
    own = {e["event_id"]: e["at"] for e in events if actor_id(e["member_id"], e["session_id"]) == actor}
    ordered = sorted(own, key=lambda event_id: (own[event_id], event_id.encode()))
    return ordered[len(ordered) - limit :] if limit < len(ordered) else ordered


def _ids(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [row["event_id"] for row in rows]


def append_is_idempotent(opener: Opener) -> None:
    """The same event again is a duplicate with the first one's sequence and changes nothing."""
    with closing(opener(CONFIG)) as log:
        first = log.append([event("a", 1), event("b", 2), event("a", 1)], received_at=NOW)
        assert first == [Appended(1, False), Appended(2, False), Appended(1, True)], first
        again = log.append([event("b", 2), event("c", 3)], received_at=NOW)
        assert again == [Appended(2, True), Appended(3, False)], again
        other = log.append([event("a", 1, member_id="m2")], received_at=NOW)
        assert other == [Appended(1, False)], "event_id is unique per actor, not over all"
        rows, mark = log.read("m1", limit=K)
        assert (_ids(rows), mark) == (["a", "b", "c"], 3)


def rows_come_back_as_they_were(opener: Opener) -> None:
    """Every column that was not null is there, with the sequence; text of any script survives."""
    full = event(
        "ä\u2028😀", 7, title_id="t1", query="Käse 芝士", played_fraction=0.1, position=3, properties='{"a": 1}'
    )
    with closing(opener(CONFIG)) as log:
        log.append([full | {"device": None}], received_at=NOW)
        rows, _ = log.read("m1", limit=K)
        assert rows == [full | {"sequence": 1}], rows


def guests_have_the_history_of_their_session(opener: Opener) -> None:
    """Without a member the actor is the guest of the session; without both the batch is refused whole."""
    with closing(opener(CONFIG)) as log:
        log.append([event("a", 1, member_id=None)], received_at=NOW)
        assert _ids(log.read("guest:s1", limit=K)[0]) == ["a"]
        assert log.read("m1", limit=K) == ([], 0)
        for bad in ({"session_id": None, "member_id": None}, {"event_id": None}, {"at": "now"}, {"at": 1.5}):
            try:
                log.append([event("b", 2), event("c", 3) | bad], received_at=NOW)
            except ValueError:
                continue
            raise AssertionError(f"an event with {bad} was not refused")
        assert log.read("m1", limit=K) == ([], 0), "a refused batch left something behind"


def any_order_and_repetition_reads_the_same(opener: Opener) -> None:
    """Permuted, duplicated and split over batches, a set of events reads the same."""
    dice = random.Random(0)
    everything: list[dict[str, Any]] = []
    with closing(opener(CONFIG)) as log:
        for round_number in range(40):
            member = f"m{round_number}"
            events = [event(f"e{n}", dice.randrange(6), member_id=member) for n in range(dice.randrange(1, 12))]
            everything += events
            sent = [*events, *dice.choices(events, k=4)]
            dice.shuffle(sent)
            while sent:
                size = dice.randrange(1, 5)
                log.append(sent[:size], received_at=NOW)
                sent = sent[size:]
            rows, mark = log.read(member, limit=K)
            assert _ids(rows) == expected(events, member, limit=K), f"{member}: {events}"
            assert mark == len(events)
            assert sorted(row["sequence"] for row in log.read(member, limit=100)[0]) == list(range(1, mark + 1))


def a_read_is_cut_at_k(opener: Opener) -> None:
    """At K - 1, K and K + 1 events; the cut comes before the filter by time."""
    with closing(opener(CONFIG)) as log:
        for count in range(1, K + 3):
            log.append([event(f"e{count}", 100 - count)], received_at=NOW)
            wanted = expected([event(f"e{n}", 100 - n) for n in range(1, count + 1)], "m1", limit=K)
            assert _ids(log.read("m1", limit=K)[0]) == wanted, count
        newest = _ids(log.read("m1", limit=K)[0])
        assert newest == ["e5", "e4", "e3", "e2", "e1"]
        assert _ids(log.read("m1", limit=K, before_us=97)[0]) == ["e5", "e4"], "before_us is exclusive"
        assert _ids(log.read("m1", limit=2, before_us=99)[0]) == ["e2"], "cut to K before filtering by time"
        assert log.read("nobody", limit=K) == ([], 0)


def ties_in_time_go_by_the_bytes_of_the_id(opener: Opener) -> None:
    """Also beyond ASCII, and with the cut within the tie."""
    names = ["b", "a", "B", "é", "z", "ｚ", "😀", "10", "9"]
    with closing(opener(CONFIG)) as log:
        log.append([event(name, 5) for name in names], received_at=NOW)
        assert _ids(log.read("m1", limit=K)[0]) == sorted(names, key=str.encode)[-K:]


def a_mark_shows_what_was_visible_then(opener: Opener) -> None:
    """After any later appends, a read with an old mark gives exactly what that read gave."""
    dice = random.Random(1)
    seen = []
    with closing(opener(CONFIG)) as log:
        for number in range(30):
            log.append([event(f"e{number}", dice.randrange(10))], received_at=NOW)
            seen.append(log.read("m1", limit=K))
        for rows, mark in seen:
            assert log.read("m1", limit=K, mark=mark) == (rows, mark)
            assert all(row["sequence"] <= mark for row in rows)
        assert log.read("m1", limit=K, mark=0) == ([], 0)
        assert log.read("m1", limit=K, mark=10**6) == seen[-1], "a mark of the future is the present"


def a_reopened_log_goes_on(opener: Opener) -> None:
    """Rows, sequences and idempotence survive a close."""
    with closing(opener(CONFIG)) as log:
        log.append([event("a", 1), event("b", 2)], received_at=NOW)
    with closing(opener(CONFIG)) as log:
        assert log.append([event("a", 1), event("c", 3)], received_at=NOW) == [Appended(1, True), Appended(3, False)]
        rows, mark = log.read("m1", limit=K)
        assert (_ids(rows), mark) == (["a", "b", "c"], 3)


def old_events_expire_and_sequences_go_on(opener: Opener) -> None:
    """What arrived more than keep_days ago goes; an actor's next event has a higher sequence all the same."""
    config = CONFIG.model_copy(update={"keep_days": 1.0})
    with closing(opener(config)) as log:
        log.append([event("old", 1), event("older", 2, member_id="m2")], received_at=NOW)
        log.append([event("new", 1)], received_at=NOW + timedelta(days=1))
        assert log.expire(now=NOW + timedelta(days=1)) == 0, "exactly keep_days old is kept"
        assert log.expire(now=NOW + timedelta(days=1, microseconds=1)) == 2
        assert _ids(log.read("m1", limit=K)[0]) == ["new"]
        assert log.read("m2", limit=K)[0] == []
        assert log.append([event("next", 3)], received_at=NOW + timedelta(days=1)) == [Appended(3, False)]


def what_is_stored_is_bounded(opener: Opener) -> None:
    """Past stored_events the oldest go, and the newest K read the same."""
    config = CONFIG.model_copy(update={"stored_events": K + 2})
    dice = random.Random(2)
    events = [event(f"e{n:02d}", dice.randrange(15)) for n in range(40)]
    with closing(opener(config)) as log:
        for start in range(0, 40, 7):
            log.append(events[start : start + 7], received_at=NOW)
            assert _ids(log.read("m1", limit=K)[0]) == expected(events[: start + 7], "m1", limit=K)
        rows, mark = log.read("m1", limit=1_000)
        assert _ids(rows) == expected(events, "m1", limit=K + 2)
        assert mark == 40


def many_writers_lose_nothing(opener: Opener) -> None:
    """Threads and a process write overlapping events of two actors while others read; each is there once."""
    events = [event(f"e{n:03d}", n % 17, member_id=f"m{n % 2}") for n in range(120)]
    shares = [[e for n, e in enumerate(events) if n % 4 in pair] for pair in ((0, 1), (1, 2), (2, 3), (3, 0))]
    process = multiprocessing.get_context("spawn").Process(target=_write, args=(opener, shares[3]))
    process.start()
    with closing(opener(CONFIG)) as log:
        failures: list[BaseException] = []

        def write(share: list[dict[str, Any]]) -> None:
            try:
                for start in range(0, len(share), 3):
                    log.append(share[start : start + 3], received_at=NOW)
                    rows, mark = log.read("m0", limit=1_000)
                    held = sorted(row["sequence"] for row in rows)
                    if held != list(range(1, mark + 1)):
                        raise AssertionError(f"a read saw sequences {held} with mark {mark}")
            except BaseException as error:  # carried to the thread that asserts
                failures.append(error)

        threads = [threading.Thread(target=write, args=(share,)) for share in shares[:3]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        process.join()
        assert process.exitcode == 0, f"the writing process ended with {process.exitcode}"
        assert not failures, failures
        for member in ("m0", "m1"):
            rows, mark = log.read(member, limit=1_000)
            assert _ids(rows) == expected(events, member, limit=1_000)
            assert mark == 60
            assert sorted(row["sequence"] for row in rows) == list(range(1, 61))


def a_closed_log_refuses(opener: Opener) -> None:
    """Use after close is a ValueError, not a silent loss."""
    log = opener(CONFIG)
    log.close()
    try:
        log.append([event("a", 1)], received_at=NOW)
    except ValueError:
        return
    raise AssertionError("a closed log took an event")


def _write(opener: Opener, events: list[dict[str, Any]]) -> None:
    with closing(opener(CONFIG)) as log:
        for one in events:
            log.append([one], received_at=NOW)


CLAUSES: dict[str, Callable[[Opener], None]] = {
    clause.__name__: clause
    for clause in (
        append_is_idempotent,
        rows_come_back_as_they_were,
        guests_have_the_history_of_their_session,
        any_order_and_repetition_reads_the_same,
        a_read_is_cut_at_k,
        ties_in_time_go_by_the_bytes_of_the_id,
        a_mark_shows_what_was_visible_then,
        a_reopened_log_goes_on,
        old_events_expire_and_sequences_go_on,
        what_is_stored_is_bounded,
        many_writers_lose_nothing,
        a_closed_log_refuses,
    )
}
