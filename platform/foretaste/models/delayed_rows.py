"""Decisions as they are known at an instant, some of whose final feedback is still to come.

Shapes: N decisions, F columns of a context, L landmarks, S signals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pending:
    """Decisions with what was seen of them so far; times are days since the decision.

    A landmark is an age at which the signals are kept as they were then; the first one is 0. Landmarks that are not
    reached yet may hold anything.
    """

    context_NF: Floats
    code_N: NDArray[np.int64]  # of the title, 0 for one that nobody knows
    age_N: Floats  # now less the decision
    delay_N: Floats  # of the final feedback, inf where it is not seen by now
    signals_NS: Floats  # as they are now
    mark_NL: Floats
    marked_NLS: Floats  # as they were at each landmark
    final_N: Floats  # whether it will have come within the horizon; NaN where that is not known

    def __post_init__(self) -> None:
        for one in fields(self):
            found = len(getattr(self, one.name))
            if found != len(self.age_N):
                raise ValueError(f"pending {one.name}: wanted {len(self.age_N)} rows as of age_N, found {found}")
        early = np.flatnonzero(np.isfinite(self.delay_N) & (self.delay_N > self.age_N))
        if len(early):
            n = int(early[0])
            raise ValueError(
                f"pending row {n}: its feedback came {self.delay_N[n]} days after a decision {self.age_N[n]} days old: "
                "what is not seen yet has to be inf"
            )
        bad = np.flatnonzero((self.age_N < 0) | (self.delay_N < 0) | np.isnan(self.age_N) | np.isnan(self.delay_N))
        if len(bad):
            n = int(bad[0])
            raise ValueError(f"pending row {n}: wanted times >= 0, found age {self.age_N[n]}, delay {self.delay_N[n]}")

    def __len__(self) -> int:
        return len(self.age_N)

    def rows(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Pending:
        """Some of them."""
        return Pending(*(getattr(self, one.name)[rows] for one in fields(self)))

    @staticmethod
    def join(parts: Sequence[Pending]) -> Pending:
        """All of them, in order; raises ValueError without a part."""
        if not parts:
            raise ValueError("pending: no part to join")
        return Pending(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Pending)))

    def tensors(self, device: torch.device) -> PendingBatch:
        """The same on a device."""
        return PendingBatch(*(torch.from_numpy(getattr(self, one.name)).to(device) for one in fields(self)))


@dataclass(frozen=True, slots=True)
class PendingBatch:
    """`Pending` as tensors."""

    context_NF: Tensor
    code_N: Tensor
    age_N: Tensor
    delay_N: Tensor
    signals_NS: Tensor
    mark_NL: Tensor
    marked_NLS: Tensor
    final_N: Tensor

    @property
    def seen_N(self) -> Tensor:
        """Whether the final feedback is seen."""
        return torch.isfinite(self.delay_N)
