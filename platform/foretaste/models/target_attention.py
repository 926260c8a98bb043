"""Each candidate looks at what the member did: the session that is going on, and what was before it.

Keys and values are the intent model's title vectors, which stay as they are, with what is known of each interaction.
Nothing to look at is an input of its own: beside the interactions there always is a learned «nothing here», which takes
all the attention of an empty set and its share where nothing fits.

Shapes: B requests, C candidates, L recent interactions, D width of title vectors, A numbers of an interaction, S sets
of interactions, each with weights of its own, E width of attention.

After Zhou et al., Deep Interest Network, KDD 2018, and Xia et al., TransAct, KDD 2023.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from foretaste.contracts.events import ACTIONS

SETS = 2
"""The session that is going on, and what was before it."""


class TargetAttention(nn.Module):
    """Attention of candidates over sets of interactions, all of them at once."""

    def __init__(self, width: int, num_about: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.to_query = nn.Linear(width, SETS * size, bias=False)
        self.to_pair = nn.Linear(width, 2 * SETS * size, bias=False)
        self.about = nn.Linear(num_about, 2 * SETS * size)
        self.action = nn.Embedding(len(ACTIONS) + 1, 2 * SETS * size)
        self.nothing = nn.Parameter(torch.randn(2 * SETS * size) * 0.1)
        nn.init.normal_(self.action.weight, std=0.1)

    def forward(
        self, candidate_BCD: Tensor, title_BLD: Tensor, action_BL: Tensor, about_BLA: Tensor, among_BSL: Tensor
    ) -> Tensor:
        """What each candidate sees, and that times what it looks for: [B, C, 2 x S x E].

        `among_BSL` says which interactions are in which set.
        """
        size, length = action_BL.shape
        query_BCSE = self.to_query(candidate_BCD).view(size, -1, SETS, self.size)
        pair_BLX = self.to_pair(title_BLD) + self.about(about_BLA) + self.action(action_BL)
        pair_BLX = torch.cat([self.nothing.expand(size, 1, -1), pair_BLX], dim=1)
        key_SBLE, value_SBLE = pair_BLX.view(size, length + 1, 2, SETS, self.size).permute(2, 0, 3, 1, 4)
        open_BSL = torch.cat([among_BSL.new_ones(size, SETS, 1), among_BSL], dim=2)
        agreement_BSCL = query_BCSE.transpose(1, 2) @ key_SBLE.transpose(2, 3) * (1.0 / math.sqrt(self.size))
        agreement_BSCL = agreement_BSCL.masked_fill(~open_BSL[:, :, None, :], float("-inf"))
        seen_BCSE = (torch.softmax(agreement_BSCL, dim=-1) @ value_SBLE).transpose(1, 2)
        return torch.cat([seen_BCSE, seen_BCSE * query_BCSE], dim=-1).flatten(2)
