"""Where a token stands in its sequence, as a vector that is learned; counted from the newest.

The sources fill sequences up in front, so that the newest token always stands at the same place: what a token is in a
window of training then depends on how many come after it, and on nothing else of them.

Shapes: T packed tokens, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from foretaste.models.bodies.contract import Sizes
from foretaste.models.layout import Layout


class LearnedPositions(nn.Module):
    """One vector for each place, counted from the newest token (Kang & McAuley 2018)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.vectors = nn.Embedding(longest(sizes), sizes.width)
        nn.init.normal_(self.vectors.weight, std=0.1)

    def forward(self, x_TD: Tensor, placed: Layout) -> Tensor:
        """Add to each token the vector of its place."""
        placed_TD: Tensor = x_TD + self.vectors(placed.back_T)
        return placed_TD


def longest(sizes: Sizes) -> int:
    """Most tokens of a sequence: the start, the interactions and what is asked for."""
    return sizes.max_length + 2
