"""Two-stage least squares: equal to linearmodels, additive over blocks, and right where the truth is known by hand."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.evaluation.causal.absorbing import absorbed
from foretaste.evaluation.causal.instruments import least_squares, recentred, two_stage
from foretaste.evaluation.causal.moments import Moments, moments, total
from foretaste.evaluation.causal.strength import anderson_rubin, first_stage, sargan, wu_hausman

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-oracles" / "bin" / "python"
PROGRAM = ROOT / "deployments" / "references" / "causal_program.py"
GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "causal_golden.json").read_text())
GIVEN = GOLDEN["given"]["instruments"]


def _moments(given: dict[str, Any], *, clustered: bool = False, rows: Any = slice(None)) -> Moments:
    parts = [np.asarray(given[key])[rows] for key in ("outcome", "exposures", "controls", "instruments")]
    return moments(*parts, cluster_N=np.asarray(given["clusters"])[rows] if clustered else None)


def _assert_equal_to_linearmodels(given: dict[str, Any], found: dict[str, Any]) -> None:
    sums, clustered = _moments(given), _moments(given, clustered=True)
    fits = {
        "robust": two_stage(sums),
        "robust_small": two_stage(sums, small_sample=True),
        "plain": two_stage(sums, robust=False),
        "clustered": two_stage(clustered),
    }
    for name, one in fits.items():
        np.testing.assert_allclose(one.fit.coefficient_J, found["coefficients"], rtol=1e-8)
        wanted = np.array(found["covariances"][name])
        np.testing.assert_allclose(one.fit.covariance_JJ, wanted, rtol=1e-8, atol=1e-8 * np.diag(wanted).min())
    firsts = [first_stage(sums, exposure) for exposure in range(2)]
    np.testing.assert_allclose([one.robust_wald for one in firsts], found["robust_wald"], rtol=1e-8)
    np.testing.assert_allclose([one.plain_f for one in firsts], found["plain_f"], rtol=1e-8)
    np.testing.assert_allclose([one.partial_r_squared for one in firsts], found["partial_r_squared"], rtol=1e-8)
    walds = [first_stage(clustered, exposure).robust_wald for exposure in range(2)]
    np.testing.assert_allclose(walds, found["clustered_wald"], rtol=1e-8)
    assert wu_hausman(sums, robust=False).statistic == pytest.approx(found["wu_hausman"], rel=1e-8)
    assert wu_hausman(sums).statistic == pytest.approx(found["wooldridge"], rel=1e-8)
    assert sargan(sums).statistic == pytest.approx(found["sargan"], rel=1e-8)


def test_everything_equals_what_linearmodels_said_of_the_committed_rows() -> None:
    _assert_equal_to_linearmodels(GIVEN, GOLDEN["found"]["instruments"])


@pytest.mark.skipif(not PYTHON.is_file(), reason="the oracle libraries are not installed: `make oracles`")
def test_everything_equals_linearmodels_on_other_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    given = {key: np.asarray(value) for key, value in GIVEN.items()}
    drawn = rng.integers(0, len(given["outcome"]), 400)
    given = {key: value[drawn] for key, value in given.items()}
    given["outcome"] = given["outcome"] + rng.normal(size=400) * np.abs(given["controls"][:, 1])
    (tmp_path / "in.json").write_text(
        json.dumps({"instruments": {key: value.tolist() for key, value in given.items()}})
    )
    subprocess.run([PYTHON, PROGRAM, tmp_path / "in.json", tmp_path / "out.json"], check=True, timeout=120)
    _assert_equal_to_linearmodels(given, json.loads((tmp_path / "out.json").read_text())["instruments"])


@pytest.mark.parametrize("clustered", [False, True])
def test_blocks_add_up_to_the_whole(clustered: bool) -> None:
    member = np.asarray(GIVEN["clusters"])
    blocks = [_moments(GIVEN, clustered=clustered, rows=member % 3 == part) for part in range(3)]
    whole, parts = _moments(GIVEN, clustered=clustered), total(blocks)
    assert (parts.num_rows, parts.num_clusters) == (whole.num_rows, whole.num_clusters)
    np.testing.assert_allclose(two_stage(parts).fit.covariance_JJ, two_stage(whole).fit.covariance_JJ, rtol=1e-9)


def test_partialling_controls_out_leaves_effects_and_errors_as_they_are() -> None:
    parts = [np.asarray(GIVEN[key]) for key in ("outcome", "exposures", "controls", "instruments")]
    whole, small = _moments(GIVEN), absorbed(*parts)
    for small_sample in (False, True):
        one, other = (two_stage(sums, small_sample=small_sample).fit for sums in (whole, small))
        np.testing.assert_allclose(other.coefficient_J, one.coefficient_J[:2], rtol=1e-9)
        np.testing.assert_allclose(other.covariance_JJ, one.covariance_JJ[:2, :2], rtol=1e-8)
    assert first_stage(small).robust_wald == pytest.approx(first_stage(whole).robust_wald, rel=1e-8)
    assert wu_hausman(small).statistic == pytest.approx(wu_hausman(whole).statistic, rel=1e-8)


def test_one_coin_and_one_exposure_give_the_ratio_of_differences() -> None:
    shown = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    played = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    outcome = np.array([1.0, 2.0, 3.0, 6.0, 2.0, 5.0, 6.0, 7.0])
    sums = moments(outcome, played, np.ones(8), shown)
    effect = two_stage(sums).effect()
    assert effect.value == pytest.approx((5.0 - 3.0) / (0.75 - 0.25))
    assert least_squares(sums).effect().value == pytest.approx(6.0 - 2.0)
    assert two_stage(sums).under(1.0, [1.0]).value == pytest.approx(4.0 + 0.5 * 4.0)
    # by hand: the residuals are y - 2 - 4 r, so the variance of the ratio is sum((z - 1/2)^2 u^2) / (sum (z - 1/2) r)^2
    left = outcome - 2.0 - 4.0 * played
    error = np.sqrt((0.25 * left**2).sum()) / 1.0
    assert effect.low == pytest.approx(4.0 - 1.959963985 * error)


def test_the_intervals_cover_the_planted_effect_as_often_as_they_say_and_least_squares_never_does() -> None:
    rng = np.random.default_rng(1)
    hits, misled = 0, 0
    for _ in range(200):
        mood = rng.normal(size=1_000)
        shown = rng.random(1_000) < 0.3
        played = (0.8 * shown + mood + rng.normal(size=1_000) > 0.5).astype(float)
        outcome = 0.5 * played + mood + rng.normal(size=1_000) * (1 + shown)
        sums = moments(outcome, played, None, recentred(shown, np.full(1_000, 0.3)))
        effect, naive = two_stage(sums).effect(), least_squares(sums).effect()
        hits += bool(effect.low is not None and effect.high is not None and effect.low <= 0.5 <= effect.high)
        misled += bool(naive.low is not None and naive.low > 0.5)
    assert 182 <= hits <= 198
    assert misled == 200


def test_what_anderson_rubin_keeps_is_what_a_search_over_effects_does_not_reject() -> None:
    outcome, exposures, controls, instruments = (
        np.asarray(GIVEN[key]) for key in ("outcome", "exposures", "controls", "instruments")
    )
    exposure = exposures[:, 0]
    kept = anderson_rubin(moments(outcome, exposure, controls, instruments))
    assert kept
    for effect in np.linspace(-3, 3, 61):
        inside = any(low <= effect <= high for low, high in kept)
        off = moments(np.zeros(150), outcome - effect * exposure, controls, instruments)
        assert inside == (first_stage(off).robust_wald <= 9.487729036781154), effect


def test_weak_instruments_are_said_to_be_weak_and_leave_everything_possible() -> None:
    rng = np.random.default_rng(3)
    mood, shown = rng.normal(size=500), rng.normal(size=500)
    weak = moments(mood + rng.normal(size=500), 0.02 * shown + mood, np.ones(500), shown)
    strong = moments(mood + rng.normal(size=500), 1.0 * shown + mood, np.ones(500), shown)
    assert not first_stage(weak).strong
    assert any(np.isinf(end) for part in anderson_rubin(weak) for end in part)
    assert first_stage(strong).strong
    ((low, high),) = anderson_rubin(strong)
    effect = two_stage(strong).effect()
    assert effect.low is not None
    assert (low, high) == pytest.approx((effect.low, effect.high), abs=0.02)


def test_anderson_rubin_covers_where_many_weak_instruments_make_the_usual_interval_too_short() -> None:
    rng = np.random.default_rng(4)
    held = {"usual": 0, "kept": 0, "said": 0}
    for _ in range(300):
        shown = rng.normal(size=(400, 6))
        mood = rng.normal(size=400)
        played = 0.05 * shown.sum(axis=1) + mood + 0.5 * rng.normal(size=400)
        sums = moments(0.3 * played + mood + 0.5 * rng.normal(size=400), played, None, shown)
        effect = two_stage(sums).effect()
        held["usual"] += bool(effect.low is not None and effect.high is not None and effect.low <= 0.3 <= effect.high)
        held["kept"] += any(low <= 0.3 <= high for low, high in anderson_rubin(sums))
        held["said"] += not first_stage(sums).strong
    assert held["usual"] < 0.85 * 300
    assert 0.91 * 300 < held["kept"] < 0.985 * 300
    assert held["said"] > 0.9 * 300


def test_one_instrument_wants_an_effective_f_of_23_as_published() -> None:
    parts = [np.asarray(GIVEN[key]) for key in ("outcome", "exposures", "controls", "instruments")]
    one = first_stage(moments(parts[0], parts[1][:, 0], parts[2], parts[3][:, 0]))
    assert one.effective_f_wanted == pytest.approx(23.1, abs=0.05)
    assert one.effective_f == pytest.approx(one.robust_f)
    assert one.stock_yogo_wanted == 16.38


def test_errors_name_the_row_or_the_column() -> None:
    outcome, ones, random = np.arange(6.0), np.ones(6), np.array([0.3, -1.0, 2.0, 0.1, 1.5, -0.4])
    with pytest.raises(ValueError, match="exposure of row 2 is not finite"):
        moments(outcome, np.where(np.arange(6) == 2, np.nan, random), ones, random)
    with pytest.raises(ValueError, match=r"collinear.*(control|instrument)"):
        two_stage(moments(outcome, random**2, np.column_stack([ones, random]), 2 * random + 1))
    with pytest.raises(ValueError, match="instrument 0 is 0 everywhere"):
        two_stage(moments(outcome, random, ones, 0 * random))
    with pytest.raises(ValueError, match=r"row 1 is 1\.0"):
        recentred(np.array([True, True]), np.array([0.5, 1.0]))
    with pytest.raises(ValueError, match="as many instruments"):
        moments(outcome, np.column_stack([random, random**2]), ones, random)
    with pytest.raises(ValueError, match="at most 60"):
        moments(np.zeros(9), np.zeros(9), np.zeros((9, 70)), np.zeros(9))
