"""Many answers made again at once are what each was, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.columns import EVENTS
from foretaste.contracts.sessions import SessionRule
from foretaste.signals.acts import acts_of_one
from foretaste.signals.differences import differences
from foretaste.signals.offline import acts_of_many
from foretaste.signals.signals import session_signals_batch, signals_of_one
from foretaste.testing.acts import BEGIN, MINUTE, actor_events
from foretaste.testing.builders import titles_table

KNOWN = catalogue(titles_table(12, seed=3))


def table(rows: list[dict[str, Any]]) -> pa.Table:
    nothing: dict[str, Any] = dict.fromkeys(EVENTS.names)
    return pa.Table.from_pylist([nothing | row for row in rows], schema=EVENTS)


@pytest.mark.parametrize("rule", [SessionRule(), SessionRule(native=False), SessionRule(gap_minutes=4)])
def test_a_batch_of_answers_is_made_as_each_of_them(rule: SessionRule) -> None:
    dice = np.random.default_rng(7)
    seen, asofs = [], []
    for seed in range(30):
        rows = actor_events(KNOWN, num=int(dice.integers(0, 60)), seed=seed, member_id=f"m{seed}")
        asof = BEGIN + int(dice.integers(0, 30_000)) * MINUTE
        visible = sorted((row for row in rows if row["at"] < asof), key=lambda row: (row["at"], row["event_id"]))
        seen.append(visible)
        asofs.append(asof)
    offsets_B1 = np.concatenate([[0], np.cumsum([len(rows) for rows in seen])]).astype(np.int64)
    asof_B = np.array(asofs, dtype=np.int64)
    flat = table([row for rows in seen for row in rows])
    many = acts_of_many(flat, offsets_B1, asof_B, catalogue=KNOWN, rule=rule)
    histories, signals = many.histories(), session_signals_batch(many, KNOWN, rule)
    assert max(histories.lengths_B) > 10
    for b, (rows, asof) in enumerate(zip(seen, asofs, strict=True)):
        one = acts_of_one(rows, asof=asof, catalogue=KNOWN, rule=rule)
        mine, theirs = one.histories(), histories.rows(np.array([b]))
        names = [name for name in type(mine).__slots__ if name != "offsets_B1"]
        assert differences(*({name: getattr(side, name) for name in names} for side in (mine, theirs))) == []
        batch = {name: value_BW[b] for name, value_BW in signals.items()}
        assert differences(signals_of_one(one, KNOWN, rule), batch) == []
