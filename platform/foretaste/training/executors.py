"""Where a task is trained: in this process, or on Ray Train workers. The loop is the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from foretaste.training.config import TrainingConfig
from foretaste.training.loop import Epoch, Task, ended, final, train
from foretaste.training.plain import PlainContext
from foretaste.training.runs import Found, Run

Item = TypeVar("Item")
Read = Callable[[Any], tuple[Any, Any]]
"""Turn an item into (payload, summary); runs where the data is."""


class Shard(Sequence[Any]):
    """A worker's payloads in the order of their items, each fetched when it is asked for; `numbers` are the items'."""

    def __init__(self, numbers: Sequence[int], fetch: Callable[[int], Any]) -> None:
        self.numbers = list(numbers)
        self._fetch = fetch

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._fetch(n) for n in range(len(self))[index]]
        return self._fetch(range(len(self))[index])


MakeTask = Callable[[Shard, int], Task]
"""Make a worker's task of its payloads and its rank."""


Weight = Callable[[Any], int]


def nothing(summary: Any) -> int:
    """Weigh nothing."""
    return 0


def dealt(weights: Sequence[int], num_workers: int) -> list[list[int]]:
    """Numbers of each worker's items: the heaviest first, each to whom has least; by turns where all weigh nothing.

    Workers wait for each other in every step, so what one has more than the others is time lost by all.
    """
    mine: list[list[int]] = [[] for _ in range(num_workers)]
    loads = [0] * num_workers
    for n in sorted(range(len(weights)), key=lambda n: (-weights[n], n)):
        worker = min(range(num_workers), key=lambda w: (loads[w], len(mine[w]), w))
        mine[worker].append(n)
        loads[worker] += weights[n]
    return [sorted(numbers) for numbers in mine]


class Executor(Protocol):
    """Reads items, keeps what was made of them where the workers are, and trains on it."""

    def load(
        self, items: Sequence[Item], read: Callable[[Item], tuple[Any, Any]], weight: Weight = nothing
    ) -> list[Any]:
        """Read all items, share them out, and return their summaries; `weight` says of a summary what it weighs."""
        ...

    def train(self, make_task: MakeTask, config: TrainingConfig, on_epoch: Callable[[Epoch], None]) -> dict[str, Any]:
        """Train on what was loaded, from the run's last checkpoint; returns the final state of the loop."""
        ...

    def forget(self) -> None:
        """Remove the run's checkpoints: its model is filed."""
        ...


class PlainExecutor:
    """One worker: this process. A run that is there already goes on.

    Payloads are kept as long as they weigh at most `limit` together; others are read again when they are asked for.
    """

    def __init__(self, run: Run, *, limit: int | None = None) -> None:
        self._run = run
        self._limit = limit
        self._shard = Shard([], lambda n: None)

    def load(
        self, items: Sequence[Item], read: Callable[[Item], tuple[Any, Any]], weight: Weight = nothing
    ) -> list[Any]:
        """Read all items here."""
        kept: dict[int, Any] = {}
        summaries, total = [], 0
        for n, item in enumerate(items):
            payload, summary = read(item)
            summaries.append(summary)
            total += weight(summary)
            if self._limit is None or total <= self._limit:
                kept[n] = payload
        if len(kept) < len(items):
            kept.clear()  # whoever asks keeps as many as there is room for
        self._shard = Shard(range(len(items)), lambda n: kept[n] if n in kept else read(items[n])[0])
        return summaries

    def train(self, make_task: MakeTask, config: TrainingConfig, on_epoch: Callable[[Epoch], None]) -> dict[str, Any]:
        """Train here, with as many threads as a worker would have."""
        threads = torch.get_num_threads()
        torch.set_num_threads(config.threads_per_worker)
        try:
            device = torch.device("cuda" if config.use_gpu else "cpu")
            start = found(self._run, config)
            if start is not None and ended(start.checkpoint[0], config):
                return final(start.checkpoint)
            context = PlainContext(on_epoch, self._run, start.checkpoint if start else None, device=device)
            return train(make_task(self._shard, 0), config, context)
        finally:
            torch.set_num_threads(threads)

    def forget(self) -> None:
        """Remove the run's checkpoints."""
        self._run.remove()


def found(run: Run, config: TrainingConfig) -> Found | None:
    """The checkpoint that a run goes on from; where it is to begin anew, what there was is removed."""
    if config.resume:
        return run.newest()
    run.remove()
    return None


def executor(config: TrainingConfig, *, place: Path | str, name: str) -> Executor:
    """Make the executor that the configuration names; `name` is that of the run at a place (see `runs.Run`)."""
    run = Run(place, name)
    if config.executor == "plain":
        return PlainExecutor(run, limit=config.resident_interactions)
    from foretaste.training.on_ray import RayExecutor

    return RayExecutor(run)
