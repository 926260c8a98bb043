"""What is specific to the ranker in the training loop.

The epoch is chosen on actors that were left out: a network is trained without each fold, beside the one that learns
from all and is kept. Their mean says how good that one is after as many epochs.

Shapes: B cases, C candidates, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.models.ranker import Ranker
from foretaste.models.ranker_inputs import RankerBatch
from foretaste.training.config import TrainingConfig
from foretaste.training.ranker_cases import REPORT, RankerCases
from foretaste.training.ranker_losses import Labels, choice_loss, impression_loss

NDCG_AT = 10
CASES_AT_ONCE = 512


class Folded(nn.Module):
    """A ranker that learns from all actors but those of REPORT, and one without each fold."""

    def __init__(self, kept: Ranker, folds: Sequence[Ranker]) -> None:
        super().__init__()
        self.kept = kept
        self.left_out = nn.ModuleList(folds)

    @property
    def folds(self) -> list[tuple[int, Ranker]]:
        """Number of each fold, and the network that does not learn from it."""
        return [(fold, network) for fold, network in enumerate(self.left_out) if isinstance(network, Ranker)]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Numbers of cases of one step."""

    rows_B: NDArray[np.int64]  # of the choices
    cut_B: NDArray[np.bool_]  # whether the current session is cut off
    shown: NDArray[np.int64]  # of the impressions


class RankerTask:
    """Trains the ranker on this worker's cases; `has_selection` says whether any worker has cases to choose by."""

    def __init__(
        self,
        network: Folded,
        choices: RankerCases,
        cut: RankerCases,
        shown: RankerCases | None,
        config: TrainingConfig,
        *,
        rank: int,
        has_selection: bool,
    ) -> None:
        """`cut` are the same choices with the current session cut off, `shown` what was logged of slates."""
        self.network: Folded = network
        rows = np.flatnonzero(choices.fold_B != REPORT)
        self.choices, self.cut = choices.rows(rows), cut.rows(rows)
        self.shown = None if shown is None else shown.rows(np.flatnonzero(shown.fold_B != REPORT))
        self.num_predictions = len(rows)
        self.config = config
        self.rank = rank
        self.has_selection = has_selection
        self._device = torch.device("cpu")

    def steps(self, epoch: int, num_steps: int) -> Iterator[list[MicroBatch]]:
        """Divide the cases at random into steps of one micro-batch each."""
        rng = np.random.default_rng([self.config.seed, epoch, self.rank])
        order_B = rng.permutation(len(self.choices))
        cut_B = rng.random(len(self.choices)) < self.network.kept.config.session_dropout
        shown = rng.permutation(0 if self.shown is None else len(self.shown))
        for rows, slates in zip(np.array_split(order_B, num_steps), np.array_split(shown, num_steps), strict=True):
            yield [MicroBatch(rows, cut_B[rows], slates)] if len(rows) else []

    def loss(self, micro_batch: MicroBatch) -> tuple[Tensor, int]:
        """Summed loss of some cases, over all networks that learn from them."""
        self._device = self.network.kept.mean_F.device
        total = torch.zeros((), device=self._device)
        for cases, rows in (
            (self.choices, micro_batch.rows_B[~micro_batch.cut_B]),
            (self.cut, micro_batch.rows_B[micro_batch.cut_B]),
        ):
            for network, mine in self._learners(cases, rows):
                total = total + choice_loss(network, *self._tensors(cases, mine))
        if self.shown is not None and len(micro_batch.shown):
            for network, mine in self._learners(self.shown, micro_batch.shown):
                total = total + impression_loss(network, *self._tensors(self.shown, mine))
        return total, len(micro_batch.rows_B)

    def validate(self) -> dict[str, tuple[float, float]]:
        """Loss and NDCG@10 of the cases, each by the network that has not learned from its actor."""
        if not self.has_selection:
            return {}
        self._device = self.network.kept.mean_F.device
        loss = 0.0
        for fold, network in self.network.folds:
            mine = np.flatnonzero(self.choices.fold_B == fold)
            for rows in np.split(mine, range(CASES_AT_ONCE, len(mine), CASES_AT_ONCE)):
                loss += float(choice_loss(network, *self._tensors(self.choices, rows))) if len(rows) else 0.0
        ndcg_B = ndcg(places(out_of_fold(self.network, self.choices)[..., 0], self.choices))
        return {"loss": (loss, float(len(ndcg_B))), "ndcg": (float(ndcg_B.sum()), float(len(ndcg_B)))}

    def _learners(self, cases: RankerCases, rows: NDArray[np.int64]) -> Iterator[tuple[Ranker, NDArray[np.int64]]]:
        """Every network with those of the cases that it learns from."""
        networks = [(-2, self.network.kept), *self.network.folds]
        for fold, network in networks:
            mine = rows[cases.fold_B[rows] != fold]
            if len(mine):
                yield network, mine

    def _tensors(self, cases: RankerCases, rows: NDArray[np.int64]) -> tuple[RankerBatch, Labels]:
        some = cases.rows(rows)
        arrays = (getattr(some, name) for name in Labels._fields)
        labels = Labels(*(torch.from_numpy(array).to(self._device) for array in arrays))
        return some.inputs.tensors(self._device), labels


@torch.inference_mode()
def logits(network: Ranker, cases: RankerCases) -> NDArray[np.float32]:
    """Logits of every head, some cases at a time: float32[B, C, H]."""
    network.eval()
    device = network.mean_F.device
    parts = [
        network(cases.inputs.rows(np.arange(first, min(first + CASES_AT_ONCE, len(cases)))).tensors(device))
        .cpu()
        .numpy()
        for first in range(0, len(cases), CASES_AT_ONCE)
    ]
    empty = np.zeros((0, *cases.chosen_BC.shape[1:], len(network.slope_H)), dtype=np.float32)
    return np.concatenate(parts) if parts else empty


def out_of_fold(networks: Folded, cases: RankerCases) -> NDArray[np.float32]:
    """Logits of every case by the network that has not learned from its actor; of REPORT by the one that is kept."""
    found_BCH = np.zeros((*cases.chosen_BC.shape, len(networks.kept.slope_H)), dtype=np.float32)
    for fold, network in ((REPORT, networks.kept), *networks.folds):
        rows = np.flatnonzero(cases.fold_B == fold)
        if len(rows):
            found_BCH[rows] = logits(network, cases.rows(rows))
    return found_BCH


def places(logits_BC: NDArray[np.float32], cases: RankerCases) -> NDArray[np.int64]:
    """Place of the choice in an order of the candidates (ties: as they were named), -1 for a miss."""
    order_BC = np.argsort(-np.where(cases.real_BC, logits_BC, -np.inf), axis=1, kind="stable")
    place_BC = np.argsort(order_BC, axis=1)
    place_B = np.take_along_axis(place_BC, cases.chosen_BC.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.where(cases.chosen_BC.any(axis=1), place_B, -1)


def named(cases: RankerCases) -> NDArray[np.int64]:
    """Place of the choice in the order of the intent model, -1 where it is not among the candidates."""
    return np.where(cases.chosen_BC.any(axis=1), cases.chosen_BC.argmax(axis=1), -1)


def ndcg(place_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """NDCG@10 of cases whose choice stands at place 0, 1, ...; -1 is a miss."""
    hit_B = (place_B >= 0) & (place_B < NDCG_AT)
    return np.where(hit_B, 1.0 / np.log2(np.maximum(place_B, 0) + 2.0), 0.0)
