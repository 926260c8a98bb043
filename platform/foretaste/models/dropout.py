"""Dropout that spends an eighth of the dice: on the processor, drawing them costs more than a matrix product."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 256


class Dropout(nn.Dropout):
    """Drops activations, each by one random byte: the share is rounded to a 256th, its scale to match.

    On a GPU it is torch's own.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Drop in training, scale what is kept, and do nothing else."""
        if not self.training or self.p == 0:
            return input
        if input.device.type != "cpu":
            return super().forward(input)
        dropped = round(self.p * LEVELS)
        scale = LEVELS / max(1, LEVELS - dropped)
        return input * (_bytes(input.numel()).view(input.shape) >= dropped).to(input.dtype).mul_(scale)


def _bytes(number: int) -> Tensor:
    drawn = torch.randint(-(1 << 63), (1 << 63) - 1, (-(-number // 8),), dtype=torch.int64)
    return drawn.view(torch.uint8)[:number]
