"""What is specific to models of delayed feedback in the training loop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.models.delayed import DelayedModel
from foretaste.models.delayed_rows import Pending
from foretaste.training.config import TrainingConfig
from foretaste.training.loop import train
from foretaste.training.plain import PlainContext

ROWS_AT_ONCE = 8_192


class DelayedTask:
    """Trains one model on this worker's decisions as they are known by now.

    `left_out` are decisions that choose the epoch by the model's own loss; `has_left_out` says whether any worker has
    some.
    """

    def __init__(
        self,
        network: DelayedModel,
        pending: Pending,
        config: TrainingConfig,
        *,
        rank: int = 0,
        left_out: Pending | None = None,
        has_left_out: bool = False,
    ) -> None:
        self.network: DelayedModel = network
        self.num_predictions = len(pending)
        self._pending, self._left_out = pending, left_out
        self._config, self._rank, self._has_left_out = config, rank, has_left_out

    def steps(self, epoch: int, num_steps: int) -> Iterator[list[NDArray[np.int64]]]:
        """Divide the decisions at random into steps of one micro-batch each."""
        rng = np.random.default_rng([self._config.seed, epoch, self._rank])
        for rows in np.array_split(rng.permutation(len(self._pending)), num_steps):
            yield [rows] if len(rows) else []

    def loss(self, micro_batch: NDArray[np.int64]) -> tuple[Tensor, int]:
        """Summed loss of some decisions."""
        return self.network.loss(self._pending.rows(micro_batch).tensors(self._device)), len(micro_batch)

    def validate(self) -> dict[str, tuple[float, float]]:
        """Loss of the decisions that were left out."""
        if not self._has_left_out:
            return {}
        if self._left_out is None or not len(self._left_out):
            return {"loss": (0.0, 0.0)}
        total, size = 0.0, len(self._left_out)
        for first in range(0, size, ROWS_AT_ONCE):
            some = self._left_out.rows(slice(first, first + ROWS_AT_ONCE))
            total += float(self.network.loss(some.tensors(self._device)))
        return {"loss": (total, float(size))}

    @property
    def _device(self) -> torch.device:
        return self.network.tower.mean_F.device


def fit(network: DelayedModel, pending: Pending, config: TrainingConfig) -> None:
    """Train a model further, in this process and without a record, as a simulation does every day."""
    train(DelayedTask(network, pending, config), config, PlainContext(lambda epoch: None))
    network.eval()
