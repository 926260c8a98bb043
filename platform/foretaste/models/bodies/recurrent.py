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

from foretaste.models.bodies.contract import Body, BodySettings, Classes, Encoded, Sizes
from foretaste.models.dropout import Dropout
from foretaste.models.layout import Layout
from foretaste.models.sequences import Sequences


class RecurrentConfig(BodySettings):
    """A stack of GRU or LSTM layers."""

    kind: Literal["recurrent"] = "recurrent"
    cell: Literal["gru", "lstm"] = Field("gru", description="what a layer is made of")
    reads: Literal["past", "both"] = Field(
        "past", description="past: from the start on; both: from either end, titles are hidden and predicted in place"
    )
    layers: int = Field(2, ge=1, description="recurrent layers")
    expand: int = Field(1, ge=1, description="width of the hidden state of a direction, in widths of a token")

    @property
    def both_ways(self) -> bool:
        """Whether later tokens are read."""
        return self.reads == "both"

    @property
    def steady(self) -> bool:
        """No: the library's cells round by the batch."""
        return False

    def build(self, sizes: Sizes, classes: Classes) -> Body:
        """Make the body."""
        return Recurrent(self, sizes)


class Recurrent(nn.Module):
    """Reads tokens one after the other, and in a second pass from the end where it reads both ways."""

    def __init__(self, config: RecurrentConfig, sizes: Sizes) -> None:
        super().__init__()
        make = nn.GRU if config.cell == "gru" else nn.LSTM
        hidden, passes = config.expand * sizes.width, 2 if config.both_ways else 1
        inputs = [sizes.width] + [passes * hidden] * (config.layers - 1)
        self.forwards = nn.ModuleList(make(width, hidden, batch_first=True) for width in inputs)
        back = inputs if config.both_ways else []
        self.backwards = nn.ModuleList(make(width, hidden, batch_first=True) for width in back)
        self.dropout = Dropout(sizes.dropout)
        self.to_width = nn.Linear(passes * hidden, sizes.width)
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, features_TD: Tensor, tokens: Sequences) -> Encoded:
        """Encode every token with what was read before it."""
        placed, hidden_TH = tokens.layout, features_TD
        turned_T = turned(placed)
        for layer, cells in enumerate(self.forwards):
            read_TH = _read(cells, hidden_TH, placed)
            if len(self.backwards):
                back_TH = _read(self.backwards[layer], F.embedding(turned_T, hidden_TH), placed)
                read_TH = torch.cat([read_TH, F.embedding(turned_T, back_TH)], dim=1)
            hidden_TH = self.dropout(read_TH)
        return Encoded(self.norm(self.to_width(hidden_TH)))


def _read(cells: nn.Module, x_TD: Tensor, placed: Layout) -> Tensor:
    """States of each token; padding stands behind what is read, so that it changes nothing.

    Not as torch's packed sequences, whose gradient takes time by the square of the length.
    """
    return placed.each(x_TD, lambda padded_RLD, _: cells(padded_RLD)[0])


def turned(placed: Layout) -> Tensor:
    """Token at each one's place when every sequence is read from its end; its own inverse."""
    length_B = torch.from_numpy(placed.offsets_B1).diff()
    length_T = torch.repeat_interleave(length_B, length_B).to(placed.index_T.device)
    own_T = torch.arange(len(length_T), device=length_T.device)
    return own_T - 2 * placed.index_T + length_T - 1
