"""Partial controls out of all other columns, in memory: least squares on what is left is least squares with them.

Frisch and Waugh, Econometrica 1933; Lovell, JASA 1963. Errors are the robust ones of the whole regression, too.

Shapes: N rows, K exposures, D controls, L instruments.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from foretaste.evaluation.causal.moments import Floats, Moments, moments


def absorbed(
    outcome_N: ArrayLike,
    exposure_NK: ArrayLike,
    control_ND: ArrayLike,
    instrument_NL: ArrayLike,
    *,
    cluster_N: ArrayLike | None = None,
) -> Moments:
    """Moments of outcome, exposures and instruments without what any number of controls tells of them."""
    control = np.asarray(control_ND, dtype=np.float64)
    basis_ND, rank = _basis(control)
    parts = [np.asarray(part, dtype=np.float64) for part in (outcome_N, exposure_NK, instrument_NL)]
    outcome, exposure, instrument = (part - basis_ND @ (basis_ND.T @ part) for part in parts)
    return moments(outcome, exposure, None, instrument, cluster_N=cluster_N, num_absorbed=rank)


def _basis(control_ND: Floats) -> tuple[Floats, int]:
    """Orthonormal columns that span the controls; collinear ones are no error, they are partialled out alike."""
    left_NR, size_R, _ = np.linalg.svd(control_ND, full_matrices=False)
    rank = int(np.count_nonzero(size_R > size_R[0] * max(control_ND.shape) * np.finfo(np.float64).eps))
    return left_NR[:, :rank], rank
