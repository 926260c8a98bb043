"""What a policy is taught by choices that another one logged: an estimate of what it would have earned.

Every estimate is the mean of terms, a term a round, so that one penalty fits all: the objective is the mean of the
terms less some of its standard errors (counterfactual risk minimisation, POEM). Weights may be capped, which bounds
terms and biases towards what was logged.

Shapes: B lists, C candidates of a pool, K places, R rounds: places that count.
Swaminathan and Joachims, JMLR 2015 (POEM) and NeurIPS 2015 (self-normalised); Joachims, Swaminathan and de Rijke,
ICLR 2018 (BanditNet); Dudik, Langford and Li, ICML 2011 (doubly robust).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from foretaste.contracts.config import Frozen

LEAST_VARIANCE = 1e-12
"""Its square root has a gradient."""


class Objective(StrEnum):
    """What is made large; the last two are plain supervised training, which knows no propensities."""

    IPS = "ips"
    SNIPS = "snips"
    SHIFTED = "shifted"
    DR = "dr"
    CROSS_ENTROPY = "cross_entropy"
    REGRESSION = "regression"


SUPERVISED = (Objective.CROSS_ENTROPY, Objective.REGRESSION)


class ObjectiveConfig(Frozen):
    """How rounds are made an objective."""

    objective: Objective = Field(
        Objective.SNIPS,
        description="ips, snips, shifted (BanditNet), dr; supervised: cross_entropy (of what was rewarded), regression",
    )
    cap: float | None = Field(30.0, gt=0, description="largest importance weight; null: none")
    variance_penalty: float = Field(0.0, ge=0, description="standard errors that are taken off the estimate (POEM)")
    shift: float | None = Field(
        None, description="of shifted: taken off every reward, in its unit; null: the mean reward that was logged"
    )
    weigh: Literal["place", "above"] = Field(
        "place",
        description="a place weighs by its own choice given those above, or by all choices down to it (exact where "
        "what stands above changes what a place earns; wide for long lists)",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.objective is Objective.DR and self.weigh == "above":
            raise ValueError("objective dr weighs by place: its reward model says nothing of the places below")
        return self


class Rounds(NamedTuple):
    """What a policy says of logged rounds, and what they earned."""

    log_ratio_R: Tensor  # of the policy's chance to the logged propensity
    reward_R: Tensor
    predicted_R: Tensor  # reward that a model expects of what was chosen
    expected_R: Tensor  # reward that it expects of the policy


def log_chances(scores_BC: Tensor, real_BC: Tensor, chosen_BK: Tensor) -> Tensor:
    """Log of Plackett-Luce chances at each place given those chosen above: [B, K, C], -inf for who cannot stand there.

    `chosen_BK` are places in the pool, -1 where the list is over. Where nothing is left the row means nothing.
    """
    num_candidates = scores_BC.shape[1]
    one_BKC = F.one_hot(chosen_BK.clamp(min=0), num_candidates) * (chosen_BK >= 0)[..., None]
    left_BKC = real_BC[:, None, :] & ((one_BKC.cumsum(dim=1) - one_BKC) == 0)
    some_BK1 = left_BKC.any(dim=2, keepdim=True)
    masked_BKC = scores_BC[:, None, :].masked_fill(some_BK1 & ~left_BKC, float("-inf"))
    return F.log_softmax(masked_BKC, dim=2)


def importance(log_ratio_R: Tensor, *, cap: float | None) -> Tensor:
    """Importance weights, none above `cap`; what is capped teaches nothing. Bottou et al., JMLR 2013."""
    ratio_R = torch.exp(log_ratio_R.clamp(max=80.0))
    return ratio_R if cap is None else ratio_R.clamp(max=cap)


def ips(weight_R: Tensor, reward_R: Tensor) -> Tensor:
    """Weighted rewards. Unbiased where no weight is capped; wants rewards that are 0 in the mean, or many rounds."""
    return weight_R * reward_R


def snips(weight_R: Tensor, reward_R: Tensor) -> Tensor:
    """Terms whose mean is sum(weight reward) / sum(weight), with its gradient, and whose spread is its influence.

    A constant added to all rewards is added to the estimate and changes no gradient.
    """
    mass = weight_R.mean().clamp(min=torch.finfo(weight_R.dtype).tiny)
    value = (weight_R * reward_R).mean() / mass
    return value + weight_R * (reward_R - value) / mass


def shifted(weight_R: Tensor, reward_R: Tensor, shift: Tensor | float) -> Tensor:
    """Weighted rewards above a fixed `shift`: a sum over rounds, so batches and workers change nothing.

    It is the Lagrangian of the self-normalised estimate, which it equals in value and gradient, up to a scale, where
    `shift` is that estimate.
    """
    return weight_R * (reward_R - shift) + shift


def doubly_robust(weight_R: Tensor, reward_R: Tensor, predicted_R: Tensor, expected_R: Tensor) -> Tensor:
    """What a reward model expects of the policy, and the weighted surprise of what was logged."""
    return expected_R + weight_R * (reward_R - predicted_R)


def penalised(terms_R: Tensor, *, penalty: float, num_rounds: int) -> Tensor:
    """Mean of the terms less `penalty` standard errors of a mean over `num_rounds`; a scalar.

    The spread is that of these terms, however many of all rounds they are.
    """
    mean = terms_R.mean()
    if penalty == 0.0 or len(terms_R) < 2:
        return mean
    variance = (terms_R - mean).square().sum() / (len(terms_R) - 1)
    return mean - penalty * (variance.clamp(min=LEAST_VARIANCE) / num_rounds).sqrt()


def objective(rounds: Rounds, config: ObjectiveConfig, *, shift: float, num_rounds: int) -> Tensor:
    """What a policy would have earned a round by the configured estimate, less its penalty; a scalar, to be made large.

    `shift` is that of SHIFTED, `num_rounds` how many are learned from in all. Raises ValueError for supervised ones.
    """
    if config.objective in SUPERVISED:
        raise ValueError(f"{config.objective.value} estimates no policy's reward")
    weight_R = importance(rounds.log_ratio_R, cap=config.cap)
    if config.objective is Objective.IPS:
        terms_R = ips(weight_R, rounds.reward_R)
    elif config.objective is Objective.SNIPS:
        terms_R = snips(weight_R, rounds.reward_R)
    elif config.objective is Objective.SHIFTED:
        terms_R = shifted(weight_R, rounds.reward_R, shift)
    else:
        terms_R = doubly_robust(weight_R, rounds.reward_R, rounds.predicted_R, rounds.expected_R)
    return penalised(terms_R, penalty=config.variance_penalty, num_rounds=num_rounds)


def cross_entropy(log_chance_R: Tensor, reward_R: Tensor) -> Tensor:
    """Summed -reward x log chance: how unlikely what was rewarded is. Rewards below 0 do not count."""
    return -(reward_R.clamp(min=0.0) * log_chance_R).sum()


def regression(log_value_R: Tensor, reward_R: Tensor) -> Tensor:
    """Summed cross-entropy of rewards of 0..1 and values, given as logarithms."""
    log_value_R = log_value_R.clamp(max=-1e-6)
    log_rest_R = torch.log(-torch.expm1(log_value_R))
    return -(reward_R * log_value_R + (1.0 - reward_R) * log_rest_R).sum()
