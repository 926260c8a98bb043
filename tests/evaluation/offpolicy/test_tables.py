"""Rounds from tables, and sums that travel as tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from foretaste.evaluation.offpolicy.estimators import DR, IPS, SNIPS
from foretaste.evaluation.offpolicy.rounds import Rounds
from foretaste.evaluation.offpolicy.stream import estimate
from foretaste.evaluation.offpolicy.tables import rounds_of, summary_of, summary_table

TABLE = pa.table(
    {
        "chosen": [0, 1, 1],
        "reward": [1.0, 0.0, 2.0],
        "propensity": [0.5, 0.5, 0.25],
        "target_every": [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]],
        "predicted_reward_every": [[0.5, 1.0]] * 3,
    }
)


def test_a_table_is_the_rounds_that_it_says() -> None:
    rounds = rounds_of(TABLE)
    same = Rounds.of(
        action=[0, 1, 1],
        reward=[1.0, 0.0, 2.0],
        propensity=[0.5, 0.5, 0.25],
        target=np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]),
        predicted=np.array([[0.5, 1.0]] * 3),
    )
    assert estimate(rounds, [IPS, DR]).values == estimate(same, [IPS, DR]).values
    assert rounds.actor_R is None


def test_sums_come_back_as_they_went() -> None:
    sums = estimate(rounds_of(TABLE), [IPS, SNIPS])
    parts = [summary_table(estimate(rounds_of(TABLE.slice(row, 1)), [IPS, SNIPS])) for row in range(3)]
    assert summary_of(summary_table(sums)).values == sums.values
    assert summary_of(pa.concat_tables(parts)).values == pytest.approx(sums.values, rel=1e-14)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target_every": None}, "log: wanted column target or target_every, found neither"),
        ({"target_every": [[1.0, 0.0], None, [0.0, 1.0]]}, "log: column target_every has no value in row 1"),
        ({"target_every": [[1.0, 0.0], [1.0], [0.0, 1.0]]}, "log: column target_every has lists of 1 to 2"),
        ({"propensity": [0.5, 0.0, 0.25]}, "log: propensity of round 1 is 0.0"),
        ({"propensity": None}, r"log: missing columns \['propensity'\]"),
    ],
)
def test_a_table_that_is_no_log_is_refused(changed: dict[str, list[object] | None], message: str) -> None:
    columns = {name: TABLE[name].to_pylist() for name in TABLE.column_names} | changed
    with pytest.raises(ValueError, match=message):
        rounds_of(pa.table({name: values for name, values in columns.items() if values is not None}), what="log")
