"""Off-policy sums over a log of any length: Ray Data reads it block by block, tasks sum, the driver adds.

The driver holds one row an estimator and block; a task holds one block. What is summed does not depend on how the log
is cut into files, blocks and batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from foretaste.evaluation.offpolicy.rounds import Rounds
from foretaste.evaluation.offpolicy.stream import Summary, cut, summarise
from foretaste.evaluation.offpolicy.tables import rounds_of, summary_of, summary_table
from foretaste.evaluation.offpolicy.terms import Estimates
from foretaste.jobs.over_files import present

ROUNDS_A_TASK = 262_144


@dataclass(frozen=True, slots=True)
class Summing:
    """Sums of a block of a log; work for a task of Ray Data (`map_batches`), or here."""

    estimators: tuple[Estimates[Rounds], ...]

    def __call__(self, table: pa.Table) -> pa.Table:
        """ROUNDS to one row an estimator; raises ValueError for what the rounds cannot be."""
        return summary_table(summarise(cut(rounds_of(table)), self.estimators))


def sum_log(
    paths: Sequence[Path], estimators: Sequence[Estimates[Rounds]], *, rounds_a_task: int = ROUNDS_A_TASK
) -> Summary:
    """Sum Parquet files of ROUNDS on the Ray that is connected to.

    Raises FileNotFoundError for a file that is not there, ValueError where no file is named or none has a round.
    """
    import ray.data

    read = ray.data.read_parquet(present(paths, what="a log of rounds"))
    summed = read.map_batches(Summing(tuple(estimators)), batch_size=rounds_a_task, batch_format="pyarrow")
    total = Summary()
    for batch in summed.iter_batches(batch_size=None, batch_format="pyarrow"):
        total += summary_of(batch)
    if not total.sums:
        raise ValueError(f"a log of rounds: {len(paths)} files have no round")
    return total
