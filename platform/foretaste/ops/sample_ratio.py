"""How likely counts of arms are, if they were assigned by their shares: what is not cannot be compared.

Fabijan et al., KDD 2019 (sample-ratio mismatch); Pearson's chi-square test.

Shapes: A arms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaincc


def sample_ratio_p(count_A: ArrayLike, share_A: ArrayLike) -> float:
    """Probability of counts as uneven, 1 where nothing was counted.

    Raises ValueError for fewer than two arms, or where a share is not positive or they do not add up to 1.
    """
    count, share = np.asarray(count_A, dtype=np.float64), np.asarray(share_A, dtype=np.float64)
    if count.ndim != 1 or count.shape != share.shape or len(share) < 2:
        raise ValueError(f"sample_ratio_p: wanted counts and shares of two arms or more, got {count} and {share}")
    if (share <= 0).any() or abs(share.sum() - 1.0) > 1e-9:
        raise ValueError(
            f"sample_ratio_p: wanted a positive share for each of {count.size} arms, 1 in all; got {share}"
        )
    expected = share * count.sum()
    statistic = float(((count - expected) ** 2 / np.maximum(expected, np.finfo(float).tiny)).sum())
    return float(gammaincc((len(share) - 1) / 2, statistic / 2))
