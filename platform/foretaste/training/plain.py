"""The loop's surroundings in one process, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foretaste.training.checkpoints import RECORDS, Checkpoint, read_checkpoint, shards, write_records, write_shard
from foretaste.training.loop import Epoch


@dataclass
class PlainContext:
    """One worker; checkpoints go to `folder`, or nowhere."""

    on_epoch: Callable[[Epoch], None]
    folder: Path | None = None
    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def add_up(self, flat: Tensor) -> None:
        """Nothing to add: there is one worker."""

    def start_adding(self, flat: Tensor) -> Callable[[], None]:
        """Nothing to wait for."""
        return lambda: None

    def gather(self, rows: Tensor) -> list[Tensor]:
        """This worker's alone."""
        return [rows]

    def resume(self) -> Checkpoint | None:
        """Give the last checkpoint in the folder, or None."""
        if self.folder is None or not (self.folder / RECORDS).is_file():
            return None
        return read_checkpoint(self.folder)

    def report(self, epoch: Epoch, records: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write the checkpoint beside the last one, which then goes; then tell of the epoch."""
        if self.folder is not None:
            name = f"epoch-{epoch.number:05d}"
            write_shard(self.folder, name, tensors, rank=0, of=1)
            write_records(self.folder, name, records, tensors, of=1)
            for path in shards(self.folder):
                if not path.name.startswith(name):
                    path.unlink()
        self.on_epoch(epoch)
