"""What an answer saw follows from the event log by its mark, as the slow twin of a read says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste.contracts.columns import LOGGED_EVENTS
from foretaste.feedback.past import Past
from foretaste.feedback.session_log import visible

ROW: dict[str, Any] = dict.fromkeys(LOGGED_EVENTS.names)


def event(actor: str, number: int, at: int, sequence: int, action: str) -> dict[str, Any]:
    return ROW | {
        "actor_id": actor,
        "sequence": sequence,
        "received_at": 0,
        "event_id": f"{'é' if number % 3 else 'z'}{number}",
        "at": at,
        "action": action,
    }


events = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.integers(1, 40), st.sampled_from(["play", "impression"])),
    max_size=40,
)


@settings(deadline=None)
@given(events, st.integers(1, 8), st.integers(-1, 41), st.integers(0, 32), st.none() | st.integers(0, 20))
def test_past_is_the_twin_of_a_read(
    made: list[tuple[str, int, int, str]], limit: int, mark: int, before_us: int, window_us: int | None
) -> None:
    rows = [event(actor, number, at, seq, action) for number, (actor, at, seq, action) in enumerate(made)]
    past = Past(pa.Table.from_pylist(rows, schema=LOGGED_EVENTS))
    asked = {"limit": limit, "mark": mark, "before_us": before_us, "window_us": window_us}
    for actor in "abcd":
        wanted = visible([row for row in rows if row["actor_id"] == actor], **asked)  # type: ignore[arg-type]
        found = past.events.take(past.visible(actor, **asked))  # type: ignore[arg-type]
        assert found["event_id"].to_pylist() == [row["event_id"] for row in wanted]


def test_nobody_has_no_past() -> None:
    past = Past(LOGGED_EVENTS.empty_table())
    found = past.visible("a", limit=3, mark=1, before_us=10, window_us=None)
    assert found.dtype == np.int64
    assert len(found) == 0
