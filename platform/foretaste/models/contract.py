"""What every model that scores the catalogue answers to.

Shapes: B histories, N titles of the catalogue; column j is the title with catalogue code j + 1.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.histories import Histories


class Recommender(Protocol):
    """Says how likely each title is to be chosen next; `testing.contract_recommender` asserts the rest."""

    @property
    def name(self) -> str:
        """Name in reports."""
        ...

    def scores(self, histories: Histories, asof_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Score the whole catalogue for each history: float32[B, N], finite, higher is better.

        `asof_B` (microseconds since 1970) is the instant of the question; nothing at or after it that is not in
        the history may be used. A history may be empty and may hold unknown titles (code 0). A row depends on
        its own history and instant alone.
        """
        ...
