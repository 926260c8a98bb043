"""Models that take what is not seen for a no at first, and make good for it with weights.

A decision counts as a no when it is first looked at and once more, as a yes, when its feedback comes; weights lead
from that mixture back to the final labels. They are no part of the gradient.

Shapes: B decisions of a batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from foretaste.models.delayed import DelayedConfig, DelayedModel, Tower
from foretaste.models.delayed_rows import PendingBatch

LEAST = 1e-3


def _weighted(logit_B: Tensor, no_B: Tensor, yes_B: Tensor) -> Tensor:
    """Sum of weighted losses of noes and yeses."""
    return (no_B * functional.softplus(logit_B) + yes_B * functional.softplus(-logit_B)).sum()


class FakeNegativeWeighted(DelayedModel):
    """Every decision is a no at once, and a yes once it is seen; weights from the model itself.

    Ktena et al., RecSys 2019 (FNW).
    """

    def loss(self, batch: PendingBatch) -> Tensor:
        logit_B = self.logit(batch)
        told_B = torch.sigmoid(logit_B.detach())
        return _weighted(logit_B, (1.0 - told_B) * (1.0 + told_B), self._counts(batch) * (1.0 + told_B))


class FakeNegativeCalibrated(DelayedModel):
    """Learns the mixture b as it is, without weights, and answers b / (1 - b). Ktena et al., RecSys 2019 (FNC)."""

    def loss(self, batch: PendingBatch) -> Tensor:
        return _weighted(self.logit(batch), torch.ones_like(batch.age_N), self._counts(batch).float())

    def final(self, batch: PendingBatch) -> Tensor:
        return torch.exp(self.logit(batch)).clamp(max=1.0)  # b / (1 - b) is the exponential of the logit


class _Elapsed(DelayedModel):
    """What the models that look first after `elapsed_days` have in common: a second opinion from old decisions."""

    def __init__(self, config: DelayedConfig, num_columns: int, num_codes: int, num_signals: int) -> None:
        super().__init__(config, num_columns, num_codes, num_signals)
        self.second = Tower(config, num_columns, num_codes, 2)

    def expect(self, batch: PendingBatch) -> None:
        super().expect(batch)
        self.second.standardise(batch.context_NF)

    def _opinions(self, batch: PendingBatch) -> tuple[Tensor, Tensor, Tensor]:
        """p(yes after the first look), p(no | no yes at the first look), and the summed loss of both.

        Both are learned from decisions as old as the horizon.
        """
        logit_B2 = self.second(batch.context_NF, batch.code_N)
        old_B = batch.age_N >= self.config.horizon_days
        soon_B = batch.delay_N <= self.config.elapsed_days
        later_B = self._counts(batch) & ~soon_B
        losses_B2 = functional.binary_cross_entropy_with_logits(
            logit_B2, torch.stack([later_B, ~later_B], dim=1).float(), reduction="none"
        )
        weight_B2 = torch.stack([old_B, old_B & ~soon_B], dim=1).float()
        told_B2 = torch.sigmoid(logit_B2.detach())
        return told_B2[:, 0], told_B2[:, 1], (losses_B2 * weight_B2).sum()

    def _looks(self, batch: PendingBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Of each decision: no at the first look, yes at the first look, yes since."""
        looked_B = batch.age_N >= self.config.elapsed_days
        soon_B = looked_B & (batch.delay_N <= self.config.elapsed_days)
        later_B = looked_B & self._counts(batch) & ~soon_B
        return (looked_B & ~soon_B).float(), soon_B.float(), later_B.float()


class ElapsedSampling(_Elapsed):
    """Looks first after `elapsed_days`; a yes that comes later is one more. Yang et al., AAAI 2021 (ES-DFM)."""

    def loss(self, batch: PendingBatch) -> Tensor:
        delayed_B, real_B, opinion = self._opinions(batch)
        no_B, soon_B, later_B = self._looks(batch)
        logit_B = self.logit(batch)
        return opinion + _weighted(logit_B, no_B * (1.0 + delayed_B) * real_B, (soon_B + later_B) * (1.0 + delayed_B))

    def still(self, batch: PendingBatch) -> Tensor:
        """The second opinion from the first look on."""
        later_B = 1.0 - torch.sigmoid(self.second(batch.context_NF, batch.code_N)[:, 1])
        return torch.where(batch.age_N >= self.config.elapsed_days, later_B, self.final(batch))


class RealNegatives(_Elapsed):
    """Adds every decision once more when it is decided, noes too. Gu et al., ACM CIKM 2021 workshop (DEFER)."""

    def loss(self, batch: PendingBatch) -> Tensor:
        delayed_B, _, opinion = self._opinions(batch)
        no_B, soon_B, later_B = self._looks(batch)
        old_B = (batch.age_N >= self.config.horizon_days).float()
        logit_B = self.logit(batch)
        told_B = torch.sigmoid(logit_B.detach())
        yes_share_B = (told_B - 0.5 * delayed_B).clamp(min=LEAST)
        no_weight_B = (1.0 - told_B) / (1.0 - yes_share_B)
        again_yes_B, again_no_B = soon_B * old_B + later_B, (no_B - later_B) * old_B
        return opinion + _weighted(
            logit_B, (no_B + again_no_B) * no_weight_B, (soon_B + again_yes_B) * (told_B / yes_share_B).clamp(max=20.0)
        )
