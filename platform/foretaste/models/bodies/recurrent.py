"""Recurrent networks: GRU4Rec, an LSTM, and an LSTM that reads from both ends.

Shapes: T packed tokens, D width, H width of the hidden state (of both directions together), B sequences, L places.

After Hidasi et al., Session-based Recommendations with Recurrent Neural Networks (ICLR 2016), and Hidasi and
Karatzoglou, Recurrent Neural Networks with Top-k Gains (CIKM 2018). Adapted: whole histories in place of
session-parallel batches, all features of an interaction at its input, the softmax over all titles (or shared negatives
with logQ) in place of BPR-max, and vectors of titles that are the same at the input and the output.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from foretaste.models.bodies.contract import Body, BodySettings, Classes, Encoded, Sizes
from foretaste.models.layout import Layout
from foretaste.models.sequences import Sequences


class RecurrentConfig(BodySettings):
    """A stack of GRU or LSTM layers."""

    kind: Literal["recurrent"] = "recurrent"
    cell: Literal["gru", "lstm"] = Field("gru", description="what a layer is made of")
    reads: Literal["past", "both"] = Field(
        "past", description="past: from the start on; both: from either end, titles are hidden and predicted in place"
    )
    layers: int = Field(1, ge=1, description="recurrent layers")
    expand: int = Field(1, ge=1, description="width of the hidden state of a direction, in widths of a token")

    @property
    def both_ways(self) -> bool:
        """Whether later tokens are read."""
        return self.reads == "both"

    def build(self, sizes: Sizes, classes: Classes) -> Body:
        """Make the body."""
        return Recurrent(self, sizes)


class Recurrent(nn.Module):
    """Reads tokens one after the other; no place is spent on padding."""

    def __init__(self, config: RecurrentConfig, sizes: Sizes) -> None:
        super().__init__()
        make = nn.GRU if config.cell == "gru" else nn.LSTM
        hidden = config.expand * sizes.width
        self.cells = make(
            sizes.width,
            hidden,
            num_layers=config.layers,
            dropout=sizes.dropout if config.layers > 1 else 0.0,
            bidirectional=config.both_ways,
        )
        self.dropout = nn.Dropout(sizes.dropout)
        self.to_width = nn.Linear(hidden * (2 if config.both_ways else 1), sizes.width)
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, features_TD: Tensor, tokens: Sequences) -> Encoded:
        """Encode every token with what was read before it."""
        order_T, back_T, size_L = time_major(tokens.layout)
        packed = PackedSequence(F.embedding(order_T, features_TD), size_L)
        hidden_TH = F.embedding(back_T, self.cells(packed)[0].data)
        return Encoded(self.norm(self.to_width(self.dropout(hidden_TH))))


def time_major(placed: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Order of tokens by place, at each place those of longer sequences first, as torch packs sequences.

    Returns the token at each place of that order, where each token then stands, and how many stand at each place.
    """
    offsets_B1 = torch.from_numpy(placed.offsets_B1)
    length_B = offsets_B1.diff()
    num = len(length_B)
    rank_B = torch.empty(num, dtype=torch.int64)
    rank_B[torch.argsort(length_B, descending=True, stable=True)] = torch.arange(num)
    index_T = placed.index_T.cpu()
    order_T = torch.argsort(index_T * num + torch.repeat_interleave(rank_B, length_B))
    back_T = torch.empty_like(order_T)
    back_T[order_T] = torch.arange(len(order_T))
    device = placed.index_T.device
    return order_T.to(device), back_T.to(device), torch.bincount(index_T)
