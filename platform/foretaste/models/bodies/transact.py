"""TransAct: a Transformer over the newest actions, summed up by the newest outputs and a maximum over all.

Shapes: T packed tokens, D width, K newest outputs, B sequences; of one group: R rows, L places.

    encoder(actions) -> [output t, t - 1, ... t - K + 1, maximum over outputs up to t] -> MLP -> state t

After Xia et al., TransAct: Transformer-based Realtime User Action Model for Recommendation at Pinterest (KDD 2023).
There it scores one candidate at a time, which is joined to every action before the encoder (early fusion), and stands
beside a batch-made embedding of the member in a ranking network. Here it predicts the next title over the whole
catalogue at every place of a history, as all models here do, so:
- no early fusion: the candidate meets the state in a product alone, and the MLP takes the place of the ranking network;
- the encoder is causal, and the maximum runs over what was done so far;
- actions carry the features that all models here read: kind of action, time gaps, hour, how far a title was played;
- the random time window mask hides, in training, what was done within a random time before the request: since the
  encoder is causal, that is to take the state as it was before the window. Pinterest draws the window from a day for
  every example; here `mask_share` of the sequences get one of up to `mask_hours`.
The newest 100 actions are read: `max_length` of the whole model.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from foretaste.models.bodies.contract import Body, BodySettings, Classes, Encoded, Sizes
from foretaste.models.bodies.positions import LearnedPositions
from foretaste.models.dropout import Dropout
from foretaste.models.encoder import Block
from foretaste.models.layout import Layout
from foretaste.models.sequences import Sequences

FAR_MINUTES = 1e9
"""More than any two instants are apart: keeps sequences apart on one axis of time."""


class TransActConfig(BodySettings):
    """The encoder, how it is summed up, and what is hidden from it in training."""

    kind: Literal["transact"] = "transact"
    blocks: int = Field(2, ge=1, description="Transformer blocks")
    newest: int = Field(10, ge=1, description="newest outputs that are read one by one")
    positions: Literal["none", "learned", "rotary"] = Field(
        "none", description="none: as published; learned: a vector for each place; rotary: attention knows distances"
    )
    mask_share: float = Field(0.1, ge=0, le=1, description="share of sequences whose newest actions training hides")
    mask_hours: float = Field(24.0, gt=0, description="longest time before a request that is hidden, in hours")

    def build(self, sizes: Sizes, classes: Classes) -> Body:
        """Make the body."""
        return TransAct(self, sizes)


class TransAct(nn.Module):
    """Encode, sum up, and in training forget the newest now and then."""

    def __init__(self, config: TransActConfig, sizes: Sizes) -> None:
        super().__init__()
        self.config = config
        width = sizes.width
        rotary = config.positions == "rotary"
        self.positions = LearnedPositions(sizes) if config.positions == "learned" else None
        self.blocks = nn.ModuleList(
            Block(width, sizes.num_attention_heads, sizes.feedforward, sizes.dropout, rotary=rotary)
            for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear((config.newest + 1) * width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        self.dropout = Dropout(sizes.dropout)
        self.last_norm = nn.LayerNorm(width)

    def forward(self, features_TD: Tensor, tokens: Sequences) -> Encoded:
        """Encode every token with those before it."""
        placed = tokens.layout
        x_TD = features_TD if self.positions is None else self.positions(features_TD, placed)
        for block in self.blocks:
            x_TD = block(x_TD, placed)
        state_TD = self._sum_up(self.norm(x_TD), placed)
        if self.training and self.config.mask_share > 0:
            state_TD = F.embedding(self._remembered(tokens), state_TD)
        return Encoded(state_TD)

    def _sum_up(self, output_TD: Tensor, placed: Layout) -> Tensor:
        most_TD = placed.each(output_TD, lambda padded_RLD, _: padded_RLD.cummax(dim=1).values)
        read_TX = torch.cat([*newest(output_TD, placed, self.config.newest), most_TD], dim=1)
        state_TD: Tensor = self.last_norm(self.down(self.dropout(F.gelu(self.up(read_TX)))))
        return state_TD

    def _remembered(self, tokens: Sequences) -> Tensor:
        """Newest token of each one's sequence that a window drawn for the sequence does not hide."""
        length_B = torch.from_numpy(tokens.layout.offsets_B1).diff()
        drawn_B = torch.rand(len(length_B), dtype=torch.float64) * self.config.mask_hours * 60.0
        drawn_B = torch.where(torch.rand(len(length_B)) < self.config.mask_share, drawn_B, -1.0)
        window_T = torch.repeat_interleave(drawn_B, length_B).to(tokens.now_T.device)
        return before(tokens, window_T)


def newest(x_TD: Tensor, placed: Layout, number: int) -> list[Tensor]:
    """What each token and the ones 1, 2, ... before it hold; zeros where its sequence had not begun."""
    shifted = [x_TD]
    for back in range(1, number):
        real_T1 = (placed.index_T >= back)[:, None]
        shifted.append(F.pad(x_TD[: max(0, len(x_TD) - back)], (0, 0, min(back, len(x_TD)), 0)) * real_T1)
    return shifted


def before(tokens: Sequences, window_T: Tensor) -> Tensor:
    """Index of the newest token that is at least so many minutes old when a token's next is asked for.

    The start token is always old enough; a negative window hides nothing.
    """
    placed = tokens.layout
    length_B = torch.from_numpy(placed.offsets_B1).diff()
    sequence_T = torch.repeat_interleave(torch.arange(len(length_B)), length_B).to(window_T.device)
    base = tokens.minute_T.min()
    axis_T = sequence_T * FAR_MINUTES + (tokens.minute_T - base)
    until_T = sequence_T * FAR_MINUTES + (tokens.now_T - base - window_T).clamp(min=-1.0)
    own_T = torch.arange(len(axis_T), device=axis_T.device)
    found_T = torch.searchsorted(axis_T, until_T, side="right") - 1
    found_T = torch.minimum(torch.maximum(found_T, own_T - placed.index_T), own_T)
    return torch.where(window_T < 0, own_T, found_T)
