"""What is specific to learning from logged choices in the training loop.

Shapes: B lists, C candidates of a pool, K places, R rounds: places that count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.training.config import TrainingConfig
from foretaste.training.off_policy_lists import LoggedLists
from foretaste.training.off_policy_objectives import (
    SUPERVISED,
    Objective,
    ObjectiveConfig,
    Rounds,
    cross_entropy,
    doubly_robust,
    importance,
    log_chances,
    objective,
    regression,
)

LISTS_AT_ONCE = 1_024


class Scores(Protocol):
    """A network that says of each list's candidates by how much they are preferred."""

    def __call__(self, inputs: Any) -> Tensor:
        """Logarithms of values, float[B, C]; finite for padding, too."""
        ...


class OffPolicyTask:
    """Trains a policy on this worker's lists: softmax of the network's scores over `temperature`, place by place.

    `left_out` are lists of other actors that choose the epoch, by the doubly robust estimate where there is a reward
    model and the self-normalised one where there is none; `has_left_out` says whether any worker has some. `shift` and
    `num_rounds` are of all workers.
    """

    def __init__(
        self,
        network: nn.Module,
        lists: LoggedLists[Any],
        training: TrainingConfig,
        config: ObjectiveConfig,
        *,
        temperature: float,
        shift: float,
        num_rounds: int,
        rank: int = 0,
        left_out: LoggedLists[Any] | None = None,
        has_left_out: bool = False,
        modelled: bool = False,
    ) -> None:
        self.network: nn.Module = network
        self._lists, self._left_out = with_rounds(lists), None if left_out is None else with_rounds(left_out)
        self.num_predictions = int(self._lists.counts_BK.sum())
        self._training, self._config = training, config
        self._temperature, self._shift, self._num_rounds = temperature, shift, num_rounds
        self._rank, self._has_left_out, self._modelled = rank, has_left_out, modelled

    def steps(self, epoch: int, num_steps: int) -> Iterator[list[NDArray[np.int64]]]:
        """Divide the lists at random into steps of one micro-batch each."""
        rng = np.random.default_rng([self._training.seed, epoch, self._rank])
        for rows in np.array_split(rng.permutation(len(self._lists)), num_steps):
            yield [rows] if len(rows) else []

    def loss(self, micro_batch: NDArray[np.int64]) -> tuple[Tensor, int]:
        """Summed loss of some lists."""
        some = self._lists.rows(micro_batch)
        size = int(some.counts_BK.sum())
        scores_BC = self.network(some.inputs)
        if self._config.objective in SUPERVISED:
            return self._supervised(scores_BC, some), size
        rounds = rounds_of(scores_BC, some, temperature=self._temperature, weigh=self._config.weigh)
        return -size * objective(rounds, self._config, shift=self._shift, num_rounds=self._num_rounds), size

    def _supervised(self, scores_BC: Tensor, some: LoggedLists[Any]) -> Tensor:
        counts_BK, chosen_BK, reward_BK = (
            torch.from_numpy(array).to(scores_BC.device) for array in (some.counts_BK, some.chosen_BK, some.reward_BK)
        )
        reward_R = reward_BK[counts_BK].to(scores_BC.dtype)
        if self._config.objective is Objective.REGRESSION:
            return regression(scores_BC.gather(1, chosen_BK.clamp(min=0))[counts_BK], reward_R)
        real_BC = torch.from_numpy(some.real_BC).to(scores_BC.device)
        chance_BKC = log_chances(scores_BC / self._temperature, real_BC, chosen_BK)
        return cross_entropy(_at(chance_BKC, chosen_BK)[counts_BK], reward_R)

    @torch.no_grad()
    def validate(self) -> dict[str, tuple[float, float]]:
        """Minus what the policy would earn a round with the lists that were left out, as sums."""
        if not self._has_left_out:
            return {}
        self.network.eval()
        total, mass = 0.0, 0.0
        for some in () if self._left_out is None else in_blocks(self._left_out):
            rounds = rounds_of(
                self.network(some.inputs), some, temperature=self._temperature, weigh=self._config.weigh
            )  # fmt: skip
            weight_R = importance(rounds.log_ratio_R, cap=self._config.cap)
            if self._modelled:
                terms_R = doubly_robust(weight_R, rounds.reward_R, rounds.predicted_R, rounds.expected_R)
                total, mass = total + float(terms_R.double().sum()), mass + len(terms_R)
            else:
                total += float((weight_R * rounds.reward_R).double().sum())
                mass += float(weight_R.double().sum())
        return {"loss": (-total, mass)}


def rounds_of(scores_BC: Tensor, some: LoggedLists[Any], *, temperature: float, weigh: str = "place") -> Rounds:
    """What a policy says of the rounds of some lists; `scores_BC` are logarithms of values."""
    arrays = (some.real_BC, some.chosen_BK, some.propensity_BK, some.reward_BK, some.predicted_BC, some.beside_BK)
    real_BC, chosen_BK, *numbers = (torch.from_numpy(array).to(scores_BC.device) for array in arrays)
    propensity_BK, reward_BK, predicted_BC, beside_BK = (one.to(scores_BC.dtype) for one in numbers)
    counts_BK = torch.from_numpy(some.counts_BK).to(scores_BC.device)
    drawn_BK = torch.from_numpy(some.drawn_BK).to(scores_BC.device)
    chance_BKC = log_chances(scores_BC / temperature, real_BC, chosen_BK)
    ratio_BK = (_at(chance_BKC, chosen_BK) - torch.log(propensity_BK)).masked_fill(~drawn_BK, 0.0)
    if weigh == "above":
        ratio_BK = ratio_BK.cumsum(dim=1)
    of_chosen_BK = predicted_BC.gather(1, chosen_BK.clamp(min=0)) + beside_BK
    of_policy_BK = (chance_BKC.exp() * predicted_BC[:, None, :]).sum(dim=2) + beside_BK
    return Rounds(*(one[counts_BK] for one in (ratio_BK, reward_BK, of_chosen_BK, of_policy_BK)))


@torch.no_grad()
def all_rounds(
    network: Callable[[Any], Tensor], lists: LoggedLists[Any], *, temperature: float, weigh: str = "place"
) -> Rounds:
    """The same of all lists, some at a time, as float64."""
    parts = [
        rounds_of(network(some.inputs).double(), some, temperature=temperature, weigh=weigh)
        for some in in_blocks(lists)
    ]
    return Rounds(*(torch.cat(columns).cpu() for columns in zip(*parts, strict=True)))


def with_rounds(lists: LoggedLists[Any]) -> LoggedLists[Any]:
    """Lists that have a round."""
    return lists.rows(np.flatnonzero(lists.counts_BK.any(axis=1)))


def in_blocks(lists: LoggedLists[Any]) -> Iterator[LoggedLists[Any]]:
    """Lists, some at a time."""
    for first in range(0, len(lists), LISTS_AT_ONCE):
        yield lists.rows(np.arange(first, min(first + LISTS_AT_ONCE, len(lists))))


def _at(chance_BKC: Tensor, chosen_BK: Tensor) -> Tensor:
    return chance_BKC.gather(2, chosen_BK.clamp(min=0)[..., None])[..., 0]
