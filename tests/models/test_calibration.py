"""Lines through logits make probabilities hold."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.models.calibration import LEAST_SLOPE, fit_line


def test_the_line_of_a_planted_distortion_is_found() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(-1.0, 1.5, size=40_000)
    label = (rng.random(40_000) < 1 / (1 + np.exp(-true))).astype(np.float64)
    slope, shift = fit_line(3.0 * true + 2.0, label)  # told too sure of itself, and too high
    assert slope == pytest.approx(1 / 3, rel=0.05)
    assert shift == pytest.approx(-2 / 3, abs=0.06)


def test_shares_are_labels_too() -> None:
    slope, shift = fit_line(np.array([-1.0, 1.0] * 500), np.array([0.2, 0.6] * 500))
    told = 1 / (1 + np.exp(-(slope * np.array([-1.0, 1.0]) + shift)))
    assert told == pytest.approx([0.2, 0.6], abs=1e-3)


def test_labels_that_are_all_alike_and_logits_that_say_the_opposite_give_a_finite_rising_line() -> None:
    for label in (np.zeros(50), np.ones(50)):
        slope, shift = fit_line(np.linspace(-2, 2, 50), label)
        assert np.isfinite([slope, shift]).all()
        assert slope >= LEAST_SLOPE
    slope, shift = fit_line(np.linspace(-2, 2, 200), np.linspace(-2, 2, 200) < 0)
    assert slope == LEAST_SLOPE
    with pytest.raises(ValueError, match="no predictions"):
        fit_line(np.zeros(0), np.zeros(0))
