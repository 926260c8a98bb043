"""Models of feedback that comes late: one contract, and those that only choose which labels to believe.

`final` is p(final | context), as it is asked when a decision is made; `given` is p(final | context, what was seen so
far, time since). What is seen is certain, and what is not seen at the horizon will not come, whatever a model says.

Shapes: B decisions of a batch, F columns of a context, O outputs.
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as functional
from pydantic import Field, model_validator
from torch import Tensor, nn

from foretaste.contracts.config import Frozen
from foretaste.models.delayed_rows import PendingBatch

Method = Literal[
    "oracle", "vanilla", "wait", "ignore", "fake_negative_weighted", "fake_negative_calibrated", "dfm", "es_dfm",
    "defer", "hazard", "landmark",
]  # fmt: skip


class DelayedConfig(Frozen):
    """How feedback that comes late is predicted."""

    method: Method = Field("landmark", description="which model; `oracle` needs labels that nobody has in time")
    horizon_days: float = Field(14.0, gt=0, description="days after a decision until which the feedback counts")
    edges_days: tuple[float, ...] = Field(
        (0.1, 0.3, 1.0, 2.0, 3.0, 4.0, 5.5, 7.0, 9.0, 11.0),
        min_length=1,
        description="where the rate of the feedback may change, between 0 and the horizon (hazard, landmark)",
    )
    hidden: tuple[int, ...] = Field((64, 32), min_length=1, description="widths of the networks' layers")
    code_width: int = Field(8, ge=1, description="width of a title's own vector")
    wait_days: float = Field(14.0, gt=0, description="age from which a decision is believed (wait)")
    elapsed_days: float = Field(1.0, gt=0, description="age at which a decision is first looked at (es_dfm, defer)")
    stacked: bool = Field(
        True, description="whether the rates also read the logit of the model of the context alone (landmark)"
    )
    draws: int = Field(3, ge=1, description="landmarks drawn of a decision each time it is learned from (landmark)")

    @model_validator(mode="after")
    def _within_the_horizon(self) -> DelayedConfig:
        edges = (0.0, *self.edges_days, self.horizon_days)
        if any(later <= earlier for earlier, later in pairwise(edges)):
            raise ValueError(f"edges_days: {self.edges_days} have to rise from 0 to horizon_days {self.horizon_days}")
        for name in ("wait_days", "elapsed_days"):
            if getattr(self, name) > self.horizon_days:
                raise ValueError(f"{name}: wanted at most horizon_days {self.horizon_days}, got {getattr(self, name)}")
        return self


class Tower(nn.Module):
    """Standardised columns and a title's own vector to outputs: a straight line beside a deep network."""

    mean_F: Tensor
    deviation_F: Tensor

    def __init__(
        self,
        config: DelayedConfig,
        num_columns: int,
        num_codes: int,
        num_outputs: int,
        shared: nn.Embedding | None = None,
    ) -> None:
        """`shared` are titles' vectors of another tower, whose weights they stay."""
        super().__init__()
        self.register_buffer("mean_F", torch.zeros(num_columns))
        self.register_buffer("deviation_F", torch.ones(num_columns))
        if shared is None:
            self.own = nn.Embedding(num_codes, config.code_width)
            nn.init.normal_(self.own.weight, std=0.05)
        self._shared = (shared,)  # not registered: weights are filed once
        layers: list[nn.Module] = []
        width = num_columns + config.code_width
        for size in config.hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        self.deep = nn.Sequential(*layers)
        self.out = nn.Linear(num_columns + config.code_width + width, num_outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    @property
    def codes(self) -> nn.Embedding:
        """Titles' own vectors."""
        return self.own if self._shared[0] is None else self._shared[0]

    def standardise(self, columns_NF: Tensor) -> None:
        """Take means and deviations of the first columns; one that does not vary is only centred, others stay."""
        deviation_F, width = columns_NF.std(dim=0, correction=0), columns_NF.shape[1]
        self.mean_F[:width] = columns_NF.mean(dim=0)
        self.deviation_F[:width] = torch.where(deviation_F > 1e-6, deviation_F, torch.ones_like(deviation_F))

    def forward(self, columns_BF: Tensor, code_B: Tensor) -> Tensor:
        """Outputs: float[B, O]."""
        known_B = torch.where(code_B < self.codes.num_embeddings, code_B, torch.zeros_like(code_B))
        told_BF = ((columns_BF - self.mean_F) / self.deviation_F).clamp(-10.0, 10.0)
        told_BF = torch.cat([told_BF, self.codes(known_B)], dim=1)
        return self.out(torch.cat([told_BF, self.deep(told_BF)], dim=1))  # type: ignore[no-any-return]


class DelayedModel(nn.Module):
    """The contract: a loss that adds up over decisions, and two probabilities."""

    def __init__(self, config: DelayedConfig, num_columns: int, num_codes: int, num_signals: int) -> None:
        super().__init__()
        self.config = config
        self.num_signals = num_signals
        self.tower = Tower(config, num_columns, num_codes, 1)

    def expect(self, batch: PendingBatch) -> None:
        """Standardise by the decisions that are learned from first."""
        self.tower.standardise(batch.context_NF)

    @abstractmethod
    def loss(self, batch: PendingBatch) -> Tensor:
        """Summed loss of a batch."""

    def final(self, batch: PendingBatch) -> Tensor:
        """p(final | context): float[B]."""
        return torch.sigmoid(self.logit(batch))

    def given(self, batch: PendingBatch) -> Tensor:
        """p(final | context, so far, time since): float[B]; 1 where it is seen, 0 where it can no longer come."""
        late_B = batch.age_N >= self.config.horizon_days
        open_B = torch.where(late_B, torch.zeros_like(batch.age_N), self.still(batch))
        return torch.where(self._counts(batch), torch.ones_like(open_B), open_B)

    def still(self, batch: PendingBatch) -> Tensor:
        """p(final | ...) of decisions where nothing final is seen, before the horizon: float[B].

        Unless a model knows better, time tells nothing.
        """
        return self.final(batch)

    def logit(self, batch: PendingBatch) -> Tensor:
        """Logit of the model of the context alone: float[B]."""
        return self.tower(batch.context_NF, batch.code_N)[:, 0]  # type: ignore[no-any-return]

    def _counts(self, batch: PendingBatch) -> Tensor:
        return batch.delay_N <= self.config.horizon_days

    def _labelled(self, batch: PendingBatch, label_B: Tensor, weight_B: Tensor) -> Tensor:
        loss_B = functional.binary_cross_entropy_with_logits(self.logit(batch), label_B, reduction="none")
        return (loss_B * weight_B).sum()


class Oracle(DelayedModel):
    """The ceiling: knows every final label. Raises ValueError where one is missing."""

    def loss(self, batch: PendingBatch) -> Tensor:
        if bool(torch.isnan(batch.final_N).any()):
            raise ValueError("oracle: wanted the final label of every decision, found NaN")
        return self._labelled(batch, batch.final_N, torch.ones_like(batch.final_N))


class Vanilla(DelayedModel):
    """What is not seen by now counts as no."""

    def loss(self, batch: PendingBatch) -> Tensor:
        return self._labelled(batch, self._counts(batch).float(), torch.ones_like(batch.age_N))


class Wait(DelayedModel):
    """Believes decisions of `wait_days` and older, by what is seen by now."""

    def loss(self, batch: PendingBatch) -> Tensor:
        old_B = batch.age_N >= self.config.wait_days
        return self._labelled(batch, self._counts(batch).float(), old_B.float())


class Ignore(DelayedModel):
    """Leaves out what is still open: believes what is seen and what is too old to come; too high where much is open."""

    def loss(self, batch: PendingBatch) -> Tensor:
        seen_B = self._counts(batch)
        closed_B = seen_B | (batch.age_N >= self.config.horizon_days)
        return self._labelled(batch, seen_B.float(), closed_B.float())
