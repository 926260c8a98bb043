"""Each candidate looks at what the member did: the session that is going on, and what was before it.

Keys and values are the intent model's title vectors, which stay as they are, with what is known of each interaction.
Nothing to look at is an input of its own: beside the interactions there always is a learned «nothing here», which takes
all the attention of an empty set and its share where nothing fits.

Shapes: B requests, C candidates, L recent interactions, D width of title vectors, A numbers of an interaction, E width
of attention.

After Zhou et al., Deep Interest Network, KDD 2018, and Xia et al., TransAct, KDD 2023.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from foretaste.contracts.events import ACTIONS


class TargetAttention(nn.Module):
    """Attention of candidates over one set of interactions."""

    def __init__(self, width: int, num_about: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.to_query = nn.Linear(width, size, bias=False)
        self.to_key = nn.Linear(width, size, bias=False)
        self.to_value = nn.Linear(width, size, bias=False)
        self.about = nn.Linear(num_about, 2 * size)
        self.action = nn.Embedding(len(ACTIONS) + 1, 2 * size)
        self.nothing_key = nn.Parameter(torch.zeros(size))
        self.nothing_value = nn.Parameter(torch.randn(size) * 0.1)
        nn.init.normal_(self.action.weight, std=0.1)

    def forward(
        self, candidate_BCD: Tensor, title_BLD: Tensor, action_BL: Tensor, about_BLA: Tensor, real_BL: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attended values and the candidates' queries, each [B, C, E]; what is not `real_BL` is not looked at."""
        query_BCE = self.to_query(candidate_BCD)
        known_BLE, said_BLE = (self.about(about_BLA) + self.action(action_BL)).chunk(2, dim=-1)
        size = title_BLD.shape[0]
        key_BLE = torch.cat([self.nothing_key.expand(size, 1, -1), self.to_key(title_BLD) + known_BLE], dim=1)
        value_BLE = torch.cat([self.nothing_value.expand(size, 1, -1), self.to_value(title_BLD) + said_BLE], dim=1)
        agreement_BCL = torch.bmm(query_BCE, key_BLE.transpose(1, 2)) * (1.0 / math.sqrt(self.size))
        open_BL = torch.cat([real_BL.new_ones(size, 1), real_BL], dim=1)
        agreement_BCL = agreement_BCL.masked_fill(~open_BL[:, None, :], float("-inf"))
        return torch.bmm(torch.softmax(agreement_BCL, dim=-1), value_BLE), query_BCE
