"""What a ranker is told of requests and their candidates, as arrays: the same of a request and of a training case.

Shapes: B requests, C candidates each, F columns of a candidate, R columns of a request, X of the intents, L recent
interactions, A numbers of each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RECENT = ("title_BL", "action_BL", "about_BLA", "now_BL")
"""Fields of `RankerInputs` that speak of the newest interactions."""


class RankerBatch(NamedTuple):
    """`RankerInputs` as tensors."""

    features_BCF: Tensor
    request_BR: Tensor
    context_BX: Tensor
    code_BC: Tensor
    title_BL: Tensor
    action_BL: Tensor
    about_BLA: Tensor
    now_BL: Tensor


@dataclass(frozen=True, slots=True)
class RankerInputs:
    """B requests with C candidates each, and the newest L interactions of each, oldest first."""

    features_BCF: NDArray[np.float32]
    request_BR: NDArray[np.float32]
    context_BX: NDArray[np.float32]  # the intent embedding, then the predicted distributions
    code_BC: NDArray[np.int32]  # catalogue codes of the candidates, 0 for padding
    title_BL: NDArray[np.int32]  # catalogue codes; 0 for unknown titles and for padding
    action_BL: NDArray[np.int32]  # 1 + events.ACTION_CODES, 0 for padding
    about_BLA: NDArray[np.float32]
    now_BL: NDArray[np.bool_]  # whether it is of the session that is going on

    def __len__(self) -> int:
        return len(self.code_BC)

    def rows(self, index_B: NDArray[np.int64]) -> RankerInputs:
        """Pick requests by their number."""
        return RankerInputs(*(getattr(self, field.name)[index_B] for field in fields(self)))

    def candidates(self, kept_BC: NDArray[np.int64]) -> RankerInputs:
        """Pick candidates of each request by their place."""
        row_B1 = np.arange(len(self))[:, None]
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {"features_BCF": self.features_BCF[row_B1, kept_BC], "code_BC": self.code_BC[row_B1, kept_BC]}
        return RankerInputs(**values)

    def alone(self, b: int) -> RankerInputs:
        """One request as it is when nothing is beside it: without padding, so that it scores to the same bits."""
        num, length = int((self.code_BC[b] > 0).sum()), int((self.action_BL[b] > 0).sum())
        one = self.rows(np.array([b]))
        values: dict[str, NDArray[Any]] = {field.name: getattr(one, field.name) for field in fields(one)}
        for name in ("features_BCF", "code_BC"):
            values[name] = np.ascontiguousarray(values[name][:, :num])
        for name in RECENT:
            values[name] = np.ascontiguousarray(values[name][:, :length])
        return RankerInputs(**values)

    def filled(self, *, length: int, multiple: int) -> RankerInputs:
        """The same with padding behind, to `length` interactions and a multiple of so many candidates."""
        num = -(-self.code_BC.shape[1] // multiple) * multiple
        sizes = {"features_BCF": num, "code_BC": num} | dict.fromkeys(RECENT, max(length, self.action_BL.shape[1]))
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, size in sizes.items():
            more = [(0, 0), (0, size - values[name].shape[1]), *((0, 0) for _ in values[name].shape[2:])]
            values[name] = np.pad(values[name], more)
        return RankerInputs(**values)

    def tensors(self, device: torch.device | None = None) -> RankerBatch:
        """Copy to a device, by default this one's memory is shared."""
        arrays = (np.ascontiguousarray(getattr(self, field.name)) for field in fields(self))
        return RankerBatch(*(torch.from_numpy(array).to(device or "cpu") for array in arrays))


def join_inputs(parts: Sequence[RankerInputs]) -> RankerInputs:
    """Put requests after each other, padded to the largest number of candidates and of recent interactions."""
    return RankerInputs(*(_joined([getattr(part, field.name) for part in parts]) for field in fields(RankerInputs)))


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    shape = tuple(max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True))
    whole = np.zeros((sum(map(len, arrays)), *shape), dtype=arrays[0].dtype)
    first = 0
    for array in arrays:
        place = (slice(first, first + len(array)), *(slice(0, size) for size in array.shape[1:]))
        whole[place] = array
        first += len(array)
    return whole
