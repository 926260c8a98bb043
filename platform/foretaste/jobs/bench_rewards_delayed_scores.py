"""How good predictions of feedback that came late were.

Shapes: N decisions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from foretaste.evaluation.calibration import reliability

Floats = NDArray[np.float64]


def scores(chance_N: Floats, final_N: Floats) -> dict[str, float]:
    """Area under the curve (where both came), negative log-likelihood, calibration error and mean of predictions."""
    told_N = np.clip(chance_N, 1e-6, 1.0 - 1e-6)
    found = reliability(told_N, final_N, np.arange(len(told_N)), resamples=2, seed=0)
    both = 0.0 < final_N.mean() < 1.0
    return ({"auc": float(roc_auc_score(final_N, told_N))} if both else {}) | {
        "nll": float(-np.mean(final_N * np.log(told_N) + (1.0 - final_N) * np.log1p(-told_N))),
        "ece": found.ece.value,
        "mean": float(told_N.mean()),
        "mean of what came": float(final_N.mean()),
    }
