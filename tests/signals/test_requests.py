"""What is read of a request: its columns, its newest interactions, the same in any batch and from prepared acts."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.sessions import SessionRule
from foretaste.signals.acts import acts_of_one
from foretaste.signals.histories import pack
from foretaste.signals.past_acts import PastActs
from foretaste.signals.requests import REQUEST_COLUMNS, recent, request_features
from foretaste.signals.session import current_session
from foretaste.signals.signals import signals_of_one
from foretaste.signals.views import MemberView
from foretaste.testing.builders import START, events_table, interactions_table, titles_table

TITLES = titles_table(8)
KNOWN = catalogue(TITLES)
RULE = SessionRule()
START_US = int(START.timestamp()) * 1_000_000
HOUR, DAY = 3_600_000_000, 86_400_000_000
NOBODY = MemberView.absent(3, num_genres=len(KNOWN.genres), num_kinds=len(KNOWN.kinds))
LOG = interactions_table([("a", 0.0, "t0001"), ("a", 2.0, "t0002"), ("a", 2.001, "t0003"), ("b", 1.0, "t0004")])


def asked() -> tuple[Histories, NDArray[np.int64]]:
    """Someone amid a session, someone long after one, someone of whom nothing is known."""
    packed, _ = pack(LOG, KNOWN)
    histories = packed.take(np.array([0, 3, 0]), np.array([3, 4, 0]))
    return histories, np.array([START_US + 2 * DAY + HOUR // 4, START_US + 3 * DAY, START_US], dtype=np.int64)


def test_columns_of_a_session_of_none_and_of_nobody() -> None:
    histories, asof_B = asked()
    first_B = current_session(histories, asof_B, rule=RULE)
    found = request_features(histories, asof_B, first_B, NOBODY, {})
    row = [dict(zip(REQUEST_COLUMNS, values, strict=True)) for values in found.tolist()]
    assert [one["no_session"] for one in row] == [0, 1, 1]
    assert [one["no_history"] for one in row] == [0, 0, 1]
    assert [one["no_member"] for one in row] == [1, 1, 1]
    assert row[0]["session_depth"] == pytest.approx(math.log(3))
    assert row[1]["idle"] == pytest.approx(math.log1p(48))
    assert row[0]["signal_away"] == row[2]["idle"] == pytest.approx(math.log1p(24 * 365))
    assert np.isfinite(found).all()
    for b in range(3):
        alone = histories.rows(np.array([b]))
        one = request_features(
            alone, asof_B[[b]], current_session(alone, asof_B[[b]], rule=RULE), NOBODY.rows(np.array([b])), {}
        )
        assert one.tobytes() == found[b : b + 1].tobytes()


def test_the_newest_interactions_lie_side_by_side_oldest_first() -> None:
    histories, asof_B = asked()
    first_B = current_session(histories, asof_B, rule=RULE)
    found = recent(histories, asof_B, first_B, length=2)
    assert found.title_BL.tolist() == [[3, 4], [5, 0], [0, 0]]
    assert found.now_BL.tolist() == [[True, True], [False, False], [False, False]]
    assert (found.action_BL > 0).tolist() == [[True, True], [True, False], [False, False]]
    assert (found.about_BLA[2] == 0).all()
    assert recent(histories.rows(np.array([2])), asof_B[[2]], np.zeros(1, dtype=np.int64), length=2).title_BL.shape == (
        1,
        0,
    )


def test_signals_of_the_past_are_those_of_a_request_then_and_a_later_event_changes_none() -> None:
    acts = [(0, "play", "t0001", None), (DAY, "search", None, "drama"), (DAY + 9, "detail", "t0002", None),
            (DAY + 10, "play", "t0002", None), (DAY + HOUR, "thumb_up", "t0003", None)]  # fmt: skip
    names = ("event_id", "member_id", "at", "action", "title_id", "query")
    rows = [dict(zip(names, (f"e{n}", "m", START_US + at, *rest), strict=True)) for n, (at, *rest) in enumerate(acts)]
    table = events_table([row | {"at": START + timedelta(microseconds=acts[n][0])} for n, row in enumerate(rows)])
    asof = START_US + DAY + 10
    past = PastActs(table, KNOWN, RULE, limit=100)
    found = past.signals(["m", "nobody"], np.array([asof, asof]))
    wanted = signals_of_one(acts_of_one(rows, asof=asof, catalogue=KNOWN, rule=RULE), KNOWN, RULE)
    assert all(found[name][0].tobytes() == value.tobytes() for name, value in wanted.items())
    until = PastActs(table.slice(0, 3), KNOWN, RULE, limit=100).signals(["m"], np.array([asof]))
    assert all(until[name][0].tobytes() == value.tobytes() for name, value in wanted.items())
    assert found["query_tokens"].sum() == 1
    cut = past.signals(["m"], np.array([asof]), cut=True)
    before = signals_of_one(acts_of_one(rows[:1], asof=asof, catalogue=KNOWN, rule=RULE), KNOWN, RULE)
    assert all(cut[name][0].tobytes() == value.tobytes() for name, value in before.items())
    few = PastActs(table, KNOWN, RULE, limit=1)
    assert few.signals(["m"], np.array([asof]))["num_sessions"].tolist() == [[1]]
    assert few.since(["m", "nobody"], np.array([asof, asof])).tolist() == [START_US + DAY + 9, np.iinfo(np.int64).min]
