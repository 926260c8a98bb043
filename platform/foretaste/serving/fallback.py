"""The list for when there is no model, or it failed: what was played most.

Shapes: N titles (column j is catalogue code j + 1), N1 rows by catalogue code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.signals.views import TitleView


def popularity(titles: TitleView, catalogue: Catalogue) -> NDArray[np.float32]:
    """Rank all titles by plays of the last 7 days, then of all time, then release; 1 for the first down to above 0.

    Equal ones keep the order of the catalogue. Where no plays are known the newest come first. Returns float32[N].
    """
    keys = (catalogue.released_N1[1:], titles.plays_all[1:], titles.plays_7d[1:])
    order_N = np.lexsort([np.arange(len(catalogue)), *(-key.astype(np.float64) for key in keys)])
    scores_N = np.empty(len(catalogue), dtype=np.float32)
    scores_N[order_N] = 1.0 - np.arange(len(catalogue)) / max(1, len(catalogue))
    return scores_N
