"""Models of when the feedback comes, which learn from a decision as far as it was watched.

The feedback of a decision comes at a rate that may change at fixed ages; a decision that is a day old says what it has
to say of the first day and nothing of the others (right censoring), so the newest decisions are learned from at once
and without bias, provided that when a decision is looked at does not hang on what is going to come.

Shapes: B decisions of a batch, K intervals of age, S signals.
Friedman, Annals of Statistics 1982 (piecewise exponential); van Houwelingen, Scand. J. Statistics 2007 (landmarks).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from foretaste.models.delayed import DelayedConfig, DelayedModel, Tower
from foretaste.models.delayed_rows import PendingBatch

LEAST_RATE, MOST_RATE = -12.0, 6.0
"""Bounds of the logarithm of a rate a day."""
SPREAD = 0.3
"""Deviation that ages and signals are taken to have; what it will be is not to be seen in the first decisions."""
PRIOR_DAYS = 30.0
"""Days of watching that the rate of the interval before counts for, when the rates of the first decisions are taken."""


def exposure(from_B: Tensor, to_B: Tensor, edge_K1: Tensor) -> Tensor:
    """Days that ages from..to have in common with each interval of age: float[B, K]."""
    low_B1, high_B1 = from_B[:, None], to_B[:, None]
    return (torch.minimum(high_B1, edge_K1[1:]) - torch.maximum(low_B1, edge_K1[:-1])).clamp(min=0.0)


def negative_log_likelihood(
    log_rate_BK: Tensor, from_B: Tensor, age_B: Tensor, delay_B: Tensor, edge_K1: Tensor
) -> Tensor:
    """Of decisions watched from one age to another, whose feedback came at `delay_B` or not (inf): float[B].

    An event has the logarithm of the rate at its age, and all have the rate times the days in which it did not come.
    Days after the horizon, the last edge, are not looked at.
    """
    end_B = torch.minimum(torch.minimum(age_B, delay_B), edge_K1[-1])
    hazard_B = (torch.exp(log_rate_BK) * exposure(from_B, end_B, edge_K1)).sum(dim=1)
    came_B = (delay_B <= edge_K1[-1]) & (delay_B <= age_B)
    place_B = torch.searchsorted(edge_K1[1:-1].contiguous(), end_B.contiguous())
    rate_B = log_rate_BK.gather(1, place_B[:, None])[:, 0]
    return hazard_B - torch.where(came_B, rate_B, torch.zeros_like(rate_B))


class ExponentialDelay(DelayedModel):
    """A chance of feedback, and an exponential delay, both of the context. Chapelle, KDD 2014 (DFM)."""

    def __init__(self, config: DelayedConfig, num_columns: int, num_codes: int, num_signals: int) -> None:
        super().__init__(config, num_columns, num_codes, num_signals)
        self.delay = Tower(config, num_columns, num_codes, 1)

    def expect(self, batch: PendingBatch) -> None:
        super().expect(batch)
        self.delay.standardise(batch.context_NF)

    def loss(self, batch: PendingBatch) -> Tensor:
        logit_B, log_rate_B = self.logit(batch), self._log_rate(batch)
        watched_B = batch.age_N.clamp(max=self.config.horizon_days)
        counts_B = self._counts(batch)
        delay_B = torch.where(counts_B, batch.delay_N, torch.zeros_like(batch.delay_N))
        yes_B = functional.softplus(-logit_B) - log_rate_B + torch.exp(log_rate_B) * delay_B
        # log(1 - p + p exp(-rate x age)) = log(1 + exp(logit - rate x age)) - log(1 + exp(logit))
        no_B = functional.softplus(logit_B) - functional.softplus(logit_B - torch.exp(log_rate_B) * watched_B)
        return torch.where(counts_B, yes_B, no_B).sum()

    def still(self, batch: PendingBatch) -> Tensor:
        return torch.sigmoid(self.logit(batch) - torch.exp(self._log_rate(batch)) * batch.age_N)

    def _log_rate(self, batch: PendingBatch) -> Tensor:
        return self.delay(batch.context_NF, batch.code_N)[:, 0].clamp(LEAST_RATE, MOST_RATE)  # type: ignore[no-any-return]


class Hazard(DelayedModel):
    """A rate of feedback by interval of age, of the context alone."""

    edge_K1: Tensor

    def __init__(self, config: DelayedConfig, num_columns: int, num_codes: int, num_signals: int) -> None:
        super().__init__(config, num_columns, num_codes, num_signals)
        edges = (0.0, *config.edges_days, config.horizon_days)
        self.register_buffer("edge_K1", torch.tensor(edges), persistent=False)
        self.rates = Tower(config, num_columns + self._extra(), num_codes, len(edges), self._codes())

    def _codes(self) -> nn.Embedding | None:
        """Titles' own vectors that the rates are given; None: they have their own."""
        return None

    def _extra(self) -> int:
        """Columns beside the context's."""
        return 0

    def expect(self, batch: PendingBatch) -> None:
        super().expect(batch)
        self.rates.standardise(batch.context_NF)
        self.rates.deviation_F[batch.context_NF.shape[1] :] = SPREAD
        end_B = torch.minimum(batch.age_N, batch.delay_N)
        days_BK = exposure(torch.zeros_like(end_B), end_B, self.edge_K1)
        place_B = torch.searchsorted(self.edge_K1[1:-1].contiguous(), end_B.contiguous())
        came_BK = functional.one_hot(place_B, days_BK.shape[1]) * self._counts(batch)[:, None]
        came_K, days_K = came_BK.sum(dim=0), days_BK.sum(dim=0)
        rate = came_K.sum() / days_K.sum().clamp(min=1.0)
        with torch.no_grad():
            for k, (came, days) in enumerate(zip(came_K, days_K, strict=True)):
                rate = (came + PRIOR_DAYS * rate) / (days + PRIOR_DAYS)  # an age not seen yet has the rate before it
                self.rates.out.bias[1 + k] = torch.log(rate.clamp(min=math.exp(LEAST_RATE)))

    def loss(self, batch: PendingBatch) -> Tensor:
        zero_B = torch.zeros_like(batch.age_N)
        log_rate_BK = self._log_rates(batch, zero_B, torch.zeros_like(batch.signals_NS))
        return negative_log_likelihood(log_rate_BK, zero_B, batch.age_N, batch.delay_N, self.edge_K1).sum()

    def final(self, batch: PendingBatch) -> Tensor:
        return self._to_come(batch, torch.zeros_like(batch.age_N), torch.zeros_like(batch.signals_NS))

    def still(self, batch: PendingBatch) -> Tensor:
        return self._to_come(batch, batch.age_N, batch.signals_NS)

    def _columns(self, batch: PendingBatch, age_B: Tensor, signals_BS: Tensor) -> Tensor:
        return batch.context_NF

    def _log_rates(self, batch: PendingBatch, age_B: Tensor, signals_BS: Tensor) -> Tensor:
        """Logarithms of the rates from an age on, a level of the decision added to each interval's: float[B, K]."""
        out_BK1: Tensor = self.rates(self._columns(batch, age_B, signals_BS), batch.code_N)
        return (out_BK1[:, :1] + out_BK1[:, 1:]).clamp(LEAST_RATE, MOST_RATE)

    def _to_come(self, batch: PendingBatch, age_B: Tensor, signals_BS: Tensor) -> Tensor:
        """Chance that it comes between an age and the horizon: float[B]."""
        rate_BK = torch.exp(self._log_rates(batch, age_B, signals_BS))
        days_BK = exposure(age_B, torch.full_like(age_B, self.config.horizon_days), self.edge_K1)
        return -torch.expm1(-(rate_BK * days_BK).sum(dim=1))


class Landmark(Hazard):
    """Rates from an age on, of the context, that age and the signals seen by then; what is open is labelled by them.

    A decision is looked at as it was at some of its landmarks, drawn from all of them: those that it did not reach
    without feedback count for nothing, and no others are drawn for them. Drawn from those that it reached, early
    landmarks would be those of decisions whose feedback came soon. The model of the context alone learns from what is
    seen, and from the predicted chance where nothing is seen yet.
    """

    def _codes(self) -> nn.Embedding:
        return self.tower.codes  # what comes early tells of a new title before anything final does

    def _extra(self) -> int:
        return self.num_signals + 2 + self.config.stacked

    def loss(self, batch: PendingBatch) -> Tensor:
        with torch.no_grad():
            label_B = self.given(batch)
        total = self._labelled(batch, label_B, torch.ones_like(label_B))
        end_B = torch.minimum(batch.age_N, batch.delay_N).clamp(max=self.config.horizon_days)
        dice_BL = torch.rand(batch.mark_NL.shape, device=end_B.device)
        drawn_BD = dice_BL.topk(min(self.config.draws, dice_BL.shape[1]), dim=1).indices
        for drawn_B in drawn_BD.T:
            mark_B = batch.mark_NL.gather(1, drawn_B[:, None])[:, 0]
            signals_BS = batch.marked_NLS[torch.arange(len(drawn_B), device=drawn_B.device), drawn_B]
            log_rate_BK = self._log_rates(batch, mark_B, signals_BS)
            loss_B = negative_log_likelihood(log_rate_BK, mark_B, batch.age_N, batch.delay_N, self.edge_K1)
            total = total + torch.where(mark_B < end_B, loss_B, torch.zeros_like(loss_B)).sum() / drawn_BD.shape[1]
        return total

    def final(self, batch: PendingBatch) -> Tensor:
        return torch.sigmoid(self.logit(batch))

    def _columns(self, batch: PendingBatch, age_B: Tensor, signals_BS: Tensor) -> Tensor:
        root_B, log_B = torch.sqrt(age_B / self.config.horizon_days), 0.5 * torch.log(age_B + 0.02)
        told = [SPREAD * self.logit(batch).detach()[:, None]] if self.config.stacked else []
        return torch.cat([batch.context_NF, signals_BS, root_B[:, None], log_B[:, None], *told], dim=1)
