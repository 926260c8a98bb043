"""A causal Transformer over packed sequences.

Shapes: T tokens, D width, H attention heads, E = D / H (even), R = E / 2; of one group: R rows, L places.
Attention knows how far back a token is, not at which place it stands (rotary positions, Su et al. 2021): few histories
are long, so a place far from the start would hardly be trained.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foretaste.models.dropout import Dropout
from foretaste.models.layout import Group, Layout

LONGEST_WAVE = 1_000.0
"""Tokens over which the slowest pair of a head's numbers turns by one radian."""
Bias = Callable[[Group], Tensor]
"""What is added to a group's attention logits; float[R or 1, H or 1, L, L], -inf where a token is not to be seen."""


def turns(index_T: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angles by which a head's `size` numbers turn at each token; both [T, 1, R]."""
    rate_R = LONGEST_WAVE ** (-torch.arange(size // 2, device=index_T.device) / (size // 2))
    angle_T1R = (index_T[:, None] * rate_R)[:, None]
    return angle_T1R.cos(), angle_T1R.sin()


def rotate(x_THE: Tensor, cos_T1R: Tensor, sin_T1R: Tensor) -> Tensor:
    """Turn pairs of numbers by their place, so that products of two depend on their distance alone."""
    a_THR, b_THR = x_THE.chunk(2, dim=-1)
    return torch.cat([a_THR * cos_T1R - b_THR * sin_T1R, b_THR * cos_T1R + a_THR * sin_T1R], dim=-1)


def attend(
    query_THE: Tensor, key_THE: Tensor, value_THE: Tensor, placed: Layout, *, bias: Bias | None = None
) -> Tensor:  # fmt: skip
    """Mix the values that every token sees: those up to itself, or what `bias` lets it see; [T, H, E]."""
    packed_T3HE = torch.stack([query_THE, key_THE, value_THE], dim=1)

    def of_group(padded_RL3HE: Tensor, group: Group) -> Tensor:
        query, key, value = padded_RL3HE.permute(2, 0, 3, 1, 4)
        mask = None if bias is None else bias(group)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
        return mixed.transpose(1, 2)

    return placed.each(packed_T3HE, of_group)


class Block(nn.Module):
    """Pre-norm self-attention and feed-forward, each added to its input."""

    def __init__(self, width: int, num_heads: int, feedforward: int, dropout: float, *, rotary: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.rotary = rotary
        self.before_attention = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.from_heads = nn.Linear(width, width, bias=False)
        self.before_feedforward = nn.LayerNorm(width)
        self.up = nn.Linear(width, feedforward)
        self.down = nn.Linear(feedforward, width)
        self.dropout = Dropout(dropout)

    def forward(self, x_TD: Tensor, placed: Layout, bias: Bias | None = None) -> Tensor:
        """Mix each token with those that it sees."""
        x_TD = x_TD + self.dropout(self._attend(self.before_attention(x_TD), placed, bias))
        hidden_TF = F.gelu(self.up(self.before_feedforward(x_TD)))
        added_TD: Tensor = x_TD + self.dropout(self.down(self.dropout(hidden_TF)))
        return added_TD

    def _attend(self, x_TD: Tensor, placed: Layout, bias: Bias | None) -> Tensor:
        query_THE, key_THE, value_THE = self.to_qkv(x_TD).unflatten(1, (3, self.num_heads, -1)).unbind(1)
        if self.rotary:
            cos_T1R, sin_T1R = turns(placed.index_T, query_THE.shape[-1])
            query_THE, key_THE = rotate(query_THE, cos_T1R, sin_T1R), rotate(key_THE, cos_T1R, sin_T1R)
        mixed_TD: Tensor = self.from_heads(attend(query_THE, key_THE, value_THE, placed, bias=bias).flatten(1))
        return mixed_TD


class CausalEncoder(nn.Module):
    """A stack of blocks with a norm at its end; output t depends on inputs up to t alone."""

    def __init__(self, *, width: int, num_blocks: int, num_heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, num_heads, feedforward, dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, x_TD: Tensor, placed: Layout, bias: Bias | None = None) -> Tensor:
        """Encode every token with those before it."""
        for block in self.blocks:
            x_TD = block(x_TD, placed, bias)
        encoded_TD: Tensor = self.norm(x_TD)
        return encoded_TD
