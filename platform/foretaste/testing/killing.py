"""Processes that write events, ship them and are killed: what they acknowledged has to be there."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

from foretaste.feedback.event_log import EventLog
from foretaste.feedback.session_log import SessionLog
from foretaste.testing.session_log_events import event

ACTORS = 3
LONGEST_SECONDS = 0.12
"""How long after its first acknowledgement a process is left alive at most."""


def killed_writers(open_log: Callable[[], SessionLog], events: Path, *, times: int, dice: random.Random) -> list[int]:
    """Start a writing process and kill it at a random moment, `times` times; returns how far each got.

    The process of life L appends, for number N = 0, 1, ..., the events `L-N-A` of the actors `mA` as one batch, and
    now and then ships and compacts the event log at `events`. It got as far as the last N that it acknowledged.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    reached = []
    for life in range(times):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_write, args=(open_log, events, life, sender))
        process.start()
        sender.close()
        last: int = receiver.recv()
        time.sleep(dice.uniform(0, LONGEST_SECONDS))
        process.kill()
        try:
            while True:
                last = receiver.recv()
        except (EOFError, OSError):
            reached.append(last)
        receiver.close()
        process.join()
        process.close()
    return reached


def written(life: int, number: int) -> set[str]:
    """Ids of one batch."""
    return {f"{life}-{number}-{actor}" for actor in range(ACTORS)}


def _write(open_log: Callable[[], SessionLog], folder: Path, life: int, acknowledge: Connection) -> None:
    log, events = open_log(), EventLog(folder)
    for number in range(1_000_000):
        batch = [event(f"{life}-{number}-{actor}", number, member_id=f"m{actor}") for actor in range(ACTORS)]
        log.append(batch, received_at=datetime.now(UTC))
        acknowledge.send(number)
        if number % 3 == 2:
            events.ship(log)
        if number % 20 == 19:
            events.compact()
