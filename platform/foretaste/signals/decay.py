"""How much an interaction weighs against later ones: the same bits on every machine, in any batch.

The exponent is cut to `STEPS` a half-life and its power of two looked up in a table that is computed exactly, so that
no mathematical library has a say; sums over weights are taken in order of the interactions, one after another.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from foretaste.signals.midnights import DAY_US

STEPS = 1024
MOST_HALVINGS = 1000  # 2 to this power is still a number, and so is a sum of many


@lru_cache(maxsize=1)
def powers() -> NDArray[np.float64]:
    """2 ** (k / STEPS) for k below STEPS, each the nearest double."""
    with localcontext() as context:
        context.prec = 40
        return np.array([float(Decimal(2) ** (Decimal(k) / STEPS)) for k in range(STEPS)])


def ticks(at_T: NDArray[np.int64], *, half_life_days: float) -> NDArray[np.int64]:
    """Steps of a half-life since 1970 at instants in microseconds."""
    return at_T * STEPS // round(half_life_days * DAY_US)


def growth(tick_T: NDArray[np.int64], first_T: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weight of each interaction relative to the member's first: later ones weigh more. Only ratios are of use.

    Another first interaction changes all weights of a member by one power of two, and no ratio by a bit.
    Raises ValueError where the two are more than MOST_HALVINGS apart.
    """
    halvings_T = tick_T // STEPS - first_T // STEPS
    if halvings_T.max(initial=0) > MOST_HALVINGS:
        raise ValueError(
            f"snapshots: a member's history spans over {MOST_HALVINGS} half-lives; raise snapshots.half_life_days"
        )
    return np.ldexp(powers()[tick_T % STEPS], halvings_T.astype(np.int32))
