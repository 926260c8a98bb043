"""Straight lines that make logits into probabilities that hold.

Shapes: N predictions.
Platt, 1999; the labels may be shares in 0..1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

LEAST_SLOPE = 0.05
_RIDGE = 1e-3


def fit_line(logit_N: NDArray[np.floating], label_N: NDArray[np.floating | np.bool_]) -> tuple[float, float]:
    """Slope and shift of the line whose sigmoid is likeliest; the slope is at least LEAST_SLOPE, so the order stays.

    A ridge of a thousandth of a prediction around (1, 0) keeps it finite where labels are all alike. Raises ValueError
    without a prediction.
    """
    if not len(logit_N):
        raise ValueError("calibration: no predictions to fit a line to")
    told_N = np.clip(logit_N, -30.0, 30.0).astype(np.float64)
    label_N = label_N.astype(np.float64)

    def loss(line_2: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        at_N, off_2 = told_N * line_2[0] + line_2[1], line_2 - np.array([1.0, 0.0])
        wrong_N = expit(at_N) - label_N
        value = float((np.logaddexp(0.0, at_N) - label_N * at_N).sum() + _RIDGE / 2 * off_2 @ off_2)
        slope_2 = np.array([wrong_N @ told_N, wrong_N.sum()]) + _RIDGE * off_2
        return value / len(told_N), slope_2 / len(told_N)

    bounds = [(LEAST_SLOPE, None), (None, None)]
    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-12)
    return float(found.x[0]), float(found.x[1])
