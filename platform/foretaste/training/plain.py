"""The loop's surroundings in one process, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from foretaste.training.checkpoints import Checkpoint
from foretaste.training.loop import Epoch
from foretaste.training.runs import Run


@dataclass
class PlainContext:
    """One worker; checkpoints are those of `run`, or there are none."""

    on_epoch: Callable[[Epoch], None]
    run: Run | None = None
    start: Checkpoint | None = None  # what to go on from
    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _attempt: str = ""

    def add_up(self, flat: Tensor) -> None:
        """Nothing to add: there is one worker."""

    def start_adding(self, flat: Tensor) -> Callable[[], None]:
        """Nothing to wait for."""
        return lambda: None

    def gather(self, rows: Tensor) -> list[Tensor]:
        """This worker's alone."""
        return [rows]

    def resume(self) -> Checkpoint | None:
        """Give the checkpoint to go on from, or None."""
        return self.start

    def report(self, epoch: Epoch, records: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write the checkpoint beside the last one, which then goes; then tell of the epoch."""
        if self.run is not None:
            self._attempt = self._attempt or self.run.attempt()
            self.run.put(self._attempt, f"epoch-{epoch.number:05d}", records, tensors)
        self.on_epoch(epoch)
