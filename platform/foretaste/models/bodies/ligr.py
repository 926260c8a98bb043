"""Gated residual Transformer layers over ids: eSASRec-style.

Shapes: T packed tokens, D width, F width of the feed-forward, H attention heads.

After Tikhonovich et al., eSASRec: Enhancing Transformer-based Recommendations in a Modular Fashion (RecSys 2025): the
shifted sequences of SASRec, layers of LiGR (Borisyuk et al., From Features to Transformers, LinkedIn 2025), and a
softmax over sampled negatives, evenly and by popularity, with logQ correction; the latter is the configuration of
the whole model (full_softmax_titles, num_negatives). Adapted: negatives are shared by the predictions of a micro-batch.
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
from foretaste.models.encoder import attend
from foretaste.models.layout import Layout
from foretaste.models.sequences import Sequences


class LigrConfig(BodySettings):
    """A stack of LiGR layers."""

    kind: Literal["ligr"] = "ligr"
    blocks: int = Field(2, ge=1, description="LiGR layers")

    def build(self, sizes: Sizes, classes: Classes) -> Body:
        """Make the body."""
        return Ligr(self, sizes)


class SwiGLU(nn.Module):
    """A feed-forward layer, one half of which gates the other (Shazeer 2020)."""

    def __init__(self, width: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * feedforward, bias=False)
        self.down = nn.Linear(feedforward, width, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, x_TD: Tensor) -> Tensor:
        """Transform each token."""
        gate_TF, value_TF = self.up(x_TD).chunk(2, dim=-1)
        made_TD: Tensor = self.down(self.dropout(F.silu(gate_TF) * value_TF))
        return made_TD


class LigrLayer(nn.Module):
    """x + sigmoid(W x) * f(norm(x)), once with attention as f and once with SwiGLU."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.num_heads = sizes.num_attention_heads
        self.before_attention = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.from_heads = nn.Linear(width, width)
        self.attention_gate = nn.Linear(width, width)
        self.before_feedforward = nn.LayerNorm(width)
        self.feedforward = SwiGLU(width, sizes.feedforward, sizes.dropout)
        self.feedforward_gate = nn.Linear(width, width)
        self.dropout = Dropout(sizes.dropout)

    def forward(self, x_TD: Tensor, placed: Layout) -> Tensor:
        """Mix each token with those before it."""
        attended_TD = self.dropout(self._attend(self.before_attention(x_TD), placed))
        x_TD = x_TD + torch.sigmoid(self.attention_gate(x_TD)) * attended_TD
        made_TD = self.dropout(self.feedforward(self.before_feedforward(x_TD)))
        mixed_TD: Tensor = x_TD + torch.sigmoid(self.feedforward_gate(x_TD)) * made_TD
        return mixed_TD

    def _attend(self, x_TD: Tensor, placed: Layout) -> Tensor:
        qkv_T3HE = self.to_qkv(x_TD).unflatten(1, (3, self.num_heads, -1))
        mixed_TD: Tensor = self.from_heads(attend(qkv_T3HE, placed).flatten(1))
        return mixed_TD


class Ligr(nn.Module):
    """Positions, LiGR layers, and a norm at the end."""

    def __init__(self, config: LigrConfig, sizes: Sizes) -> None:
        super().__init__()
        self.positions = LearnedPositions(sizes)
        self.layers = nn.ModuleList(LigrLayer(sizes) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, features_TD: Tensor, tokens: Sequences) -> Encoded:
        """Encode every token with those before it."""
        x_TD = self.positions(features_TD, tokens.layout)
        for layer in self.layers:
            x_TD = layer(x_TD, tokens.layout)
        return Encoded(self.norm(x_TD))
