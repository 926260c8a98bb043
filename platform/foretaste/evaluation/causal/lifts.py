"""What a randomised test says before any model: by how much did arms differ?

Welch, Biometrika 1947. Whether rows were assigned as intended is asked by `ops.sample_ratio`.

Shapes: N rows of an arm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from foretaste.evaluation.intervals import LEVEL, Figure

MISMATCH_BELOW = 0.0005
"""A smaller probability of the counts says that assignment or logging is broken, and no figure of the test holds."""


def lift(treated_N: NDArray[np.floating], control_N: NDArray[np.floating]) -> Figure:
    """Difference of means with Welch's 95% interval. Raises ValueError for an arm of fewer than two rows."""
    if min(len(treated_N), len(control_N)) < 2:
        raise ValueError(f"lift: wanted two rows of each arm, got {len(treated_N)} and {len(control_N)}")
    parts = [float(np.var(arm, ddof=1)) / len(arm) for arm in (treated_N, control_N)]
    value = float(np.mean(treated_N) - np.mean(control_N))
    if not (variance := sum(parts)):
        return Figure(value, value, value)
    degrees = variance**2 / sum(
        part**2 / (len(arm) - 1) for part, arm in zip(parts, (treated_N, control_N), strict=True)
    )
    half = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * variance**0.5
    return Figure(value, value - half, value + half)
