"""Negatives that all predictions of a micro-batch share, and the part of the title table that it needs.

Shapes: T tokens, P predictions, N titles, S different negatives, X titles that a micro-batch needs, in rising order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.training.windows import MicroBatch

EVEN = 0.5
"""Share of negatives that are drawn evenly; the others are drawn as often as titles are chosen."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a micro-batch needs of the titles."""

    code_X: Tensor  # catalogue codes
    input_T: Tensor  # row of X of each token's title
    target_P: Tensor  # row of X of each target
    negative_X: Tensor  # rows of X of the negatives
    negative_S: Tensor  # catalogue codes - 1 of the negatives, rising
    log_expected_S: Tensor  # logarithm of how often each was to be drawn over how often it was


class Negatives:
    """Draws titles by how often they are chosen, half of the time evenly."""

    def __init__(self, chosen_N: NDArray[np.int64]) -> None:
        share_N = chosen_N / max(1, int(chosen_N.sum()))
        self.q_N = (1.0 - EVEN) * share_N + EVEN / len(chosen_N) if chosen_N.any() else np.full(
            len(chosen_N), 1.0 / len(chosen_N)
        )  # fmt: skip
        self.cdf_N = np.cumsum(self.q_N)

    def draw(self, batch: MicroBatch, number: int) -> Drawn:
        """Draw with torch's dice, which the training loop sets; equal ones are counted, not repeated."""
        u_S = torch.rand(number, dtype=torch.float64).numpy() * self.cdf_N[-1]
        drawn, times = np.unique(np.searchsorted(self.cdf_N, u_S, side="right"), return_counts=True)
        drawn = np.minimum(drawn, len(self.q_N) - 1)
        input_T, target_P = batch.tokens.title_T.cpu().numpy(), batch.title_P.cpu().numpy() + 1
        code_X = np.unique(np.concatenate([input_T, target_P, drawn + 1]))
        device = batch.title_P.device
        log_expected = np.log(number * self.q_N[drawn] / times).astype(np.float32)
        rows = (np.searchsorted(code_X, one) for one in (input_T, target_P, drawn + 1))
        arrays = (code_X, *rows, drawn.astype(np.int64), log_expected)
        return Drawn(*(torch.from_numpy(one).to(device) for one in arrays))
