"""A causal Transformer over packed sequences.

Shapes: T tokens, D width, H attention heads, E = D / H (even), R = E / 2; of one group: R rows, L places.
Attention knows how far back a token is, not at which place it stands (rotary positions, Su et al. 2021): few histories
are long, so a place far from the start would hardly be trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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


def rotate(x_TXE: Tensor, cos_T1R: Tensor, sin_T1R: Tensor) -> Tensor:
    """Turn pairs of numbers by their place, so that products of two depend on their distance alone."""
    if torch.compiler.is_compiling():  # which fuses these by itself
        a_TXR, b_TXR = x_TXE.chunk(2, dim=-1)
        return torch.cat([a_TXR * cos_T1R - b_TXR * sin_T1R, b_TXR * cos_T1R + a_TXR * sin_T1R], dim=-1)
    turned_TXE: Tensor = _Rotate.apply(x_TXE, cos_T1R, sin_T1R)  # type: ignore[no-untyped-call]
    return turned_TXE


class _Rotate(torch.autograd.Function):
    """Turns; its gradient turns back, and nothing but the angles is kept for that."""

    @staticmethod
    def forward(ctx: Any, x_TXE: Tensor, cos_T1R: Tensor, sin_T1R: Tensor) -> Tensor:
        ctx.save_for_backward(cos_T1R, sin_T1R)
        return _turned(x_TXE, cos_T1R, sin_T1R)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad_TXE,) = grads
        cos_T1R, sin_T1R = ctx.saved_tensors
        return _turned(grad_TXE, cos_T1R, -sin_T1R), None, None


def _turned(x_TXE: Tensor, cos_T1R: Tensor, sin_T1R: Tensor) -> Tensor:
    (a_TXR, b_TXR), made_TXE = x_TXE.chunk(2, dim=-1), torch.empty_like(x_TXE)
    c_TXR, d_TXR = made_TXE.chunk(2, dim=-1)
    torch.mul(a_TXR, cos_T1R, out=c_TXR).addcmul_(b_TXR, sin_T1R, value=-1)
    torch.mul(b_TXR, cos_T1R, out=d_TXR).addcmul_(a_TXR, sin_T1R)
    return made_TXE


def attend(qkv_T3HE: Tensor, placed: Layout, *, bias: Bias | None = None) -> Tensor:
    """Mix the values that every token sees: those up to itself, or what `bias` lets it see; [T, H, E].

    `qkv_T3HE` holds the queries, the keys and the values.
    """

    def of_group(padded_RL3HE: Tensor, group: Group) -> Tensor:
        query, key, value = padded_RL3HE.permute(2, 0, 3, 1, 4)
        mask = None if bias is None else bias(group)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
        return mixed.transpose(1, 2)

    return placed.each(qkv_T3HE, of_group)


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
        qkv_T3HE = self.to_qkv(x_TD).unflatten(1, (3, self.num_heads, -1))
        if self.rotary:
            cos_T1R, sin_T1R = turns(placed.index_T, qkv_T3HE.shape[-1])
            one_T1R, zero_T1R = torch.ones_like(cos_T1R), torch.zeros_like(sin_T1R)
            cos_T31R = torch.stack([cos_T1R, cos_T1R, one_T1R], dim=1)  # values stay as they are
            sin_T31R = torch.stack([sin_T1R, sin_T1R, zero_T1R], dim=1)
            qkv_T3HE = rotate(qkv_T3HE, cos_T31R, sin_T31R)
        mixed_TD: Tensor = self.from_heads(attend(qkv_T3HE, placed, bias=bias).flatten(1))
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
