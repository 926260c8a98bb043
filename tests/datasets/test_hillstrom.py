"""Hillstrom's test is read whole, duplicates and all, and its published lifts come out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foretaste.datasets.hillstrom import ARMS, load
from foretaste.evaluation.causal.lifts import lift
from foretaste.ops.sample_ratio import sample_ratio_p

DATA = (Path(__file__).parents[2] / ".." / "shared" / "data" / "hillstrom").resolve()
HEADER = "recency,history_segment,history,mens,womens,zip_code,newbie,channel,segment,visit,conversion,spend"


def test_rows_become_columns_arm_and_outcomes(tmp_path: Path) -> None:
    lines = [HEADER, "10,2) $100 - $200,142.44,1,0,Rural,0,Phone,Womens E-Mail,0,0,0"]
    lines += ['6,"6) $750 - $1,000",829.08,1,1,Urban,1,Web,No E-Mail,1,1,29.99']
    (tmp_path / "hillstrom.csv").write_text("\n".join(lines))
    test = load(tmp_path)
    assert test.names == (
        "recency", "history", "mens", "womens", "newbie",
        "zip_code=Rural", "zip_code=Urban", "channel=Phone", "channel=Web",
    )  # fmt: skip
    np.testing.assert_allclose(test.column_ND[1], [6, np.log(830.08), 1, 1, 1, 0, 1, 0, 1])
    assert test.arm_N.tolist() == [2, 0]
    assert test.outcomes["spend"].tolist() == [0.0, 29.99]
    (tmp_path / "hillstrom.csv").write_text("\n".join(lines).replace("No E-Mail", "Fax"))
    with pytest.raises(ValueError, match=r"segments \['Fax'\]"):
        load(tmp_path)


@pytest.mark.skipif(not DATA.is_dir(), reason="Hillstrom's test is not here: ../shared/data/hillstrom")
def test_arms_were_assigned_as_intended_and_both_e_mails_lift_visits_as_published() -> None:
    test = load(DATA)
    assert len(test) == 64_000
    assert sample_ratio_p(np.bincount(test.arm_N), np.full(3, 1 / 3)) > 0.05
    visit = {arm: test.outcomes["visit"][test.arm_N == place] for place, arm in enumerate(ARMS)}
    for arm, wanted in (("Mens E-Mail", 0.0766), ("Womens E-Mail", 0.0452)):
        found = lift(visit[arm], visit["No E-Mail"])
        assert found.value == pytest.approx(wanted, abs=5e-5)
        assert found.low is not None
        assert found.high is not None
        assert 0.03 < found.low < found.value < found.high < 0.09
