"""Are propensities what they say? The first place of audited lists is held against its policy's whole distribution.

How often what was put there had a probability of some bin, beside how often that was to be expected: one draw falls
into a bin with the sum s of the probabilities there, and has the variance s (1 - s).

Shapes: C candidates of the pool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOUNDS = (0.001, 0.01, 0.1, 0.5, 1.0)
"""A probability is in the first bin whose bound it does not exceed."""
CLOSE = 1e-9

_EDGES = np.array(BOUNDS[:-1])
_NAMES = tuple(f"{bound:g}" for bound in BOUNDS)


@dataclass(frozen=True, slots=True)
class Draw:
    """One first place."""

    below: str  # bin of what was put there
    bins: tuple[tuple[str, float, float], ...]  # name, expected number, variance of each
    differs: bool  # whether what was logged is not what the policy says


def draw(probability_C: NDArray[np.float64], *, chosen: int, propensity: float) -> Draw:
    """Hold what was put at the first place, and its logged propensity, against the policy's distribution there."""
    bin_C = np.searchsorted(_EDGES, probability_C, side="left")
    share_of = np.bincount(bin_C, weights=probability_C, minlength=len(BOUNDS)).clip(0.0, 1.0).tolist()
    bins = tuple((name, share, share * (1.0 - share)) for name, share in zip(_NAMES, share_of, strict=True))
    said = float(probability_C[chosen])
    differs = not math.isclose(said, propensity, rel_tol=CLOSE, abs_tol=CLOSE)
    return Draw(_NAMES[int(bin_C[chosen])], bins, differs)
