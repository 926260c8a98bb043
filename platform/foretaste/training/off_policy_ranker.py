"""The ranker as a policy that learns: the softmax that `policies.PlackettLuce` serves of its scores, with gradients.

What is trained is what is served: the logarithm of the value by `ranker.order`, calibrated, floored as
`policies.worth.log_values` floors it. So a trained ranker is a ranker like any other, and needs no code to be served.

Shapes: B lists, C candidates of a pool, E last activations of the deep network, K places, G numbers of a description.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn

from foretaste.models.ranker import Ranker
from foretaste.models.ranker_heads import Head, combined
from foretaste.models.ranker_inputs import RankerInputs
from foretaste.policies.worth import LEAST_SHARE
from foretaste.training.off_policy_lists import LoggedLists
from foretaste.training.off_policy_task import in_blocks

Layers = Literal["last", "all"]
PENALTIES = tuple(10.0**power for power in range(-1, 6))
"""Tried for the reward model."""


class RankerPolicy(nn.Module):
    """Logarithms of the values that the ranker gives; `layers` says what learns: its last layer, or all of it.

    Nothing is dropped in training: a weight is of what the policy does, not of what a part of it would.
    """

    def __init__(self, ranker: Ranker, layers: Layers) -> None:
        super().__init__()
        self.ranker = ranker.eval()
        for name, parameter in ranker.named_parameters():
            of_lists = name not in ("place_bias_P", "shown_shift")
            parameter.requires_grad_(of_lists and (layers == "all" or name.startswith("out.")))
        self._heads = [head for place, head in enumerate(Head) if head is Head.PLAY or ranker.on_H[place] > 0]

    def train(self, mode: bool = True) -> Self:
        """Keep dropout off."""
        super().train(mode)
        self.ranker.eval()
        return self

    def forward(self, inputs: RankerInputs) -> Tensor:
        """Float[B, C], finite for padding, too."""
        batch = inputs.tensors(self.ranker.slope_H.device)
        logits_BCH = self.ranker.calibrated(self.ranker(batch)).clamp(-30.0, 30.0)
        order = {head: weight for head, weight in self.ranker.config.order.items() if weight > 0}
        needed = [head for head in self._heads if head is Head.PLAY or head in order]
        places = {head: list(Head).index(head) for head in needed}
        if needed == [Head.PLAY]:
            log_BC = math.log(order[Head.PLAY]) + nn.functional.logsigmoid(logits_BCH[..., places[Head.PLAY]])
        else:
            chances = {head: torch.sigmoid(logits_BCH[..., place]) for head, place in places.items()}
            log_BC = torch.log(combined(chances, order))
        best_B1 = log_BC.masked_fill(batch.code_BC == 0, float("-inf")).amax(dim=1, keepdim=True)
        return torch.maximum(log_BC, best_B1.clamp(min=-1e3) + math.log(LEAST_SHARE))

    @torch.no_grad()
    def described(self, inputs: RankerInputs) -> NDArray[np.float64]:
        """What a reward model reads of candidates: the last activations, the log value and its exponential."""
        _, deep_BCE = self.ranker.last(inputs.tensors(self.ranker.slope_H.device))
        log_BC1 = self(inputs)[..., None]
        found: NDArray[np.float64] = torch.cat([deep_BCE, log_BC1, log_BC1.exp()], dim=2).double().cpu().numpy()
        return found


def with_reward_model(
    policy: RankerPolicy, lists: LoggedLists[RankerInputs], learns_B: NDArray[np.bool_]
) -> LoggedLists[RankerInputs]:
    """Lists with what a ridge regression on the policy's own description expects of each candidate, and for the place.

    Of two halves of the actors that are learned from each is predicted by the other; all others by both. Without rounds
    to learn from nothing is expected of anything.
    """
    policy.eval()
    half_B = np.where(learns_B, lists.actor_B % 2, 2)
    counts_BK = lists.counts_BK & learns_B[:, None]
    row_R, place_R = np.nonzero(counts_BK)
    if not len(row_R):
        return lists
    described = np.concatenate([_of_chosen(policy, some) for some in in_blocks(lists)])
    x_RG, reward_R = described[row_R, place_R], lists.reward_BK[counts_BK]
    by_place_RK = np.eye(lists.chosen_BK.shape[1])[place_R]
    predicted_BC, beside_BK = lists.predicted_BC.copy(), lists.beside_BK.copy()
    for half in range(3):
        of = half_B[row_R] != half if half < 2 else np.ones(len(row_R), dtype=np.bool_)
        mine = np.flatnonzero(half_B == half)
        if not of.any() or not len(mine):
            continue
        mean_G, spread_G = x_RG[of].mean(axis=0), x_RG[of].std(axis=0) + 1e-6
        model = RidgeCV(alphas=PENALTIES).fit(
            np.column_stack([(x_RG[of] - mean_G) / spread_G, by_place_RK[of]]), reward_R[of]
        )
        slope_G, of_place_K = np.split(np.asarray(model.coef_), [len(mean_G)])
        slope_G = slope_G / spread_G
        level = float(model.intercept_) - float(mean_G @ slope_G)
        beside_BK[mine] = of_place_K
        first = 0
        for some in in_blocks(lists.rows(mine)):
            rows = mine[first : first + len(some)]
            predicted_BC[rows] = level + policy.described(some.inputs) @ slope_G
            first += len(some)
    return lists.modelled(predicted_BC, beside_BK)


def _of_chosen(policy: RankerPolicy, some: LoggedLists[Any]) -> NDArray[np.float64]:
    """Descriptions of what was chosen: float64[B, K, G]."""
    chosen_BK1 = np.clip(some.chosen_BK, 0, None)[..., None]
    found: NDArray[np.float64] = np.take_along_axis(policy.described(some.inputs), chosen_BK1, axis=1)
    return found
