"""An HSTU-style encoder over ids and time: pointwise attention with a bias for distance and for elapsed time.

Shapes: T packed tokens, D width, H attention heads, E = D / H, C classes of elapsed time; of one group: R rows, L
places.

    u, v, q, k = SiLU(W norm(x));  x + W' (norm(sum over keys of SiLU(q k + position + time) v) * u)

After Zhai et al., Actions Speak Louder than Words (ICML 2024), as published for single-action logs: ids, learned places
and, in every layer, one bias a distance and one a logarithmic class of the time from the key to what is to be
predicted. Adapted: where the time of the request is not to be known, that time ends at the query's own interaction;
sums are divided by the number of keys, not by the longest length (the norm that follows undoes either); no
L2-normalised output, but the softmax that all models here share.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from foretaste.models.bodies.contract import Body, BodySettings, Classes, Encoded, Sizes
from foretaste.models.bodies.positions import LearnedPositions, longest
from foretaste.models.dropout import Dropout
from foretaste.models.layout import Group, Layout
from foretaste.models.sequences import Sequences

NUM_TIMES = 80
"""Classes of elapsed time: floor(ln(seconds) / 0.301), as published; the last begins after 670 years."""
STEP = 0.301


class HstuConfig(BodySettings):
    """A stack of HSTU layers."""

    kind: Literal["hstu"] = "hstu"
    blocks: int = Field(2, ge=1, description="HSTU layers")

    @property
    def steady(self) -> bool:
        """No: times are counted from the oldest of the batch."""
        return False

    def build(self, sizes: Sizes, classes: Classes) -> Body:
        """Make the body."""
        return Hstu(self, sizes)


class _Lookup(torch.autograd.Function):
    """Values of a small table at many places; counting them up by class is the cheap way to its gradient."""

    @staticmethod
    def forward(ctx: Any, table_C: Tensor, class_X: Tensor) -> Tensor:
        ctx.save_for_backward(class_X)
        ctx.size = len(table_C)
        return table_C.index_select(0, class_X.flatten()).view(class_X.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (class_X,) = ctx.saved_tensors
        (grad_X,) = grads
        counted_C = torch.bincount(class_X.flatten(), weights=grad_X.flatten(), minlength=ctx.size)
        return counted_C.to(grad_X.dtype), None


class HstuLayer(nn.Module):
    """Pointwise attention, gated; no softmax and no feed-forward."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.num_heads = sizes.num_attention_heads
        self.norm = nn.LayerNorm(width)
        self.to_uqkv = nn.Linear(width, 4 * width, bias=False)
        nn.init.normal_(self.to_uqkv.weight, std=0.02)
        self.distance = nn.Parameter(torch.randn(longest(sizes)) * 0.02)
        self.time = nn.Parameter(torch.randn(NUM_TIMES) * 0.02)
        self.after_attention = nn.LayerNorm(width, elementwise_affine=False)
        self.down = nn.Linear(width, width)
        self.dropout = Dropout(sizes.dropout)

    def forward(self, x_TD: Tensor, placed: Layout, times: list[Tensor]) -> Tensor:
        """Mix each token with those before it; `times` are the classes of elapsed time of every group, [R, L, L]."""
        width = x_TD.shape[1]
        uqkv_TX = F.silu(self.to_uqkv(self.norm(x_TD)))
        qkv_T3HE = uqkv_TX[:, width:].reshape(len(x_TD), 3, self.num_heads, width // self.num_heads)
        classes = iter(times)

        def of_group(qkv_RL3HE: Tensor, group: Group) -> Tensor:
            return self._attend(qkv_RL3HE, next(classes))

        mixed_TD = placed.each(qkv_T3HE, of_group).flatten(1)
        added_TD: Tensor = x_TD + self.down(self.dropout(self.after_attention(mixed_TD) * uqkv_TX[:, :width]))
        return added_TD

    def _attend(self, qkv_RL3HE: Tensor, class_RLL: Tensor) -> Tensor:
        query, key, value = qkv_RL3HE.permute(2, 0, 3, 1, 4)
        length = qkv_RL3HE.shape[1]
        place_L = torch.arange(length, device=key.device)
        bias_LL = self.distance[(place_L[:, None] - place_L).clamp(min=0)]
        bias_RLL: Tensor = bias_LL + _Lookup.apply(self.time, class_RLL)  # type: ignore[no-untyped-call]
        weight_RHLL = F.silu(query @ key.transpose(-1, -2) + bias_RLL[:, None]).tril()
        mixed_RHLE: Tensor = (weight_RHLL @ value) / (place_L + 1.0)[:, None]
        return mixed_RHLE.transpose(1, 2)


class Hstu(nn.Module):
    """Positions, HSTU layers, and a norm at the end."""

    def __init__(self, config: HstuConfig, sizes: Sizes) -> None:
        super().__init__()
        self.positions = LearnedPositions(sizes)
        self.layers = nn.ModuleList(HstuLayer(sizes) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, features_TD: Tensor, tokens: Sequences) -> Encoded:
        """Encode every token with those before it, and with how long ago they were."""
        x_TD = self.positions(features_TD, tokens.layout)
        times = elapsed(tokens)
        for layer in self.layers:
            x_TD = layer(x_TD, tokens.layout, times)
        return Encoded(self.norm(x_TD))


def elapsed(tokens: Sequences) -> list[Tensor]:
    """Class of the time from each key to what is asked for at each query, int32 [R, L, L] of every group."""
    base = tokens.minute_T.min() if len(tokens.minute_T) else 0.0
    times_T2 = torch.stack([tokens.minute_T - base, tokens.now_T - base], dim=1)
    found = []
    for times_RL2 in tokens.layout.pad(times_T2):
        minute_RL, now_RL = times_RL2.unbind(-1)
        seconds_RLL = ((now_RL[:, :, None] - minute_RL[:, None, :]) * 60.0).float()
        class_RLL = seconds_RLL.clamp_(min=1.0).log_().div_(STEP).int()
        found.append(class_RLL.clamp_(max=NUM_TIMES - 1))
    return found
