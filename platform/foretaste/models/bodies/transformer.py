"""Plain Transformers: over all features, over ids alone (SASRec), and both ways (BERT4Rec).

Shapes: T packed tokens, D width; of one group: R rows, L places.

After Kang and McAuley, Self-Attentive Sequential Recommendation (ICDM 2018), and Sun et al., BERT4Rec (CIKM 2019), in
the form that reproductions found best: cross-entropy over all titles in place of one sampled negative (Klenitskiy and
Vasilev, RecSys 2023; Petrov and Macdonald, RecSys 2023), and norms before attention and feed-forward. Adapted further:
packed sequences whose places are counted from their start, GELU in the feed-forward, and one vector a title for input
and output with a bias.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foretaste.models.bodies.contract import Body, BodySettings, Classes, Encoded, Sizes
from foretaste.models.bodies.positions import LearnedPositions
from foretaste.models.encoder import Bias, Block
from foretaste.models.layout import Group, Layout
from foretaste.models.sequences import Sequences


class TransformerConfig(BodySettings):
    """A stack of self-attention blocks."""

    kind: Literal["transformer"] = "transformer"
    blocks: int = Field(2, ge=1, description="Transformer blocks")
    positions: Literal["learned", "rotary"] = Field(
        "learned", description="learned: a vector for each place; rotary: attention knows distances alone"
    )
    reads: Literal["past", "both"] = Field(
        "past", description="past: a token sees those up to itself; both: all, titles are hidden and predicted in place"
    )

    @property
    def both_ways(self) -> bool:
        """Whether later tokens are read."""
        return self.reads == "both"

    def build(self, sizes: Sizes, classes: Classes) -> Body:
        """Make the body."""
        return Transformer(self, sizes)


class Transformer(nn.Module):
    """Positions, blocks, and a norm at the end."""

    def __init__(self, config: TransformerConfig, sizes: Sizes) -> None:
        super().__init__()
        self.both_ways = config.both_ways
        rotary = config.positions == "rotary"
        self.positions = None if rotary else LearnedPositions(sizes)
        self.blocks = nn.ModuleList(
            Block(sizes.width, sizes.num_attention_heads, sizes.feedforward, sizes.dropout, rotary=rotary)
            for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, features_TD: Tensor, tokens: Sequences) -> Encoded:
        """Encode every token with those that it sees."""
        placed = tokens.layout
        x_TD = features_TD if self.positions is None else self.positions(features_TD, placed)
        bias = everywhere(placed) if self.both_ways else None
        for block in self.blocks:
            x_TD = block(x_TD, placed, bias)
        return Encoded(self.norm(x_TD))


def everywhere(placed: Layout) -> Bias:
    """Let every token see all of its sequence, and no padding."""

    def bias(group: Group) -> Tensor:
        real_RL = placed.real(group)
        return torch.zeros(real_RL.shape, device=real_RL.device).masked_fill(~real_RL, float("-inf"))[:, None, None]

    return bias
