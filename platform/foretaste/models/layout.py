"""Where the tokens of packed sequences stand when something has to see them side by side.

Tokens of all sequences are packed back to back, so that whatever looks at one token at a time does no work for padding.
What looks at several (attention, recurrence) gets groups of sequences of like length, padded on the right.

Shapes: B sequences, T tokens of all of them together, S padded places of all groups together; of one group: R
sequences, L places. X stands for any further axes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LIKE = 0.75
"""Shortest sequence of a group, as a share of its longest."""
LEAST_PLACES = 1_024
"""Places below which a group takes shorter sequences too: many small groups cost more than their padding."""


class Group(NamedTuple):
    """R sequences of like length, longest first; their places are `start:start + R * L` of S."""

    start: int
    size: int  # R
    length: int  # L
    length_R: Tensor  # tokens of each; int64, on the processor


@dataclass(frozen=True, slots=True)
class Layout:
    """How T packed tokens and S padded places belong together."""

    offsets_B1: NDArray[np.int64]
    token_S: Tensor  # token at each place; at padding, the first token of its sequence
    place_T: Tensor  # place of each token
    index_T: Tensor  # of a token within its sequence, from 0
    back_T: Tensor  # how many tokens come after it; 0 of what only fills its sequence up
    groups: tuple[Group, ...]

    @property
    def last_B(self) -> Tensor:
        """Index of the last token of each sequence."""
        return torch.from_numpy(self.offsets_B1[1:] - 1).to(self.place_T.device)

    @property
    def padding(self) -> float:
        """Share of places that are padding."""
        return 1.0 - len(self.place_T) / max(1, len(self.token_S))

    def to(self, device: torch.device) -> Layout:
        """Move what is read on the device."""
        return Layout(
            self.offsets_B1, self.token_S.to(device), self.place_T.to(device), self.index_T.to(device),
            self.back_T.to(device), self.groups,
        )  # fmt: skip

    @property
    def straight(self) -> bool:
        """Whether places are tokens in their order: a single sequence."""
        return len(self.groups) == 1 and len(self.token_S) == len(self.place_T) and self.groups[0].size == 1

    def pad(self, values_TX: Tensor) -> list[Tensor]:
        """Give [R, L, X] of every group; padding holds what its gradient does not reach."""
        if self.straight:
            return [values_TX[None]]
        padded_SX = _Places.apply(values_TX, self.token_S, self.place_T)  # type: ignore[no-untyped-call]
        return [padded_SX[g.start : g.start + g.size * g.length].unflatten(0, (g.size, g.length)) for g in self.groups]

    def unpad(self, values: list[Tensor]) -> Tensor:
        """Take the tokens out of the groups again, [T, X]."""
        if self.straight:
            return values[0][0]
        together_SX = torch.cat([one.flatten(0, 1) for one in values])
        values_TX: Tensor = _Places.apply(together_SX, self.place_T, self.token_S)  # type: ignore[no-untyped-call]
        return values_TX

    def each(self, values_TX: Tensor, of_group: Callable[[Tensor, Group], Tensor]) -> Tensor:
        """Apply a function to every group's [R, L, X] and pack what it gives."""
        padded = self.pad(values_TX)
        return self.unpad([of_group(one, group) for one, group in zip(padded, self.groups, strict=True)])

    def real(self, group: Group) -> Tensor:
        """Say which places of a group hold a token; bool[R, L]."""
        device = self.place_T.device
        return torch.arange(group.length, device=device) < group.length_R.to(device)[:, None]


class _Places(torch.autograd.Function):
    """Pick rows; the gradient picks them back, since each row that counts is picked once. Padding has no gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, take: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(take, back)
        ctx.rows = len(values)
        return values[take]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        take, back = ctx.saved_tensors
        (grad,) = grads
        if len(take) >= ctx.rows:
            return grad[back], None, None
        spread = grad.new_zeros((ctx.rows, *grad.shape[1:]))
        spread[take] = grad
        return spread, None, None


def layout(
    length_B: NDArray[np.int64], *, exact: bool = False, used_B: NDArray[np.int64] | None = None
) -> Layout:  # fmt: skip
    """Lay out packed sequences of these lengths (each at least 1) in groups of like length, `exact` of the same.

    `used_B` tokens of each come first, the others fill it up; by default all are used.
    """
    like, least = (1.0, 1) if exact else (LIKE, LEAST_PLACES)
    offsets_B1 = np.concatenate([[0], np.cumsum(length_B)]).astype(np.int64)
    order_B = np.argsort(-length_B, kind="stable")
    groups, tokens, start, places = [], [], 0, 0
    place_T = np.empty(int(offsets_B1[-1]), dtype=np.int64)
    while start < len(order_B):
        longest = int(length_B[order_B[start]])
        fits = int(np.searchsorted(-length_B[order_B[start:]], -like * longest, side="right"))
        rows = order_B[start : start + max(fits, -(-least // longest))]
        first_R1, place_L = offsets_B1[:-1][rows][:, None], np.arange(longest)
        real_RL = place_L < length_B[rows][:, None]
        token_RL = first_R1 + np.where(real_RL, place_L, 0)
        place_T[token_RL[real_RL]] = places + np.flatnonzero(real_RL)
        groups.append(Group(places, len(rows), longest, torch.from_numpy(length_B[rows])))
        tokens.append(token_RL.ravel())
        start, places = start + len(rows), places + token_RL.size
    index_T = np.arange(len(place_T)) - np.repeat(offsets_B1[:-1], length_B)
    token_S = np.concatenate(tokens) if tokens else np.zeros(0, dtype=np.int64)
    back_T = np.maximum(np.repeat(length_B if used_B is None else used_B, length_B) - 1 - index_T, 0)
    on_S, on_T, within_T, after_T = (torch.from_numpy(a) for a in (token_S, place_T, index_T, back_T))
    return Layout(offsets_B1, on_S, on_T, within_T, after_T, tuple(groups))
