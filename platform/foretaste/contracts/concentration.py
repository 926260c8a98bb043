"""How concentrated exposure is: one definition for what is watched while serving and for what experiments report.

Shapes: N titles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def gini(counts_N: NDArray[np.int64]) -> float:
    """Gini coefficient of how often titles were shown: 0 where all were alike, near 1 where one has everything.

    0 where nothing was shown.
    """
    total, size = int(counts_N.sum()), len(counts_N)
    if not total:
        return 0.0
    weight_N = 2 * np.arange(1, size + 1, dtype=np.int64) - size - 1
    return float(weight_N @ np.sort(counts_N)) / (size * total)
