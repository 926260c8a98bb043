"""What is specific to the ranker in the training loop.

Shapes: B cases, C candidates, F features.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.models.ranker import Ranker
from foretaste.training.config import TrainingConfig
from foretaste.training.ranker_cases import LEARN, REPORT, SELECT, RankerCases

NDCG_AT = 10


class RankerTask:
    """Trains the ranker on this worker's cases; `has_selection` says whether any worker has cases to choose by."""

    def __init__(
        self, network: Ranker, cases: RankerCases, config: TrainingConfig, *, rank: int, has_selection: bool
    ) -> None:
        self.network: Ranker = network
        self.learn = cases.rows(np.flatnonzero(cases.role_B == LEARN))
        self.select = cases.rows(np.flatnonzero(cases.role_B == SELECT))
        self.num_predictions = len(self.learn)
        self.config = config
        self.rank = rank
        self.has_selection = has_selection

    def steps(self, epoch: int, num_steps: int) -> Iterator[list[NDArray[np.int64]]]:
        """Divide the cases at random into steps of one micro-batch each."""
        order_B = np.random.default_rng([self.config.seed, epoch, self.rank]).permutation(len(self.learn))
        for rows in np.array_split(order_B, num_steps):
            yield [rows] if len(rows) else []

    def loss(self, micro_batch: NDArray[np.int64]) -> tuple[Tensor, int]:
        """Summed loss of some cases."""
        features_BCF, chosen_BC, real_BC = self._tensors(self.learn, micro_batch)
        return self.network.loss(features_BCF, chosen_BC, real_BC), len(micro_batch)

    def validate(self) -> dict[str, tuple[float, float]]:
        """Loss and NDCG@10 of the cases to choose the epoch by."""
        if not self.has_selection:
            return {}
        rows = np.arange(len(self.select))
        loss = float(self.network.loss(*self._tensors(self.select, rows))) if len(rows) else 0.0
        ndcg_B = ndcg(ranker_ranks(self.network, self.select))
        return {"loss": (loss, float(len(rows))), "ndcg": (float(ndcg_B.sum()), float(len(rows)))}

    def _tensors(self, cases: RankerCases, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        device = self.network.mean_F.device
        features_BCF, chosen_BC, real_BC = (
            torch.from_numpy(array[rows]).to(device) for array in (cases.features_BCF, cases.chosen_BC, cases.real_BC)
        )
        return features_BCF, chosen_BC, real_BC


def ndcg(rank_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """NDCG@10 of cases whose choice stands at rank 0, 1, ...; -1 is a miss."""
    hit_B = (rank_B >= 0) & (rank_B < NDCG_AT)
    return np.where(hit_B, 1.0 / np.log2(np.maximum(rank_B, 0) + 2.0), 0.0)


def intent_ranks(cases: RankerCases) -> NDArray[np.int64]:
    """Place of the choice among the candidates in the order of the intent model, -1 where it is not there."""
    return np.where(cases.chosen_BC.any(axis=1), cases.chosen_BC.argmax(axis=1), -1)


@torch.inference_mode()
def ranker_ranks(network: Ranker, cases: RankerCases) -> NDArray[np.int64]:
    """Place of the choice among the candidates in the order of the ranker (ties: the intent model's), -1 for a miss."""
    if not len(cases):
        return np.zeros(0, dtype=np.int64)
    logits_BC = network(torch.from_numpy(cases.features_BCF).to(network.mean_F.device)).cpu().numpy()
    logits_BC = np.where(cases.real_BC, logits_BC, -np.inf)
    place_BC = np.argsort(np.argsort(-logits_BC, axis=1, kind="stable"), axis=1)
    place_B = np.take_along_axis(place_BC, cases.chosen_BC.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.where(cases.chosen_BC.any(axis=1), place_B, -1)


def lift(network: Ranker, cases: RankerCases) -> dict[str, float]:
    """What the ranker adds on actors that nothing was learned from or chosen by, beside the intent model alone."""
    held = cases.rows(np.flatnonzero(cases.role_B == REPORT))
    if not len(held):
        return {}
    network.eval()
    before, after = ndcg(intent_ranks(held)).mean(), ndcg(ranker_ranks(network, held)).mean()
    return {
        "ndcg": float(after),
        "intent_ndcg": float(before),
        "lift": float(after - before),
        "reached": float((intent_ranks(held) >= 0).mean()),
        "cases": float(len(held)),
    }
