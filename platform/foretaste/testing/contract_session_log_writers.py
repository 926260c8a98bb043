"""What a session log keeps among writers and shippers, and once it is closed."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

from foretaste.feedback.session_log import (
    visible,
)
from foretaste.testing.session_log_events import (
    CONFIG,
    LATER,
    NOW,
    K,
    Opener,
    drain,
    event,
    expected,
    ids_of,
)


def everything_is_shipped_at_least_once(opener: Opener) -> None:
    """What is not reported shipped is given again; what is reported is not; a reopened log knows."""
    with closing(opener(CONFIG)) as log:
        log.append([event(f"e{n}", n, member_id=f"m{n % 3}") for n in range(20)], received_at=NOW)
        first = log.pending(7)
        assert first
        assert log.pending(7) == first, "what was not reported is given again"
        log.shipped(first)
        taken = {one.event["event_id"] for one in first}
    with closing(opener(CONFIG)) as log:
        log.append([event("late", 0)], received_at=NOW)
        log.shipped(first)  # of a slow second shipper
        rest = {one.event["event_id"] for one in drain(log, limit=3)}
        assert not rest & taken
        assert rest | taken == {*(f"e{n}" for n in range(20)), "late"}
        assert log.pending(10) == []
        log.shipped([])


def many_writers_lose_nothing(opener: Opener) -> None:
    """Threads and a process write overlapping events of two actors while others read; each is there once."""
    events = [event(f"e{n:03d}", n % 17, member_id=f"m{n % 2}") for n in range(120)]
    shares = [[e for n, e in enumerate(events) if n % 4 in pair] for pair in ((0, 1), (1, 2), (2, 3), (3, 0))]
    process = multiprocessing.get_context("spawn").Process(target=_write, args=(opener, shares[3]))
    process.start()
    with closing(opener(CONFIG)) as log:
        failures: list[BaseException] = []
        reads: list[tuple[list[dict[str, Any]], int]] = []

        def write(share: list[dict[str, Any]]) -> None:
            try:
                for start in range(0, len(share), 3):
                    log.append(share[start : start + 3], received_at=NOW)
                    reads.append(log.read("m0", limit=K))
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
        shipped = drain(log)
        assert len(shipped) == 120, "each event is stored once"
        stored = [one.event | {"sequence": one.sequence} for one in shipped if one.actor_id == "m0"]
        for rows, mark in reads:
            assert rows == visible(stored, limit=K, mark=mark, before_us=LATER, window_us=None)
        for member in ("m0", "m1"):
            rows, _ = log.read(member, limit=1_000)
            assert ids_of(rows) == expected(events, member, limit=1_000)
            assert len({row["sequence"] for row in rows}) == 60


def a_batch_of_one_actor_is_seen_whole(opener: Opener) -> None:
    """A reader finds all events of a batch or none."""
    with closing(opener(CONFIG)) as log:

        def write() -> None:
            for number in range(60):
                log.append([event(f"{number}-{part}", number) for part in range(4)], received_at=NOW)

        writer = threading.Thread(target=write)
        writer.start()
        while writer.is_alive():
            assert len(log.read("m1", limit=1_000)[0]) % 4 == 0
        writer.join()
        assert len(log.read("m1", limit=1_000)[0]) == 240


def a_closed_log_refuses(opener: Opener) -> None:
    """Use after close is a ValueError, not a silent loss; closing twice is nothing."""
    log = opener(CONFIG)
    log.close()
    log.close()
    uses: list[Callable[[], Any]] = [
        lambda: log.append([event("a", 1)], received_at=NOW),
        lambda: log.read("m1", limit=K),
        lambda: log.pending(1),
    ]
    for use in uses:
        try:
            use()
        except ValueError:
            continue
        raise AssertionError("a closed log went on")


def _write(opener: Opener, events: list[dict[str, Any]]) -> None:
    with closing(opener(CONFIG)) as log:
        for one in events:
            log.append([one], received_at=NOW)


CLAUSES = (
    everything_is_shipped_at_least_once,
    many_writers_lose_nothing,
    a_batch_of_one_actor_is_seen_whole,
    a_closed_log_refuses,
)
