"""The nearest sessions as arrays that any file format holds, and back, bit for bit.

Shapes: N titles, N1 = N + 1 catalogue codes, S sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from foretaste.models.baselines.session_knn import SessionKNN, SessionKNNConfig

_MATRICES = ("postings_N1S", "votes_SN")
_PARTS = ("data", "indices", "indptr")


def knn_arrays(model: SessionKNN) -> dict[str, NDArray[Any]]:
    """Take a fitted model apart; with its configuration the arrays are all of it."""
    arrays: dict[str, NDArray[Any]] = {"prior_N": model.prior_N}
    for name in _MATRICES:
        matrix = getattr(model, name)
        arrays |= {f"{name}.{part}": np.ascontiguousarray(getattr(matrix, part)) for part in _PARTS}
        arrays[f"{name}.shape"] = np.array(matrix.shape, dtype=np.int64)
    return arrays


def build_knn(config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], *, num_titles: int) -> SessionKNN:
    """Put a model together from its configuration and arrays.

    Raises ValueError where arrays are missing, do not fit each other, or are not of `num_titles` titles.
    """
    wanted = {"prior_N"} | {f"{name}.{part}" for name in _MATRICES for part in (*_PARTS, "shape")}
    if arrays.keys() != wanted:
        raise ValueError(f"session_knn: wanted arrays {sorted(wanted)}, found {sorted(arrays)}")
    model = SessionKNN.__new__(SessionKNN)
    model.config = SessionKNNConfig.model_validate(dict(config))
    model.prior_N = arrays["prior_N"]
    model.postings_N1S, model.votes_SN = (_matrix(arrays, name) for name in _MATRICES)
    shapes = (model.postings_N1S.shape, model.votes_SN.shape[::-1], model.prior_N.shape)
    num_sessions = model.votes_SN.shape[0]
    if shapes != ((num_titles + 1, num_sessions), (num_titles, num_sessions), (num_titles,)):
        raise ValueError(f"session_knn: arrays have shapes {shapes}, wanted those of {num_titles} titles")
    return model


def _matrix(arrays: Mapping[str, NDArray[Any]], name: str) -> Any:
    parts = tuple(arrays[f"{name}.{part}"] for part in _PARTS)
    matrix = sparse.csr_array(parts, shape=tuple(arrays[f"{name}.shape"].tolist()))
    matrix.check_format(full_check=True)
    return matrix
