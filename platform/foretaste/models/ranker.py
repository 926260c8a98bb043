"""Scores candidates by their features: crosses of features beside a deep network (DCN-v2), with a probability out.

Shapes: B requests, C candidates each, F features (columns), H width of a hidden layer.
Wang et al., DCN V2, WWW 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from foretaste.contracts.config import Frozen


class RankerConfig(Frozen):
    """Sizes of the ranker and of what it is trained on."""

    cross_layers: int = Field(2, ge=1, description="layers of feature crosses")
    hidden: tuple[int, ...] = Field((64, 32), description="widths of the deep network's layers")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of deep activations dropped in training")
    probability_weight: float = Field(
        0.2, gt=0, description="weight of the probability's loss beside that of the order of candidates"
    )
    start_from: str = Field(
        "intent_logprob", description="column whose order an untrained ranker gives, where it has that column"
    )
    max_cases: int = Field(20_000, ge=1, description="choices of the validation window that training looks at")
    num_candidates: int = Field(100, ge=2, description="best titles of the intent model that a case ranks in training")


class Ranker(nn.Module):
    """Features to logits; standardises them with the mean and deviation of the training cases."""

    mean_F: Tensor
    deviation_F: Tensor

    def __init__(self, config: RankerConfig, columns: Sequence[str]) -> None:
        super().__init__()
        self.config = config
        self.columns = tuple(columns)
        width = len(self.columns)
        self.register_buffer("mean_F", torch.zeros(width))
        self.register_buffer("deviation_F", torch.ones(width))
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(config.cross_layers))
        layers: list[nn.Module] = []
        for before, after in zip((width, *config.hidden), config.hidden, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(config.dropout)]
        self.deep = nn.Sequential(*layers)
        self.out = nn.Linear(width + (config.hidden[-1] if config.hidden else width), 1)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.shift = nn.Parameter(torch.zeros(()))
        for layer in (*self.crosses, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def standardise(self, mean_F: Tensor, deviation_F: Tensor) -> None:
        """Set mean and deviation; a column that does not vary is only centred.

        Training starts from here: logits are then those of the column `start_from`, so that the ranker has to learn
        what to change in the order that it is given, and not that order first.
        """
        self.mean_F.copy_(mean_F)
        self.deviation_F.copy_(torch.where(deviation_F > 1e-6, deviation_F, torch.ones_like(deviation_F)))
        if self.config.start_from in self.columns:
            column = self.columns.index(self.config.start_from)
            with torch.no_grad():
                self.out.weight[0, column] = self.deviation_F[column]

    def forward(self, features_BCF: Tensor) -> Tensor:
        """Logits of the candidates, [B, C]."""
        first_BCF = ((features_BCF - self.mean_F) / self.deviation_F).clamp(-8.0, 8.0)
        crossed_BCF = first_BCF
        for cross in self.crosses:
            crossed_BCF = first_BCF * cross(crossed_BCF) + crossed_BCF
        joined = torch.cat([crossed_BCF, self.deep(first_BCF)], dim=-1)
        logits_BC: Tensor = self.out(joined).squeeze(-1)
        return logits_BC

    def calibrated(self, logits_BC: Tensor) -> Tensor:
        """Logits of the probability of a choice: a rising line through the logits, so the order stays."""
        return logits_BC * self.log_scale.exp() + self.shift

    def loss(self, features_BCF: Tensor, chosen_BC: Tensor, real_BC: Tensor) -> Tensor:
        """Summed loss of B cases: that the chosen stand above the others, and that the probability is right.

        `chosen_BC` is 1 for what was chosen; `real_BC` is False for padding. The first is a softmax over the
        candidates of a case, the second a binary cross-entropy, its mean over them.
        """
        logits_BC = self(features_BCF).masked_fill(~real_BC, float("-inf"))
        share_BC = chosen_BC / chosen_BC.sum(dim=1, keepdim=True).clamp(min=1.0)
        log_softmax_BC = F.log_softmax(logits_BC, dim=1).masked_fill(~real_BC, 0.0)
        order = -(share_BC * log_softmax_BC).sum()
        own_BC = self.calibrated(logits_BC.masked_fill(~real_BC, 0.0))
        binary_BC = F.binary_cross_entropy_with_logits(own_BC, chosen_BC, reduction="none") * real_BC
        return order + self.config.probability_weight * binary_BC.sum()


class RankerScorer:
    """The trained ranker in evaluation mode."""

    def __init__(self, model: Ranker) -> None:
        self.model = model.eval()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the features, in the order that `scores` takes them."""
        return self.model.columns

    def check_columns(self, columns: Sequence[str]) -> None:
        """Raise ValueError, naming the columns that differ, unless these are those it was trained with."""
        if tuple(columns) == self.columns:
            return
        missing = [name for name in self.columns if name not in columns]
        unknown = [name for name in columns if name not in self.columns]
        what = f"missing {missing}, not known to it {unknown}" if missing or unknown else f"order is {list(columns)}"
        raise ValueError(f"ranker was trained with columns {list(self.columns)}: {what}")

    @torch.inference_mode()
    def scores(self, features_BCF: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probability, in (0, 1), that each candidate is chosen; float64[B, C].

        Raises ValueError where the number of features is not that of the columns or one is not finite.
        """
        if features_BCF.ndim != 3 or features_BCF.shape[2] != len(self.columns):
            raise ValueError(f"ranker wants [B, C, {len(self.columns)}] of {self.columns}, got {features_BCF.shape}")
        if not np.isfinite(features_BCF).all():
            bad = [self.columns[f] for f in np.unique(np.nonzero(~np.isfinite(features_BCF))[2])]
            raise ValueError(f"ranker features are not finite in columns {bad}")
        logits_BC = self.model.calibrated(self.model(torch.from_numpy(np.ascontiguousarray(features_BCF)))).double()
        return torch.sigmoid(logits_BC.clamp(-30.0, 30.0)).numpy()


def ranker_bundle_config(model: Ranker) -> dict[str, Any]:
    """What `build_ranker` needs beside the weights."""
    return {"model": model.config.model_dump(mode="json"), "columns": list(model.columns)}


def build_ranker(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> RankerScorer:
    """Make a scorer of a bundle's configuration and weights. Raises RuntimeError (of torch) where they do not fit."""
    model = Ranker(RankerConfig(**config["model"]), config["columns"])
    model.load_state_dict(dict(weights))
    return RankerScorer(model)
