"""What a prediction says of any title, for where the titles are too many to score each.

    logit(title) = state x column + bias + what its class of recency adds + what it is to the member adds

State and columns are the decoder's (`decoding`); the last term is 0 of titles that the history does not have.

Shapes: B predictions, N titles (column j is catalogue code j + 1), K columns of a title, R classes of recency,
E pairs of a prediction and a title of its history, X titles that are asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.models.decoding import UNKNOWN_MINUTE


@dataclass(frozen=True, slots=True)
class TitleQuery:
    """B predictions before they are held against titles."""

    state_BK: NDArray[np.float32]
    now_B: NDArray[np.int64]  # minutes since 1970
    class_BR: NDArray[np.float32]  # R is 0 where recency says nothing
    start_B1: NDArray[np.int64]
    column_E: NDArray[np.int64]  # a title may stand twice: what is added is added up
    value_E: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.state_BK)

    def rows(self, index: slice) -> TitleQuery:
        """Pick some predictions that stand together."""
        first, last, _ = index.indices(len(self))
        start_B1 = self.start_B1[first : last + 1]
        pairs = slice(int(start_B1[0]), int(start_B1[-1]))
        of_B = (self.state_BK[index], self.now_B[index], self.class_BR[index])
        return TitleQuery(*of_B, start_B1 - start_B1[0], self.column_E[pairs], self.value_E[pairs])


def join_queries(parts: Sequence[TitleQuery]) -> TitleQuery:
    """Put predictions after each other."""
    counts = np.concatenate([np.diff(part.start_B1) for part in parts])
    state_BK, now_B, class_BR, column_E, value_E = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("state_BK", "now_B", "class_BR", "column_E", "value_E")
    )
    return TitleQuery(state_BK, now_B, class_BR, np.concatenate([[0], np.cumsum(counts)]), column_E, value_E)


class TitleTable:
    """The titles' side of it."""

    def __init__(
        self, column_NK: Tensor, bias_N: Tensor, released_N: Tensor | None, bound_minutes: tuple[int, ...]
    ) -> None:
        """Columns of a title lie side by side, for titles are asked about one by one.

        `released_N` are minutes since 1970, `bound_minutes` those of the classes of recency, rising.
        """
        self.column_NK = column_NK.cpu().contiguous()
        self.bias_N = bias_N.cpu()
        self._released_N = None if released_N is None else released_N.cpu().numpy().astype(np.int64)
        self._bound_minutes = bound_minutes

    def __len__(self) -> int:
        return len(self.bias_N)

    def classes(self, now: int) -> NDArray[np.int8]:
        """Class of recency of every title at a minute, that of what is not known last; int8[N]."""
        if self._released_N is None:
            return np.zeros(len(self), dtype=np.int8)
        age_N = now - self._released_N
        class_N = np.zeros(len(self), dtype=np.int8)
        for bound in self._bound_minutes:
            class_N += age_N > bound
        class_N[self._released_N == UNKNOWN_MINUTE] = len(self._bound_minutes) + 1
        return class_N

    @torch.inference_mode()
    def logits(
        self, query: TitleQuery, b: int, column_X: NDArray[np.int64], class_N: NDArray[np.int8]
    ) -> NDArray[np.float32]:
        """Logits of some titles (catalogue code - 1, each once, rising) in one prediction; float32[X]."""
        index_X = torch.from_numpy(column_X)
        column_XK = self.column_NK.index_select(0, index_X)
        state_1K = torch.from_numpy(query.state_BK[b : b + 1].copy())
        found = torch.addmm(self.bias_N[index_X][None], state_1K, column_XK.T)[0].numpy()
        logits_X: NDArray[np.float32] = found.copy()
        if query.class_BR.shape[1]:
            logits_X += query.class_BR[b][class_N[column_X]]
        pairs = slice(int(query.start_B1[b]), int(query.start_B1[b + 1]))
        column_E = query.column_E[pairs]
        place_E = np.searchsorted(column_X, column_E)
        there_E = (place_E < len(column_X)) & (column_X[np.minimum(place_E, len(column_X) - 1)] == column_E)
        np.add.at(logits_X, place_E[there_E], query.value_E[pairs][there_E])
        return logits_X
