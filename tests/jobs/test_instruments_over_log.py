"""A log in files by member, summed on Ray, is the log in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretaste.evaluation.causal.instruments import recentred, two_stage
from foretaste.evaluation.causal.moments import moments
from foretaste.jobs.instruments import Question, sum_log

QUESTION = Question("returned", ("played",), ("shown",), ("p",), ("taste",), "member")


def _log(num: int) -> pa.Table:
    rng = np.random.default_rng(0)
    member, taste, p = rng.integers(0, 20, num), rng.normal(size=num), rng.uniform(0.2, 0.8, num)
    shown = rng.random(num) < p
    played = (shown + taste + rng.normal(size=num) > 0.5).astype(np.float64)
    returned = 0.5 * played + taste + rng.normal(size=num)
    columns = {"member": member, "taste": taste, "p": p, "shown": shown, "played": played, "returned": returned}
    return pa.table(columns)


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data trips over its own on making a context
def test_files_by_member_give_the_effect_and_the_errors_of_the_whole_log(tmp_path: Path, local_ray: None) -> None:
    log = _log(600)
    column = {name: log[name].to_numpy() for name in log.column_names}
    paths = []
    for part in range(3):
        paths.append(tmp_path / f"{part}.parquet")
        pq.write_table(log.filter(pa.array(column["member"] % 3 == part)), paths[-1])
    controls = np.column_stack([np.ones(600), column["taste"]])
    instrument = recentred(column["shown"], column["p"])
    whole = moments(column["returned"], column["played"], controls, instrument, cluster_N=column["member"])
    found = sum_log(paths, QUESTION)
    assert (found.num_rows, found.num_clusters) == (600, 20)
    one, other = two_stage(found).fit, two_stage(whole).fit
    np.testing.assert_allclose(one.coefficient_J, other.coefficient_J, rtol=1e-9)
    np.testing.assert_allclose(one.covariance_JJ, other.covariance_JJ, rtol=1e-9)


def test_what_is_wrong_with_a_file_is_said_with_its_name(tmp_path: Path) -> None:
    log = _log(10)
    pq.write_table(log.drop_columns(["p"]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: missing columns \['p'\]"):
        QUESTION.block(tmp_path / "a.parquet")
    pq.write_table(log.set_column(2, "p", pa.array([0.5] * 9 + [1.0])), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet: recentred: the propensity of row 9 is 1\.0"):
        QUESTION.block(tmp_path / "b.parquet")
    for bad, wanted in (([True] * 9 + [None], "None"), ([1.0] * 9 + [float("nan")], "nan"), ([0] * 9 + [2], "2")):
        pq.write_table(log.set_column(3, "shown", pa.array(bad)), tmp_path / "c.parquet")
        with pytest.raises(ValueError, match=rf"c\.parquet: column shown of row 9 is {wanted}, wanted 0 or 1"):
            QUESTION.block(tmp_path / "c.parquet")
    pq.write_table(log.set_column(0, "member", pa.array([None, *range(9)])), tmp_path / "d.parquet")
    with pytest.raises(ValueError, match=r"d\.parquet: column member of row 0 has no value"):
        QUESTION.block(tmp_path / "d.parquet")
    with pytest.raises(FileNotFoundError, match="absent"):
        sum_log([tmp_path / "absent.parquet"], QUESTION)
    with pytest.raises(ValueError, match=r"a propensity for each of \['shown'\]"):
        Question("returned", ("played",), ("shown",), ())
