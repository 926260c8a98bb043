"""Outcomes as of several instants become rows of a model of delayed feedback, checked by hand."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from foretaste.contracts.columns import AT
from foretaste.rewards.pending import SIGNALS, pending_of

DAY = timedelta(days=1)
START = datetime(2026, 2, 2, 6, tzinfo=UTC)  # a Monday, six in the morning
TIMES = (
    "at", "as_of", "closes_at", "clicked_at", "listed_at", "played_at", "discovered_at", "completed_at",
    "thumbed_up_at", "thumbed_down_at",
)  # fmt: skip


def outcomes(as_of: float, *rows: dict[str, Any]) -> pa.Table:
    """Rows as of so many days after START; times of a row are days after it, too."""
    columns: dict[str, list[Any]] = {name: [] for name in (*TIMES, "played_fraction", "num_plays", "position")}
    columns |= {"decision_id": [], "title_id": [], "member_id": []}
    for row in rows:
        told = {"as_of": as_of, "closes_at": row["at"] + 7, "num_plays": 0, "position": 0, "title_id": "a"} | row
        for name, column in columns.items():
            value = told.get(name)
            column.append(START + value * DAY if name in TIMES and value is not None else value)
    kinds = dict.fromkeys(TIMES, AT) | {"played_fraction": pa.float64(), "num_plays": pa.int32()}
    kinds |= {"position": pa.int32(), "decision_id": pa.string(), "title_id": pa.string(), "member_id": pa.string()}
    return pa.table({name: pa.array(column, kinds[name]) for name, column in columns.items()})


def test_a_decision_that_waits_has_its_age_its_landmarks_and_no_label() -> None:
    row = {"decision_id": "d", "at": 1, "member_id": "m"}
    played = row | {"clicked_at": 1.5, "played_at": 1.5, "played_fraction": 0.4, "num_plays": 1}
    found = pending_of([outcomes(2, row), outcomes(3, played), outcomes(4, played)], "complete", codes={"a": 7})
    assert found.age_N.tolist() == [3.0]
    assert found.delay_N.tolist() == [math.inf]
    assert math.isnan(found.final_N[0])
    assert found.code_N.tolist() == [7]
    assert found.mark_NL.tolist() == [[0.0, 1.0, 2.0]]
    assert not found.marked_NLS[0, :2].any(), "nothing was seen at 0 and after a day"
    after = dict(zip(SIGNALS, found.marked_NLS[0, 2].tolist(), strict=True))
    assert after["played"] == 1
    assert after["fraction"] == pytest.approx(0.4)
    assert after["log_days_since_play"] == pytest.approx(math.log1p(1.5))
    assert found.context_NF[0].tolist() == pytest.approx([0.0, 0.0, 0.0, 1.0, 0.0], abs=1e-6)


def test_what_came_is_seen_with_its_delay_and_what_did_not_is_final_when_the_window_closes() -> None:
    came = {"decision_id": "d", "at": 0, "completed_at": 2, "member_id": None}
    gone = {"decision_id": "e", "at": 0, "title_id": "b"}
    found = pending_of([outcomes(8, came, gone)], "complete", codes={})
    assert found.delay_N.tolist() == [2.0, math.inf]
    assert found.final_N.tolist() == [1.0, 0.0]
    assert found.code_N.tolist() == [0, 0]


def test_a_decision_that_an_earlier_table_does_not_have_has_no_landmark_there() -> None:
    old, new = {"decision_id": "d", "at": 0}, {"decision_id": "e", "at": 5}
    found = pending_of([outcomes(3, old), outcomes(6, new, old)], "click", codes={})
    assert found.mark_NL.tolist() == [[0.0, 7.0], [0.0, 3.0]], "7: the window's end, which nothing waits for"
    assert np.isfinite(found.marked_NLS).all()


def test_what_cannot_be_is_refused_with_its_reason() -> None:
    row = {"decision_id": "d", "at": 0}
    with pytest.raises(ValueError, match="'abandon': wanted one of click"):
        pending_of([outcomes(3, row)], "abandon", codes={})
    with pytest.raises(ValueError, match="rising instants"):
        pending_of([outcomes(3, row), outcomes(2, row)], "click", codes={})
    with pytest.raises(ValueError, match="found none"):
        pending_of([], "click", codes={})
