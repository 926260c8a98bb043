"""A causal Transformer over right-padded sequences.

Shapes: B sequences, L tokens, D width, H attention heads, E = D / H (even), R = E / 2.
Because padding stands on the right and attention looks left, no mask is needed: a token never sees padding.
Attention knows how far back a token is, not at which place it stands (rotary positions, Su et al. 2021): few histories
are long, so a place far from the start would hardly be trained.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LONGEST_WAVE = 1_000.0
"""Tokens over which the slowest pair of a head's numbers turns by one radian."""


def turns(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angles by which a head's `size` numbers turn at each place; both [L, R]."""
    rate_R = LONGEST_WAVE ** (-torch.arange(size // 2, device=device) / (size // 2))
    angle_LR = torch.arange(length, device=device)[:, None] * rate_R
    return angle_LR.cos(), angle_LR.sin()


def rotate(x_BHLE: Tensor, cos_LR: Tensor, sin_LR: Tensor) -> Tensor:
    """Turn pairs of numbers by their place, so that products of two depend on their distance alone."""
    a_BHLR, b_BHLR = x_BHLE.chunk(2, dim=-1)
    return torch.cat([a_BHLR * cos_LR - b_BHLR * sin_LR, b_BHLR * cos_LR + a_BHLR * sin_LR], dim=-1)


class Block(nn.Module):
    """Pre-norm self-attention and feed-forward, each added to its input."""

    def __init__(self, width: int, num_heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.before_attention = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.from_heads = nn.Linear(width, width, bias=False)
        self.before_feedforward = nn.LayerNorm(width)
        self.up = nn.Linear(width, feedforward)
        self.down = nn.Linear(feedforward, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, cos_LR: Tensor, sin_LR: Tensor) -> Tensor:
        """Mix each token with those before it."""
        x_BLD = x_BLD + self.dropout(self._attend(self.before_attention(x_BLD), cos_LR, sin_LR))
        hidden_BLF = F.gelu(self.up(self.before_feedforward(x_BLD)))
        added_BLD: Tensor = x_BLD + self.dropout(self.down(self.dropout(hidden_BLF)))
        return added_BLD

    def _attend(self, x_BLD: Tensor, cos_LR: Tensor, sin_LR: Tensor) -> Tensor:
        B, L, D = x_BLD.shape
        qkv_BL3HE = self.to_qkv(x_BLD).view(B, L, 3, self.num_heads, D // self.num_heads)
        query_BHLE, key_BHLE, value_BHLE = qkv_BL3HE.permute(2, 0, 3, 1, 4)
        query_BHLE, key_BHLE = rotate(query_BHLE, cos_LR, sin_LR), rotate(key_BHLE, cos_LR, sin_LR)
        mixed_BHLE = F.scaled_dot_product_attention(query_BHLE, key_BHLE, value_BHLE, is_causal=True)
        mixed_BLD: Tensor = self.from_heads(mixed_BHLE.transpose(1, 2).reshape(B, L, D))
        return mixed_BLD


class CausalEncoder(nn.Module):
    """A stack of blocks with a norm at its end; output t depends on inputs up to t alone."""

    def __init__(self, *, width: int, num_blocks: int, num_heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.head_size = width // num_heads
        self.blocks = nn.ModuleList(Block(width, num_heads, feedforward, dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Encode every token with those before it."""
        cos_LR, sin_LR = turns(x_BLD.shape[1], self.head_size, x_BLD.device)
        for block in self.blocks:
            x_BLD = block(x_BLD, cos_LR, sin_LR)
        encoded_BLD: Tensor = self.norm(x_BLD)
        return encoded_BLD
