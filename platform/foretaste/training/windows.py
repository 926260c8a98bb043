"""Histories cut into windows, windows gathered into steps and micro-batches.

Shapes: B histories, T interactions, W windows, P predictions.
A window is a half-open span [start, stop) of T whose interactions are predicted one after the other, each from
those before it in the window; at the start of a history the first is predicted from nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.contracts.catalogue import Catalogue
from foretaste.models.sequences import Sequences, sequences
from foretaste.training.examples import Examples


@dataclass(frozen=True, slots=True)
class Windows:
    """W windows over the interactions of all histories."""

    start_W: NDArray[np.int64]  # index into T of the first interaction that is predicted
    stop_W: NDArray[np.int64]
    first_W: NDArray[np.bool_]  # whether the window begins with its history

    @property
    def inputs_from_W(self) -> NDArray[np.int64]:
        """Index into T of the first interaction that is read: one before the first that is predicted."""
        return np.where(self.first_W, self.start_W, self.start_W - 1)

    @property
    def tokens_W(self) -> NDArray[np.int64]:
        """Tokens of each window: the start token and all but the last interaction."""
        return self.stop_W - self.inputs_from_W


def cut(start_B: NDArray[np.int64], stop_B: NDArray[np.int64], max_length: int, rng: np.random.Generator) -> Windows:
    """Cut each span of T into windows of at most `max_length` predictions.

    A span that is longer is cut at a random phase, so that over the epochs every interaction stands everywhere.
    """
    length_B = stop_B - start_B
    phase_B = np.where(length_B > max_length, rng.integers(1, max_length + 1, size=len(length_B)), length_B)
    count_B = 1 + -(-(length_B - phase_B) // max_length)
    window_W = np.arange(int(count_B.sum())) - np.repeat(np.cumsum(count_B) - count_B, count_B)
    base_W, end_W, phase_W = (np.repeat(a, count_B) for a in (start_B, stop_B, phase_B))
    start_W = base_W + np.where(window_W > 0, phase_W + (window_W - 1) * max_length, 0)
    stop_W = np.minimum(base_W + phase_W + window_W * max_length, end_W)
    some_W = stop_W > start_W
    return Windows(start_W[some_W], stop_W[some_W], (window_W == 0)[some_W])


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Token sequences and what is to be predicted at some of their tokens."""

    tokens: Sequences
    row_P: Tensor
    token_P: Tensor
    title_P: Tensor  # 0..N-1, a column of the logits
    genres_PG: Tensor  # multi-hot
    labels: dict[str, Tensor]  # [P] of each single-label intent: code of its class, -1 without

    def to(self, device: torch.device) -> MicroBatch:
        """Move all tensors to a device."""
        row, token, title, genres = (one.to(device) for one in (self.row_P, self.token_P, self.title_P, self.genres_PG))
        labels = {name: one.to(device) for name, one in self.labels.items()}
        return MicroBatch(self.tokens.to(device), row, token, title, genres, labels)


def steps(
    windows: Windows,
    examples: Examples,
    catalogue: Catalogue,
    *,
    num_steps: int,
    max_length: int,
    time_aware: bool,
    micro_batch_tokens: int,
    rng: np.random.Generator,
) -> Iterator[Iterator[MicroBatch]]:
    """Divide windows at random into `num_steps` steps of about as many predictions, and each into micro-batches.

    Within a step, windows of like length share a micro-batch, so that little of it is padding.
    """
    order_W = rng.permutation(len(windows.start_W))
    counted_T1 = np.concatenate([[0], np.cumsum(examples.train_T)])
    size_W = (counted_T1[windows.stop_W] - counted_T1[windows.start_W])[order_W]
    before_W = np.cumsum(size_W) - size_W
    step_W = before_W * num_steps // max(1, int(size_W.sum()))
    bounds = np.searchsorted(step_W, np.arange(num_steps + 1))
    for first, last in itertools.pairwise(bounds):
        chosen = order_W[first:last]
        yield (
            micro_batch(windows, group, examples, catalogue, max_length=max_length, time_aware=time_aware)
            for group in by_length(windows.tokens_W, chosen, micro_batch_tokens)
        )


def by_length(tokens_W: NDArray[np.int64], chosen: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Group windows, longest first, so that rows times longest row stays within the budget of tokens."""
    chosen = chosen[np.argsort(-tokens_W[chosen], kind="stable")]
    while len(chosen):
        size = max(1, budget // int(tokens_W[chosen[0]]))
        yield chosen[:size]
        chosen = chosen[size:]


def micro_batch(
    windows: Windows,
    chosen: NDArray[np.int64],
    examples: Examples,
    catalogue: Catalogue,
    *,
    max_length: int,
    time_aware: bool,
) -> MicroBatch:
    """Make the tensors of some windows."""
    histories = examples.histories
    from_R, stop_R, start_R = windows.inputs_from_W[chosen], windows.stop_W[chosen], windows.start_W[chosen]
    tokens = sequences(
        histories.take(from_R, stop_R - 1), histories.at_T[stop_R - 1], max_length=max_length, time_aware=time_aware
    )
    size_R = stop_R - start_R
    row_P = np.repeat(np.arange(len(chosen)), size_R)
    index_P = np.arange(len(row_P)) - np.repeat(np.cumsum(size_R) - size_R, size_R) + start_R[row_P]
    kept = examples.train_T[index_P]
    row_P, index_P = row_P[kept], index_P[kept]
    title_P = histories.title_T[index_P]
    row, token, title = (_integers(a) for a in (row_P, index_P - from_R[row_P], title_P - 1))
    labels = {name: _integers(label_T[index_P]) for name, label_T in examples.labels.items()}
    return MicroBatch(tokens, row, token, title, torch.from_numpy(catalogue.genres_N1G[title_P]), labels)


def _integers(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
