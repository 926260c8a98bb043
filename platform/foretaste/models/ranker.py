"""Scores candidates: crosses of features beside a deep network (DCN-v2) that also sees, through attention of each
candidate, the session that is going on and the longer history, and the intents.

Shapes: B requests, C candidates each, F columns of a candidate, R of a request, X of the intents, L recent
interactions, A numbers of each, D width of title vectors, E width of attention, H heads, P places.
Wang et al., DCN V2, WWW 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from pydantic import Field, field_validator
from torch import Tensor, nn

from foretaste.contracts.config import Frozen
from foretaste.models.ranker_heads import Head
from foretaste.models.ranker_inputs import RankerBatch
from foretaste.models.steady import STEADY_ROWS
from foretaste.models.target_attention import TargetAttention

PLACES = 20
"""Places of a slate that differ in how much they are looked at; those below count as the last."""


class RankerConfig(Frozen):
    """Sizes of the ranker and of what it is trained on."""

    cross_layers: int = Field(2, ge=1, description="layers of feature crosses")
    cross_rank: int = Field(16, ge=1, description="rank of a cross's matrix")
    hidden: tuple[int, ...] = Field((64, 32), min_length=1, description="widths of the deep network's layers")
    attention_width: int = Field(16, ge=1, description="width of the candidates' attention")
    recent: int = Field(50, ge=1, description="newest interactions that candidates attend to")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of deep activations dropped in training")
    session_dropout: float = Field(
        0.2, ge=0, le=1, description="share of cases that are trained with the current session cut off"
    )
    order: dict[Head, float] = Field(
        {Head.PLAY: 1.0}, description="weights of the heads in the order shown: expected value of a candidate"
    )
    head_weight: float = Field(0.1, ge=0, description="weight of the other heads' losses beside that of the order")
    impression_weight: float = Field(
        0.1, ge=0, description="weight of a logged impression's loss beside that of a choice; 0 leaves them out"
    )
    propensity_weights: bool = Field(
        True, description="whether impressions count by their inverse logged propensity, where the log has it"
    )
    propensity_clip: float = Field(
        20.0, ge=1, description="largest weight of an impression as a multiple of the mean weight of its batch"
    )
    folds: int = Field(3, ge=2, description="parts of the actors that the epoch is chosen by, each left out in turn")
    start_from: str = Field(
        "intent_logprob", description="column whose order an untrained ranker gives, where it has that column"
    )
    max_cases: int = Field(20_000, ge=1, description="choices of the validation window that training looks at")
    num_candidates: int = Field(100, ge=2, description="best titles of the intent model that a case ranks in training")

    @field_validator("order")
    @classmethod
    def _weighs_plays(cls, order: dict[Head, float]) -> dict[Head, float]:
        if order.get(Head.PLAY, 0.0) <= 0 or min(order.values()) < 0:
            raise ValueError(f"order: {order} has to weigh {Head.PLAY.value} above 0, and none below")
        return order


class Ranker(nn.Module):
    """Inputs to logits of every head; standardises them with the mean and deviation of the training cases."""

    mean_F: Tensor
    deviation_F: Tensor
    mean_X: Tensor
    deviation_X: Tensor
    title_N1D: Tensor
    slope_H: Tensor
    shift_H: Tensor
    on_H: Tensor

    def __init__(
        self,
        config: RankerConfig,
        columns: Sequence[str],
        request_columns: Sequence[str],
        num_about: int,
        context_width: int,
        title_N1D: NDArray[np.float32],
    ) -> None:
        """`title_N1D` are the intent model's title vectors: they are not learned, nor part of the weights."""
        super().__init__()
        self.config = config
        self.columns, self.request_columns = tuple(columns), tuple(request_columns)
        self.num_about, self.context_width = num_about, context_width
        width, vector, size = len(self.columns) + len(self.request_columns), title_N1D.shape[1], config.attention_width
        self.register_buffer("title_N1D", torch.from_numpy(title_N1D.copy()), persistent=False)
        for name, number in (("F", width), ("X", context_width)):
            self.register_buffer(f"mean_{name}", torch.zeros(number))
            self.register_buffer(f"deviation_{name}", torch.ones(number))
        self.register_buffer("slope_H", torch.ones(len(Head)))  # calibration: probability of slope x logit + shift
        self.register_buffer("shift_H", torch.zeros(len(Head)))
        self.register_buffer("on_H", torch.zeros(len(Head)))  # 1 where a head was taught
        self.attention = TargetAttention(vector, num_about, size)
        self.of_context = nn.Linear(context_width, size)
        self.of_title = nn.Linear(vector, size, bias=False)
        self.downs = nn.ModuleList(nn.Linear(width, config.cross_rank, bias=False) for _ in range(config.cross_layers))
        self.ups = nn.ModuleList(nn.Linear(config.cross_rank, width) for _ in range(config.cross_layers))
        widths = (width + 6 * size, *config.hidden)
        layers: list[nn.Module] = []
        for before, after in zip(widths, config.hidden, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(config.dropout)]
        self.deep = nn.Sequential(*layers)
        self.out = nn.Linear(width + config.hidden[-1], len(Head))
        self.place_bias_P = nn.Parameter(torch.zeros(PLACES))  # of impressions alone: what the place does
        self.shown_shift = nn.Parameter(torch.zeros(()))  # of impressions alone: from the order to a probability
        for layer in (*self.ups, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def standardise(self, mean_F: Tensor, deviation_F: Tensor, mean_X: Tensor, deviation_X: Tensor) -> None:
        """Set means and deviations of candidates' and requests' columns and of the intents.

        One that does not vary is only centred. Training starts from here: logits are then those of the column
        `start_from`, so that the ranker has to learn what to change in the order that it is given, and not that order.
        """
        for mean, deviation, wanted_mean, wanted in (
            (self.mean_F, self.deviation_F, mean_F, deviation_F),
            (self.mean_X, self.deviation_X, mean_X, deviation_X),
        ):
            mean.copy_(wanted_mean)
            deviation.copy_(torch.where(wanted > 1e-6, wanted, torch.ones_like(wanted)))
        if self.config.start_from in self.columns:
            column = self.columns.index(self.config.start_from)
            with torch.no_grad():
                self.out.weight[0, column] = self.deviation_F[column]

    def expect(self, shares: Mapping[Head, float]) -> None:
        """Start heads from how often they are true."""
        with torch.no_grad():
            for head, share in shares.items():
                self.out.bias[list(Head).index(head)] = math.log(max(share, 1e-6) / max(1.0 - share, 1e-6))

    def forward(self, batch: RankerBatch) -> Tensor:
        """Logits of the candidates by head, [B, C, H]; those of `play` give the order."""
        logits_BCH: Tensor = self.out(torch.cat(self.last(batch), dim=-1))
        return logits_BCH

    def last(self, batch: RankerBatch) -> tuple[Tensor, Tensor]:
        """What the last layer reads: crossed columns [B, C, F + R], and the deep network's last activations."""
        size, count = batch.code_BC.shape
        told_BCF = torch.cat([batch.features_BCF, batch.request_BR[:, None, :].expand(size, count, -1)], dim=-1)
        first_BCF = ((told_BCF - self.mean_F) / self.deviation_F).clamp(-8.0, 8.0)
        crossed_BCF = first_BCF
        for down, up in zip(self.downs, self.ups, strict=True):
            crossed_BCF = first_BCF * up(down(crossed_BCF)) + crossed_BCF
        deep_BCE = self.deep(torch.cat([first_BCF, *self._looks(batch)], dim=-1))
        return crossed_BCF, deep_BCE

    def _looks(self, batch: RankerBatch) -> list[Tensor]:
        """What candidates see in the session, the history before it and the intents; six times E in all."""
        candidate_BCD, title_BLD = self.title_N1D[batch.code_BC], self.title_N1D[batch.title_BL]
        before_BL = (batch.action_BL > 0) & ~batch.now_BL
        among_BSL = torch.stack([batch.now_BL, before_BL], dim=1)
        seen_BCE = self.attention(candidate_BCD, title_BLD, batch.action_BL, batch.about_BLA, among_BSL)
        context_BX = ((batch.context_BX - self.mean_X) / self.deviation_X).clamp(-8.0, 8.0)
        rows_BX = functional.pad(context_BX, (0, 0, 0, max(0, STEADY_ROWS - len(context_BX))))
        context_B1E = self.of_context(rows_BX)[: len(context_BX), None, :]
        title_BCE = self.of_title(candidate_BCD)
        return [seen_BCE, title_BCE, title_BCE * context_B1E]

    def calibrated(self, logits_BCH: Tensor) -> Tensor:
        """Logits of probabilities: a rising line through each head's, so the order stays."""
        return logits_BCH * self.slope_H + self.shift_H

    def calibrate(self, lines: Mapping[Head, tuple[float, float]]) -> None:
        """Set slope (above 0) and shift of the heads that were taught; the others are off."""
        for place, head in enumerate(Head):
            slope, shift = lines.get(head, (1.0, 0.0))
            self.slope_H[place], self.shift_H[place], self.on_H[place] = slope, shift, float(head in lines)
