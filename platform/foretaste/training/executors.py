"""Where a task is trained: in this process, or on Ray Train workers. The loop is the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from foretaste.training.config import TrainingConfig
from foretaste.training.loop import Epoch, Task, train
from foretaste.training.plain import PlainContext

Item = TypeVar("Item")
Read = Callable[[Any], tuple[Any, Any]]
"""Turn an item into (payload, summary); runs where the data is."""
MakeTask = Callable[[list[Any], int], Task]
"""Make a worker's task of its payloads, in the order of their items, and its rank."""


class Executor(Protocol):
    """Reads items, keeps what was made of them where the workers are, and trains on it."""

    def load(self, items: Sequence[Item], read: Callable[[Item], tuple[Any, Any]]) -> list[Any]:
        """Read all items, share them out, and return their summaries."""
        ...

    def train(self, make_task: MakeTask, config: TrainingConfig, on_epoch: Callable[[Epoch], None]) -> dict[str, Any]:
        """Train on what was loaded; returns the final state of the loop."""
        ...


class PlainExecutor:
    """One worker: this process. Checkpoints go to `storage`; a run that is there already goes on."""

    def __init__(self, storage: Path, name: str) -> None:
        self.folder = storage / name
        self._payloads: list[Any] = []

    def load(self, items: Sequence[Item], read: Callable[[Item], tuple[Any, Any]]) -> list[Any]:
        """Read all items here."""
        read_items = [read(item) for item in items]
        self._payloads = [payload for payload, _ in read_items]
        return [summary for _, summary in read_items]

    def train(self, make_task: MakeTask, config: TrainingConfig, on_epoch: Callable[[Epoch], None]) -> dict[str, Any]:
        """Train here, with as many threads as a worker would have."""
        threads = torch.get_num_threads()
        torch.set_num_threads(config.threads_per_worker)
        try:
            device = torch.device("cuda" if config.use_gpu else "cpu")
            context = PlainContext(on_epoch, self.folder, device=device)
            return train(make_task(self._payloads, 0), config, context)
        finally:
            torch.set_num_threads(threads)


def executor(config: TrainingConfig, *, storage: Path, name: str) -> Executor:
    """Make the executor that the configuration names; `name` is that of the run, under `storage`."""
    if config.executor == "plain":
        return PlainExecutor(storage, name)
    from foretaste.training.on_ray import RayExecutor

    return RayExecutor(config.num_workers, storage, name)
