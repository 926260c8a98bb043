"""Instruments over a stream with many controls: close to two-stage least squares, at a fraction of its memory."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from foretaste.evaluation.causal.absorbing import absorbed
from foretaste.evaluation.causal.instruments import least_squares, two_stage
from foretaste.evaluation.causal.instruments_sgd import StochasticInstruments
from foretaste.evaluation.causal.moments import Floats

ROWS, CONTROLS, WARM_UP = 30_000, 40, 5_000


def _rows(seed: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Controls move the instrument, too, so that an effect without them would be wrong."""
    rng = np.random.default_rng(seed)
    control_ND = rng.normal(size=(ROWS, CONTROLS)) * (rng.random((ROWS, CONTROLS)) < 0.3)
    control_ND[:, 0] = 1.0
    mood_N = rng.normal(size=ROWS)
    told_N3 = control_ND @ rng.normal(size=(CONTROLS, 3))
    instrument_N = told_N3[:, 0] + rng.normal(size=ROWS)
    exposure_N = 0.5 * instrument_N + mood_N + told_N3[:, 1] + rng.normal(size=ROWS)
    outcome_N = 0.4 * exposure_N + 2.0 * mood_N + told_N3[:, 2] + rng.normal(size=ROWS)
    return outcome_N, exposure_N, control_ND, instrument_N


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_effect_is_that_of_two_stage_least_squares_within_half_its_standard_error(seed: int) -> None:
    outcome, exposure, control, instrument = _rows(seed)
    late = slice(WARM_UP, None)
    exact = two_stage(absorbed(outcome[late], exposure[late], control[late], instrument[late]))
    stream = StochasticInstruments(CONTROLS, warm_up=WARM_UP)
    for part in np.array_split(np.arange(ROWS), 3):
        stream.update(outcome[part], exposure[part], control[part], instrument[part])
    error = float(exact.fit.error_J[0])
    assert stream.fit().effect().value == pytest.approx(exact.effect().value, abs=error / 2)
    assert float(stream.fit().fit.error_J[0]) == pytest.approx(error, rel=0.1)
    assert abs(least_squares(absorbed(outcome, exposure, control, instrument)).effect().value - 0.4) > 20 * error


def test_sparse_controls_give_what_dense_ones_do() -> None:
    outcome, exposure, control, instrument = _rows(3)
    dense, thin = (StochasticInstruments(CONTROLS, warm_up=WARM_UP) for _ in range(2))
    dense.update(outcome, exposure, control, instrument)
    thin.update(outcome, exposure, sparse.csr_matrix(control), instrument)
    assert thin.fit().effect().value == pytest.approx(dense.fit().effect().value, rel=1e-9)


def test_it_says_what_it_wants() -> None:
    stream = StochasticInstruments(CONTROLS, warm_up=WARM_UP)
    with pytest.raises(ValueError, match=r"wanted \(9, 40\), got \(9, 3\)"):
        stream.update(np.zeros(9), np.zeros(9), np.zeros((9, 3)), np.zeros(9))
    with pytest.raises(ValueError, match="0 rows so far, the warm-up takes 5000"):
        stream.fit()
