"""The loop's surroundings in one process, without Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foretaste.ops.files import whole_file
from foretaste.training.loop import Epoch

CHECKPOINT = "state.pt"


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

    def resume(self) -> dict[str, Any] | None:
        """Give the state of the last checkpoint in the folder, or None."""
        if self.folder is None or not (self.folder / CHECKPOINT).is_file():
            return None
        return load_state(self.folder / CHECKPOINT)

    def report(self, epoch: Epoch, state: dict[str, Any]) -> None:
        """Write the checkpoint, then tell of the epoch."""
        if self.folder is not None:
            with whole_file(self.folder / CHECKPOINT) as partial:
                torch.save(state, partial)
        self.on_epoch(epoch)


def load_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint: tensors and plain values only, nothing that runs."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
