"""What the ranker is taught: the order of candidates, every head's probability, and what shown titles came to.

Shapes: B cases, C candidates, H heads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from foretaste.models.ranker import PLACES, Ranker
from foretaste.models.ranker_heads import Head
from foretaste.models.ranker_inputs import RankerBatch


class Labels(NamedTuple):
    """What followed, as tensors; see training.ranker_cases.RankerCases."""

    chosen_BC: Tensor
    fraction_BC: Tensor
    thumb_BC: Tensor
    listed_BC: Tensor
    place_BC: Tensor
    weight_BC: Tensor


def choice_loss(network: Ranker, batch: RankerBatch, labels: Labels) -> Tensor:
    """Summed loss of B choices: that the chosen stand above the others, and that the other heads are right.

    The first is a softmax over the candidates of a case, the others binary cross-entropies over what is known.
    """
    logits_BCH, real_BC = network(batch), batch.code_BC > 0
    play_BC = logits_BCH[..., 0].masked_fill(~real_BC, float("-inf"))
    share_BC = labels.chosen_BC / labels.chosen_BC.sum(dim=1, keepdim=True).clamp(min=1.0)
    log_softmax_BC = F.log_softmax(play_BC, dim=1).masked_fill(~real_BC, 0.0)
    order: Tensor = -(share_BC * log_softmax_BC).sum()
    return order + network.config.head_weight * _others(logits_BCH, labels, real_BC)


def impression_loss(network: Ranker, batch: RankerBatch, labels: Labels) -> Tensor:
    """Summed loss of B slates: whether each title shown was played from there, and what came of it.

    How much a place is looked at is learned beside and left out of what is served. With `propensity_weights`, titles
    count by their inverse propensity: as if each had been shown as often as any other.
    """
    config = network.config
    logits_BCH, real_BC = network(batch), batch.code_BC > 0
    bias_BC = network.place_bias_P[labels.place_BC.long().clamp(0, PLACES - 1)]
    each_BC = F.binary_cross_entropy_with_logits(
        logits_BCH[..., 0] + bias_BC + network.shown_shift, labels.chosen_BC, reduction="none"
    )
    weight_BC = importance(labels.weight_BC, real_BC, clip=config.propensity_clip) if config.propensity_weights else 1.0
    play = (each_BC * weight_BC * real_BC).sum()
    return config.impression_weight * (play + config.head_weight * _others(logits_BCH, labels, real_BC))


def importance(weight_BC: Tensor, real_BC: Tensor, *, clip: float) -> Tensor:
    """Importance weights with mean 1 over what is real (self-normalised), none above `clip` times their mean.

    Clipping comes first and makes them biased towards what was shown often; without it (`clip` large) the weighted
    mean over impressions is the mean over all titles, up to O(1 / B). Swaminathan and Joachims, NeurIPS 2015.
    """
    number = real_BC.sum().clamp(min=1)
    mean = (weight_BC * real_BC).sum() / number
    clipped_BC = torch.minimum(weight_BC, clip * mean) * real_BC
    return clipped_BC / (clipped_BC.sum() / number).clamp(min=1e-12)


def _others(logits_BCH: Tensor, labels: Labels, real_BC: Tensor) -> Tensor:
    total = logits_BCH.new_zeros(())
    for place, head in enumerate(Head):
        if head is Head.PLAY:
            continue
        label_BC = {Head.FRACTION: labels.fraction_BC, Head.THUMB: labels.thumb_BC, Head.LIST: labels.listed_BC}[head]
        known_BC = real_BC & ~torch.isnan(label_BC)
        each_BC = F.binary_cross_entropy_with_logits(
            logits_BCH[..., place], torch.nan_to_num(label_BC), reduction="none"
        )
        total = total + (each_BC * known_BC).sum()
    return total
