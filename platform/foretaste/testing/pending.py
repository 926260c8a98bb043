"""Small made-up decisions whose final feedback comes late."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from foretaste.models.delayed_rows import Pending


def random_pending(
    size: int,
    *,
    seed: int,
    columns: int = 3,
    signals: int = 2,
    marks: int = 4,
    oldest: float = 20.0,
    rate: float = 0.1,
    strength: float = 1.0,
    horizon: float = 14.0,
) -> Pending:
    """Decisions of any age whose feedback comes at a rate a day that the first column of the context moves."""
    rng = np.random.default_rng(seed)
    context_NF = rng.normal(size=(size, columns)).astype(np.float32)
    delay_N = rng.exponential(1.0 / (rate * np.exp(strength * context_NF[:, 0].astype(np.float64)))).astype(np.float32)
    age_N = (oldest * rng.random(size)).astype(np.float32)
    mark_NL = np.sort(horizon * rng.random((size, marks)), axis=1).astype(np.float32)
    mark_NL[:, 0] = 0.0
    return Pending(
        context_NF,
        rng.integers(0, 5, size),
        age_N,
        np.where(delay_N <= np.minimum(age_N, horizon), delay_N, np.float32(np.inf)),
        rng.random((size, signals)).astype(np.float32),
        mark_NL,
        rng.random((size, marks, signals)).astype(np.float32),
        (delay_N <= horizon).astype(np.float32),
    )


def hidden(final_N: NDArray[np.float32], pending: Pending) -> Pending:
    """The same decisions with other final labels."""
    return replace(pending, final_N=final_N)
