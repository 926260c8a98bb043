"""Reliability: what was told, what came, and that calibration brings them together."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste.evaluation.calibration import reliability
from foretaste.evaluation.calibration_page import CELLS, cells, reliability_page
from foretaste.models.calibration import fit_line


def planted(num: int = 20_000) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Logits that are too sure of themselves, what came, and whose it is."""
    rng = np.random.default_rng(5)
    true = rng.normal(-2.0, 1.0, size=num)
    came = (rng.random(num) < 1 / (1 + np.exp(-true))).astype(np.float64)
    return 2.5 * true + 1.0, came, np.arange(num) // 10


def told(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-logit)))


def test_the_error_is_that_of_a_walk_over_the_bins() -> None:
    chance, came = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.8]), np.array([0.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    found = reliability(chance, came, np.arange(6), resamples=10, seed=0, num_bins=3)
    assert [(one.count, round(one.told, 6), one.came) for one in found.bins] == [
        (2, 0.15, 0.0),
        (2, 0.35, 0.5),
        (2, 0.7, 1.0),
    ]
    assert found.ece.value == pytest.approx((2 * 0.15 + 2 * 0.15 + 2 * 0.3) / 6)
    assert (found.count, found.share) == (6, 0.5)


def test_calibration_on_some_actors_lowers_the_error_on_others() -> None:
    logit, came, actor = planted()
    fitted = actor % 2 == 0
    slope, shift = fit_line(logit[fitted], came[fitted])
    raw, line = (
        reliability(told(one[~fitted]), came[~fitted], actor[~fitted], resamples=100, seed=0)
        for one in (logit, slope * logit + shift)
    )
    assert raw.ece.value > 0.05
    assert line.ece.value < raw.ece.value / 4
    assert raw.ece.low is not None
    assert line.ece.high is not None
    assert line.ece.high < raw.ece.low
    assert line.log_loss < min(raw.log_loss, raw.log_loss_of_share)


def test_predictions_that_are_all_alike_are_one_bin_and_bad_ones_are_refused() -> None:
    found = reliability(np.full(50, 0.3), (np.arange(50) < 15).astype(np.float64), np.arange(50), resamples=5, seed=0)
    assert len(found.bins) == 1
    assert found.ece.value == pytest.approx(0.0)
    with pytest.raises(ValueError, match=r"within 0\.\.1, got 2"):
        reliability(np.array([0.1, 1.2]), np.zeros(2), np.zeros(2, dtype=np.int64), resamples=5, seed=0)


def test_the_page_shows_heads_that_are_on_and_says_na_of_others() -> None:
    logit, came, actor = planted(200)
    found = reliability(told(logit), came, actor, resamples=5, seed=0)
    page = reliability_page({"play": found, "thumb": None}, what="a & b")
    assert page.count("<svg") == 1
    assert "a &amp; b" in page
    assert page.count("<td>N/A</td>") == len(CELLS) == len(cells(found))
