"""Events of one actor by dice, with all that a session log may hold: for tests of what a request sees."""

from __future__ import annotations

from typing import Any

import numpy as np

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.events import ACTIONS, NEEDS_TITLE, Action

BEGIN = 1_767_225_600_000_000
"""The instant, microseconds since 1970, at which every log that is made here begins."""
MINUTE = 60_000_000
_PAUSES = (0, 1, MINUTE, 25 * MINUTE, 30 * MINUTE, 30 * MINUTE + 1, 26 * 60 * MINUTE, 8 * 1440 * MINUTE)
_CHANCES = (0.15, 0.05, 0.4, 0.12, 0.05, 0.05, 0.13, 0.05)
_QUERIES = ("dark comedy", "Dark  STRASSE straße", "", "…", "the the one")


def actor_events(catalogue: Catalogue, *, num: int, seed: int, member_id: str = "m") -> list[dict[str, Any]]:
    """Make `num` events in order of time: ties, sessions with and without ids, unknown titles, early ones, all actions.

    Rows are as a session log gives them: `at` in microseconds, nothing that is null, a `sequence` in order of arrival.
    """
    dice = np.random.default_rng(seed)
    titles = [*catalogue.code_of, "nobody knows it", ""]
    at, rows = BEGIN, []
    for number in range(num):
        at += int(dice.choice(_PAUSES, p=_CHANCES))
        action = str(dice.choice(ACTIONS))
        row: dict[str, Any] = {
            "event_id": f"{member_id}-{int(dice.integers(100)):02d}-{number}",
            "member_id": member_id,
        }
        row |= {"at": at, "action": action}
        if action in NEEDS_TITLE or dice.uniform() < 0.2:
            row["title_id"] = titles[int(dice.integers(len(titles)))]
        if dice.uniform() < 0.3:
            row["session_id"] = f"s{number // 7}"
        if dice.uniform() < 0.6:
            row["dwell_seconds"] = float(dice.choice([0.0, 0.0005, 12.3456, dice.uniform(0, 9000)]))
        if dice.uniform() < 0.5:
            row["played_fraction"] = float(dice.choice([0.0, 0.0999995, 0.1, 0.9, 1.0, dice.uniform()]))
        if action == Action.SEARCH and dice.uniform() < 0.8:
            row["query"] = str(dice.choice(_QUERIES))
        rows.append(row)
    for sequence, number in enumerate(dice.permutation(num).tolist(), start=1):
        rows[number]["sequence"] = sequence
    return rows
