"""AdamW for dense parameters; for tables of rows its lazy form, which touches only the rows of the step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from foretaste.training.config import TrainingConfig

BETAS = (0.9, 0.98)


class Optimizer:
    """Both optimisers as one; weight decay is decoupled, of matrices alone.

    Rows that a step does not touch keep their value and their moments (torch's SparseAdam), so that a step over a
    table of a million rows costs what the rows of the step cost; their decay is lazy, too.
    """

    def __init__(self, dense: Iterable[nn.Parameter], rows: Iterable[nn.Parameter], config: TrainingConfig) -> None:
        parameters, self._rows = list(dense), list(rows)
        matrices = [p for p in parameters if p.dim() >= 2]
        vectors = [p for p in parameters if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self._decay = config.weight_decay
        self._both: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=config.learning_rate, betas=BETAS, fused=True)
        ]
        if self._rows:
            self._both.append(torch.optim.SparseAdam(self._rows, lr=config.learning_rate, betas=BETAS))

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Take one step at a learning rate."""
        for parameter in self._rows:
            if parameter.grad is not None:
                index_R = parameter.grad.coalesce().indices()[0]
                parameter[index_R] *= 1.0 - rate * self._decay
        for optimizer in self._both:
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.sparse.check_sparse_tensor_invariants(False):  # type: ignore[no-untyped-call] # SparseAdam's own
                optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """What is needed to go on, by name."""
        return {
            f"{number}/{index}/{key}": value if isinstance(value, Tensor) else torch.tensor(value)
            for number, optimizer in enumerate(self._both)
            for index, values in optimizer.state_dict()["state"].items()
            for key, value in values.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up a state; raises KeyError where it is that of another network."""
        for number, optimizer in enumerate(self._both):
            of: dict[int, dict[str, Any]] = {}
            for name, value in state.items():
                which, index, key = name.split("/")
                if int(which) == number:
                    plain = number == 1 and key == "step"  # SparseAdam counts with a plain number
                    of.setdefault(int(index), {})[key] = int(value) if plain else value
            optimizer.load_state_dict({"state": of, "param_groups": optimizer.state_dict()["param_groups"]})
