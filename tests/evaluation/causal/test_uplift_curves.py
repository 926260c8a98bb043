"""Qini, AUUC and reward curves: equal to scikit-uplift, and what one finds by hand."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from foretaste.evaluation.causal.lifts import lift
from foretaste.evaluation.causal.uplift_curves import qini_curve, ranked, reward_curve, uplift_curve

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-oracles" / "bin" / "python"
PROGRAM = ROOT / "deployments" / "references" / "causal_program.py"
GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "causal_golden.json").read_text())


def _assert_equal_to_scikit_uplift(given: dict[str, Any], found: dict[str, Any]) -> None:
    rows = (given["outcome"], given["score"], given["treated"])
    one = ranked(*rows, resamples=0)
    assert (one.qini.value, one.auuc.value) == pytest.approx((found["qini"], found["auuc"]), rel=1e-9, abs=1e-12)
    for curve, name in ((qini_curve, "qini_curve"), (uplift_curve, "uplift_curve")):
        for ours, theirs in zip(curve(*rows), found[name], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_curves_and_coefficients_equal_what_scikit_uplift_said_of_the_committed_rows() -> None:
    _assert_equal_to_scikit_uplift(GOLDEN["given"]["uplift"], GOLDEN["found"]["uplift"])


@pytest.mark.skipif(not PYTHON.is_file(), reason="the oracle libraries are not installed: `make oracles`")
@pytest.mark.parametrize(("rates", "decimals"), [((0.1, 0.2), 6), ((0.8, 0.6), 1), ((0.5, 0.5), 0)])
def test_curves_and_coefficients_equal_scikit_uplift_on_other_rows(
    rates: tuple[float, float], decimals: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(decimals)
    treated = rng.integers(0, 2, 2_000)
    outcome = (rng.random(2_000) < np.array(rates)[treated]).astype(int)
    given = {
        "outcome": outcome,
        "score": np.round(rng.normal(size=2_000) + outcome * treated, decimals),
        "treated": treated,
    }
    (tmp_path / "in.json").write_text(json.dumps({"uplift": {key: value.tolist() for key, value in given.items()}}))
    subprocess.run([PYTHON, PROGRAM, tmp_path / "in.json", tmp_path / "out.json"], check=True, timeout=120)
    _assert_equal_to_scikit_uplift(given, json.loads((tmp_path / "out.json").read_text())["uplift"])


def test_the_curves_are_what_one_finds_by_hand() -> None:
    score = [4, 3, 3, 2, 1]
    treated = [1, 0, 1, 0, 1]
    outcome = [1, 0, 1, 1, 0]
    # at score 4: one treated, no control; at 3: two treated who both respond, one control who does not;
    # at 2: two controls, one of whom responds; at 1: a third treated, who does not
    rows, heights = qini_curve(outcome, score, treated)
    assert rows.tolist() == [0, 1, 3, 4, 5]
    np.testing.assert_allclose(heights, [0, 1, 2, 1, 2 - 1.5])
    wanted = [0, 1, 3, (1 - 0.5) * 4, (2 / 3 - 0.5) * 5]
    np.testing.assert_allclose(uplift_curve(outcome, score, treated)[1], wanted)


def test_the_perfect_order_has_coefficient_1_and_intervals_of_noise_hold_0() -> None:
    rng = np.random.default_rng(0)
    treated = rng.integers(0, 2, 3_000)
    outcome = (rng.random(3_000) < 0.3).astype(int)
    perfect = ranked(outcome, outcome * treated - outcome * (1 - treated), treated, resamples=0)
    assert perfect.qini.value == pytest.approx(1.0)
    noise = ranked(outcome, rng.normal(size=3_000), treated, actor_N=np.arange(3_000) // 3, resamples=200)
    for one in (noise.qini, noise.auuc):
        assert one.low is not None
        assert one.high is not None
        assert one.low < one.value < one.high
        assert one.low < 0 < one.high


def test_the_interval_is_that_of_drawing_rows_again() -> None:
    rng = np.random.default_rng(1)
    treated, outcome, score = rng.integers(0, 2, 60), rng.integers(0, 2, 60), np.round(rng.normal(size=60), 1)
    found = ranked(outcome, score, treated, resamples=40, seed=3).qini
    dice = np.random.default_rng(3)
    drawn = [dice.integers(0, 60, 60) for _ in range(40)]
    twins = [ranked(outcome[rows], score[rows], treated[rows], resamples=0).qini.value for rows in drawn]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(twins, [0.025, 0.975])))


def test_the_reward_curve_is_what_treating_the_first_brings_with_ties_shared() -> None:
    effect = np.array([4.0, 1.0, 3.0, -4.0])
    curve = reward_curve(effect, np.array([9.0, 5.0, 5.0, 1.0]), shares=[0.25, 0.5, 0.75, 1.0], resamples=100)
    np.testing.assert_allclose([one.value for one in curve.gain], [1.0, 1.5, 2.0, 1.0])
    assert curve.area.value == pytest.approx(np.mean([1.0, 1.5, 2.0, 1.0]) - 0.625 * 1.0)
    assert all(one.low is not None and one.low <= one.value for one in curve.gain)


def test_errors_name_the_row() -> None:
    with pytest.raises(ValueError, match=r"outcome of row 1 is 2\.0"):
        ranked([0, 2, 1], [0.1, 0.2, 0.3], [0, 1, 1])
    with pytest.raises(ValueError, match="score of row 2 is not finite"):
        qini_curve([0, 1, 1], [0.1, 0.2, np.nan], [0, 1, 1])
    with pytest.raises(ValueError, match="0 treated of 2"):
        ranked([0, 1], [0.1, 0.2], [0, 0])
    with pytest.raises(ValueError, match=r"within \(0, 1\]"):
        reward_curve(np.ones(3), np.ones(3), shares=[0.0, 0.5])


def test_a_lift_and_its_interval_are_welch_s() -> None:
    treated, control = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 1.0, 0.0, 1.0, 1.0])
    one, wanted = lift(treated, control), stats.ttest_ind(treated, control, equal_var=False).confidence_interval()
    assert (one.value, one.low, one.high) == pytest.approx((1.9, wanted.low, wanted.high), rel=1e-12)
