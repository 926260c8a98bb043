"""The slow views as plain walks over the interactions before one midnight: they define what the fast ones must give.

Slow on purpose: one member or title and one midnight at a time, no arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.events import Action
from foretaste.signals.decay import STEPS, powers
from foretaste.signals.midnights import DAY_US
from foretaste.signals.snapshot_config import SnapshotConfig

Row = Mapping[str, Any]
"""An interaction; `at` in microseconds."""


def member_at(
    rows: Sequence[Row], midnight_us: int, titles: Catalogue, targets: Sequence[str], config: SnapshotConfig
) -> dict[str, Any] | None:
    """What is known of one member at a midnight, given their interactions in order; None where there is none before.

    Keys are the columns of MEMBER_SNAPSHOTS that hold values.
    """
    before = [row for row in rows if row["at"] < midnight_us]
    if not before:
        return None
    plays = [row["at"] for row in before if row["action"] in targets]
    visits = [
        row["at"] for n, row in enumerate(before) if n == 0 or row["session_index"] != rows[n - 1]["session_index"]
    ]
    genres, kinds = [0.0] * len(titles.genres), [0.0] * len(titles.kinds)
    first = _tick(rows[0]["at"], config)
    for row in before:
        tick = _tick(row["at"], config)
        weight = math.ldexp(float(powers()[tick % STEPS]), tick // STEPS - first // STEPS)
        weight *= 1.0 if row["action"] in targets else config.browse_weight
        weight *= 0.0 if row["action"] == Action.THUMB_DOWN else 1.0
        code = titles.code_of.get(row["title_id"], 0)
        if code:
            kinds[titles.kind_N1[code]] += weight
            own = [place for place, mark in enumerate(titles.genres_N1G[code]) if mark]
            for place in own:
                genres[place] += weight * (1.0 / len(own))
    return {
        "member_genre_affinity": _shares(genres),
        "member_kind_affinity": _shares(kinds),
        "member_plays_7d": _within(plays, midnight_us, 7),
        "member_plays_30d": _within(plays, midnight_us, 30),
        "member_plays_180d": _within(plays, midnight_us, 180),
        "member_visits_30d": _within(visits, midnight_us, 30),
        "member_tenure_days": float(np.float32((before[-1]["at"] - before[0]["at"]) / DAY_US)),
    }


def title_at(
    rows: Sequence[Row], midnight_us: int, targets: Sequence[str], config: SnapshotConfig
) -> dict[str, Any] | None:
    """What is known of one title at a midnight, given its interactions; None where there is none before.

    Keys are the columns of TITLE_SNAPSHOTS that hold values.
    """
    before = [row for row in rows if row["at"] < midnight_us]
    if not before:
        return None
    plays = [row for row in before if row["action"] in targets]
    at = [row["at"] for row in plays]
    done = [
        row
        for row in plays
        if row["action"] == Action.COMPLETE or (row["played_fraction"] or 0) >= config.complete_from
    ]
    return {
        "title_plays_1d": _within(at, midnight_us, 1),
        "title_plays_7d": _within(at, midnight_us, 7),
        "title_plays_30d": _within(at, midnight_us, 30),
        "title_plays_all": len(plays),
        "title_completion_rate": float(np.float32(len(done) / (len(plays) + config.prior_plays))),
        "title_first_seen_ms": min(row["at"] for row in before) // 1000,
    }


def _within(at: Sequence[int], midnight_us: int, days: int) -> int:
    return sum(one >= midnight_us - days * DAY_US for one in at)


def _tick(at: int, config: SnapshotConfig) -> int:
    return at * STEPS // round(config.half_life_days * DAY_US)


def _shares(sums: Sequence[float]) -> list[float]:
    total = 0.0
    for one in sums:
        total += one
    return [float(np.float32(one / (total if total > 0 else 1.0))) for one in sums]
