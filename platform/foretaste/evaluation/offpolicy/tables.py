"""Rounds from a table of a log, and sums as a table, so that tasks can send them.

Shapes: R rounds, A actions.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from foretaste.contracts.columns import ROUNDS, conform
from foretaste.evaluation.offpolicy.rounds import Floats, Rounds
from foretaste.evaluation.offpolicy.stream import Summary
from foretaste.evaluation.offpolicy.terms import Sums

SUMMARY = pa.schema(
    [
        pa.field("estimator", pa.string(), nullable=False),
        pa.field("moments", pa.list_(pa.float64(), 16), nullable=False),
        pa.field("low", pa.float64(), nullable=False),
        pa.field("high", pa.float64(), nullable=False),
    ]
)


def rounds_of(table: pa.Table, *, what: str = "rounds") -> Rounds:
    """Rounds of a ROUNDS table; a column counts where all of its rows have a value.

    Raises ValueError naming `what` where a column has a value in some rows only, where lists differ in length, or for
    what `Rounds.of` refuses.
    """
    table = conform(table, ROUNDS, what=what)
    columns = {name: _column(table, name, what) for name in table.column_names}
    target = columns["target_every"] if columns["target_every"] is not None else columns["target"]
    if target is None:
        raise ValueError(f"{what}: wanted column target or target_every, found neither")
    every = columns["predicted_reward_every"]
    try:
        return Rounds.of(
            action=np.asarray(table["chosen"]),
            reward=np.asarray(table["reward"]),
            propensity=np.asarray(table["propensity"]),
            target=target,
            position=None if columns["position"] is None else columns["position"].astype(np.int64),
            actor=None if columns["actor"] is None else columns["actor"].astype(np.int64),
            predicted=columns["predicted_reward"] if every is None else every,
            expected=columns["expected_reward"],
        )
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def summary_table(summary: Summary) -> pa.Table:
    """Sums as rows, one an estimator."""
    rows = [
        {"estimator": name, "moments": sums.moments_44.ravel().tolist(), "low": sums.low, "high": sums.high}
        for name, sums in summary.sums.items()
    ]
    return pa.Table.from_pylist(rows, schema=SUMMARY)


def summary_of(table: pa.Table) -> Summary:
    """The sum of all rows of a table of sums."""
    found: dict[str, Sums] = {}
    for row in table.to_pylist():
        sums = Sums(np.array(row["moments"], dtype=np.float64).reshape(4, 4), row["low"], row["high"])
        found[row["estimator"]] = found.get(row["estimator"], Sums.zero()) + sums
    return Summary(found)


def _column(table: pa.Table, name: str, what: str) -> Floats | None:
    """A column as numbers (R) or, of lists, as a matrix (R x A); None where it has no value."""
    column = table[name].combine_chunks()
    if column.null_count == len(column):
        return None
    if column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        raise ValueError(f"{what}: column {name} has no value in row {row}, but in others ({column.null_count} null)")
    if not pa.types.is_list(column.type):
        values_R: Floats = np.asarray(column).astype(np.float64, copy=False)
        return values_R
    lengths = np.unique(np.asarray(pc.list_value_length(column)))
    if len(lengths) > 1:
        raise ValueError(f"{what}: column {name} has lists of {lengths[0]} to {lengths[-1]}, wanted one length")
    matrix_RA: Floats = np.asarray(column.flatten()).reshape(len(column), int(lengths[0]))
    return matrix_RA
