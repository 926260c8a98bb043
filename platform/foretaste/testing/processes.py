"""Processes that write and read one session log at the same time; a module, so that a spawned process finds them."""

from __future__ import annotations

import random
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foretaste.contracts.events import ACTIONS, actor_id
from foretaste.feedback.session_log import SessionLogConfig, open_session_log

BATCHES, ACTORS, GUESTS, K = 120, 6, 2, 15
NUMBERS = 1_500
"""Events that there are; writers draw them, so that many are written twice, and by two of them."""
Read = tuple[str, int, int, list[str]]
"""Actor, as-of time, mark and event ids of one read."""


def event(number: int, begin_us: int) -> dict[str, Any]:
    """The event of a number: its id determines all of it."""
    of = random.Random(number)
    who = {"member_id": f"m{of.randrange(ACTORS)}"} if of.random() < 0.8 else {"session_id": f"g{of.randrange(GUESTS)}"}
    late_us = of.choice([0, 0, 5_000_000, 3_600_000_000, 3 * 86_400_000_000, -200_000])
    at = begin_us + number * 1_000 - late_us
    return who | {"event_id": f"e{number}", "at": at, "action": of.choice(ACTIONS), "title_id": "t"}


def write(settings: SessionLogConfig, folder: Path, seed: int, begin_us: int) -> None:
    """Append batches to the log at `folder`; events begin at `begin_us` (microseconds), which has to be about now."""
    dice = random.Random(seed)
    with closing(open_session_log(settings, folder)) as log:
        for _ in range(BATCHES):
            batch = [event(dice.randrange(NUMBERS), begin_us) for _ in range(dice.randrange(1, 5))]
            log.append(batch, received_at=datetime.now(UTC))
            time.sleep(dice.random() * 0.005)


def read(settings: SessionLogConfig, folder: Path, seed: int, begin_us: int, done: Any, out: Any) -> None:
    """Read until the event `done`, and put what was read into the queue `out` as a list of Read."""
    dice = random.Random(seed)
    found: list[Read] = []
    with closing(open_session_log(settings, folder)) as log:
        while not done.is_set() or len(found) < 50:
            actor = (
                f"m{dice.randrange(ACTORS)}" if dice.random() < 0.8 else actor_id(None, f"g{dice.randrange(GUESTS)}")
            )
            asof = begin_us + dice.randrange(NUMBERS + 100) * 1_000
            rows, mark = log.read(actor, limit=K, before_us=asof)
            found.append((actor, asof, mark, [row["event_id"] for row in rows]))
            time.sleep(0.001)
    out.put(found)
