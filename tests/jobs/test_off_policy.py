"""A log in files, summed on Ray, is the log in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretaste.evaluation.offpolicy.estimators import EVERY
from foretaste.evaluation.offpolicy.stream import estimate
from foretaste.evaluation.offpolicy.tables import rounds_of
from foretaste.jobs.off_policy import sum_log


def log(num_rounds: int) -> pa.Table:
    """Rounds of three actions."""
    rng = np.random.default_rng(0)
    target = rng.dirichlet(np.ones(3), size=num_rounds)
    target[::3] = [1.0, 0.0, 0.0]
    return pa.table(
        {
            "chosen": rng.integers(0, 3, num_rounds),
            "reward": rng.random(num_rounds),
            "propensity": rng.uniform(0.1, 1.0, num_rounds),
            "target_every": target.tolist(),
            "predicted_reward_every": rng.random((num_rounds, 3)).tolist(),
        }
    )


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data trips over its own on making a context
def test_a_log_in_files_gives_the_same_sums_however_it_is_cut(tmp_path: Path, local_ray: None) -> None:
    whole = log(1_000)
    paths = []
    for number, (first, size) in enumerate([(0, 1), (1, 600), (601, 399)]):
        paths.append(tmp_path / f"rounds-{number}.parquet")
        pq.write_table(whole.slice(first, size), paths[-1], row_group_size=250)
    wanted = estimate(rounds_of(whole), EVERY)
    for rounds_a_task in (97, 100_000):
        found = sum_log(paths, EVERY, rounds_a_task=rounds_a_task)
        assert {name: sums.num_rounds for name, sums in found.sums.items()} == {e.name: 1_000 for e in EVERY}
        assert found.values == pytest.approx(wanted.values, rel=1e-12)
        errors = {name: sums.standard_error for name, sums in found.sums.items()}
        assert errors == pytest.approx({name: sums.standard_error for name, sums in wanted.sums.items()}, rel=1e-9)


def test_a_log_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.parquet: not there \(1 of 1 files\)"):
        sum_log([tmp_path / "absent.parquet"], EVERY)
    with pytest.raises(ValueError, match="wanted files, found none"):
        sum_log([], EVERY)
