"""Histories cut into windows, windows gathered into steps and micro-batches.

Shapes: B histories, T interactions (of token sequences: tokens), R rows of a micro-batch, W windows, P predictions,
G genres.
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
from foretaste.contracts.histories import Histories
from foretaste.models.sequences import Reading, Sequences, masks, sequences
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
    """Packed tokens and what is to be predicted at some of them."""

    tokens: Sequences
    recent: Histories  # that the tokens were made of
    token_P: Tensor  # index of the token that predicts
    title_P: Tensor  # 0..N-1
    genres_PG: Tensor  # multi-hot
    labels: dict[str, Tensor]  # [P] of each single-label intent: code of its class, -1 without
    weight_P: Tensor | None  # of each prediction; None: all 1

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows."""
        return len(self.tokens.title_T)

    def to(self, device: torch.device) -> MicroBatch:
        """Move all tensors to a device."""
        token, title, genres = (one.to(device) for one in (self.token_P, self.title_P, self.genres_PG))
        labels = {name: one.to(device) for name, one in self.labels.items()}
        weight = None if self.weight_P is None else self.weight_P.to(device)
        return MicroBatch(self.tokens.to(device), self.recent, token, title, genres, labels, weight)


@dataclass(frozen=True, slots=True)
class Making:
    """How micro-batches are made of windows."""

    examples: Examples
    catalogue: Catalogue
    max_length: int
    time_aware: bool
    reading: Reading | None = None
    learn_first: bool = True  # whether the first choice of a history is predicted, from nothing
    weight_T: NDArray[np.float32] | None = None  # of each interaction as a choice
    hide_share: float | None = None  # of choices that are hidden and predicted in their place, rather than what follows


def steps(
    windows: Windows, making: Making, *, num_steps: int, micro_batch_tokens: int, rng: np.random.Generator
) -> Iterator[Iterator[MicroBatch]]:
    """Divide windows at random into `num_steps` steps of about as many predictions, and each into micro-batches.

    Within a step, windows of like length share a micro-batch.
    """
    order_W = rng.permutation(len(windows.start_W))
    counted_T1 = np.concatenate([[0], np.cumsum(making.examples.train_T)])
    size_W = (counted_T1[windows.stop_W] - counted_T1[windows.start_W])[order_W]
    before_W = np.cumsum(size_W) - size_W
    step_W = before_W * num_steps // max(1, int(size_W.sum()))
    bounds = np.searchsorted(step_W, np.arange(num_steps + 1))
    for first, last in itertools.pairwise(bounds):
        chosen = order_W[first:last]
        yield (
            micro_batch(windows, group, making, rng)
            for group in by_length(windows.tokens_W, chosen, micro_batch_tokens)
        )


def by_length(tokens_W: NDArray[np.int64], chosen: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Group windows, longest first, so that a group has about as many tokens as the budget, and one window at least."""
    chosen = chosen[np.argsort(-tokens_W[chosen], kind="stable")]
    before_W = np.cumsum(tokens_W[chosen]) - tokens_W[chosen]
    for part in np.unique(before_W // budget):
        yield chosen[before_W // budget == part]


def micro_batch(
    windows: Windows, chosen: NDArray[np.int64], making: Making, rng: np.random.Generator
) -> MicroBatch:  # fmt: skip
    """Make the tensors of some windows; dice are only thrown for what is hidden."""
    examples, histories = making.examples, making.examples.histories
    from_R, stop_R, start_R = windows.inputs_from_W[chosen], windows.stop_W[chosen], windows.start_W[chosen]
    both_ways = making.hide_share is not None
    recent = histories.take(from_R, stop_R if both_ways else stop_R - 1)
    tokens = sequences(
        recent, histories.at_T[stop_R - 1], max_length=making.max_length + 1, time_aware=making.time_aware,
        reading=making.reading,
    )  # fmt: skip
    size_R = stop_R - start_R
    row_P = np.repeat(np.arange(len(chosen)), size_R)
    index_P = np.arange(len(row_P)) - np.repeat(np.cumsum(size_R) - size_R, size_R) + start_R[row_P]
    token_P = index_P - from_R[row_P] + tokens.layout.offsets_B1[:-1][row_P]
    kept = examples.train_T[index_P]
    if not making.learn_first and making.hide_share is None:
        kept = kept & ~((index_P == start_R[row_P]) & windows.first_W[chosen][row_P])
    if making.hide_share is not None:
        token_P = token_P + 1  # in its own place, not in the one before
        kept &= _hidden(row_P, kept, making.hide_share, rng)
        hidden_T = np.zeros(int(tokens.layout.offsets_B1[-1]), dtype=np.bool_)
        hidden_T[token_P[kept]] = True
        tokens = masks(tokens, hidden_T, time_aware=making.time_aware)
    index_P, token_P = index_P[kept], token_P[kept]
    title_P = histories.title_T[index_P]
    labels = {name: _integers(label_T[index_P]) for name, label_T in examples.labels.items()}
    genres_PG = torch.from_numpy(making.catalogue.genres_N1G[title_P])
    weight_P = None if making.weight_T is None else torch.from_numpy(making.weight_T[index_P])
    return MicroBatch(tokens, recent, _integers(token_P), _integers(title_P - 1), genres_PG, labels, weight_P)


def _hidden(
    row_P: NDArray[np.int64], choice_P: NDArray[np.bool_], share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw what is hidden: in one window of five the last choice alone, as when a request asks; else a share of all."""
    last_P = np.zeros(len(row_P), dtype=np.bool_)
    places = np.flatnonzero(choice_P)
    if len(places):
        last_P[places[np.append(np.diff(row_P[places]) != 0, True)]] = True
    alone_P = (rng.random(int(row_P.max(initial=-1)) + 1) < 0.2)[row_P]
    return np.where(alone_P, last_P, rng.random(len(row_P)) < share)


def _integers(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
