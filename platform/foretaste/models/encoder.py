"""A causal Transformer over right-padded sequences.

Shapes: B sequences, L tokens, D width, H attention heads, E = D / H.
Because padding stands on the right and attention looks left, no mask is needed: a token never sees padding.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


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

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Mix each token with those before it."""
        x_BLD = x_BLD + self.dropout(self._attend(self.before_attention(x_BLD)))
        hidden_BLF = F.gelu(self.up(self.before_feedforward(x_BLD)))
        added_BLD: Tensor = x_BLD + self.dropout(self.down(self.dropout(hidden_BLF)))
        return added_BLD

    def _attend(self, x_BLD: Tensor) -> Tensor:
        B, L, D = x_BLD.shape
        qkv_BL3HE = self.to_qkv(x_BLD).view(B, L, 3, self.num_heads, D // self.num_heads)
        query_BHLE, key_BHLE, value_BHLE = qkv_BL3HE.permute(2, 0, 3, 1, 4)
        mixed_BHLE = F.scaled_dot_product_attention(query_BHLE, key_BHLE, value_BHLE, is_causal=True)
        mixed_BLD: Tensor = self.from_heads(mixed_BHLE.transpose(1, 2).reshape(B, L, D))
        return mixed_BLD


class CausalEncoder(nn.Module):
    """A stack of blocks with a norm at its end; output t depends on inputs up to t alone."""

    def __init__(self, *, width: int, num_blocks: int, num_heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, num_heads, feedforward, dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Encode every token with those before it."""
        for block in self.blocks:
            x_BLD = block(x_BLD)
        encoded_BLD: Tensor = self.norm(x_BLD)
        return encoded_BLD
