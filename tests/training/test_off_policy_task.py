"""Lists of decisions teach a policy in the one loop, and what is trained is what is served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.training.config import TrainingConfig
from foretaste.training.loop import train
from foretaste.training.off_policy_lists import LoggedLists, join_lists
from foretaste.training.off_policy_objectives import SUPERVISED, Objective, ObjectiveConfig
from foretaste.training.off_policy_task import OffPolicyTask, all_rounds
from foretaste.training.plain import PlainContext

NUM, PLACES = 5, 2
WORTH_C = np.array([0.1, 0.2, 0.3, 0.4, 0.9])


@dataclass(frozen=True)
class Same:
    """Lists of one pool."""

    number_B: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.number_B)

    def rows(self, index_B: NDArray[np.int64], /) -> Same:
        return Same(self.number_B[index_B])


class Table(nn.Module):
    """A chance a candidate, the same in every list."""

    def __init__(self) -> None:
        super().__init__()
        self.score_C = nn.Parameter(torch.zeros(NUM))

    def forward(self, inputs: Same) -> Tensor:
        return nn.functional.logsigmoid(self.score_C).expand(len(inputs), NUM)


def logged(number: int, *, seed: int = 0, unknown: float = 0.1) -> LoggedLists[Same]:
    """Even lists of two places; a title earns what it is worth, half as often at the second place."""
    rng = np.random.default_rng(seed)
    chosen_BK = np.array([rng.permutation(NUM)[:PLACES] for _ in range(number)])
    reward_BK = (rng.random((number, PLACES)) < WORTH_C[chosen_BK] * np.array([1.0, 0.5])).astype(float)
    reward_BK[rng.random((number, PLACES)) < unknown] = np.nan
    return LoggedLists.of(
        Same(np.arange(number)),
        real=np.ones((number, NUM), dtype=np.bool_),
        chosen=chosen_BK,
        propensity=np.tile([1 / 5, 1 / 4], (number, 1)),
        reward=reward_BK,
        actor=np.arange(number) // 3,
        predicted=np.tile(0.75 * WORTH_C, (number, 1)),
    )


def chances_of_best(objective: Objective, **other: Any) -> float:
    lists, left_out = logged(1_500), logged(500, seed=1)
    training = TrainingConfig(
        epochs=8, batch_size=300, learning_rate=0.2, select_by="loss", weight_decay=0.0, executor="plain"
    )
    network = Table()
    task = OffPolicyTask(
        network, lists, training, ObjectiveConfig(objective=objective, **other), temperature=1.0,
        shift=float(np.nanmean(lists.reward_BK)), num_rounds=int(lists.counts_BK.sum()),
        left_out=left_out, has_left_out=True, modelled=objective is Objective.DR,
    )  # fmt: skip
    state = train(task, training, PlainContext(lambda epoch: None))
    assert state["epochs"][-1]["predictions"] == lists.counts_BK.sum()
    chance_C = state["best"]["score_C"].sigmoid()
    return float(chance_C[-1] / chance_C.sum())


@pytest.mark.parametrize("objective", list(Objective))
def test_every_objective_learns_which_title_earns_most(objective: Objective) -> None:
    assert chances_of_best(objective) > 0.3
    if objective not in SUPERVISED:  # these end in proportion to what titles earn, others at the best
        assert chances_of_best(objective, variance_penalty=0.5) > 0.6


def test_a_place_may_weigh_by_all_that_stands_above_it() -> None:
    lists = logged(50)
    network = Table()
    with torch.no_grad():
        network.score_C.copy_(torch.logit(torch.exp(torch.arange(NUM) / 3.0 - 2.0)))
    alone = all_rounds(network, lists, temperature=0.5)
    both = all_rounds(network, lists, temperature=0.5, weigh="above")
    share_C = np.exp(2.0 * np.arange(NUM) / 3.0)
    first, second = lists.chosen_BK[0]
    of_first = np.log(5 * share_C[first] / share_C.sum())
    of_second = np.log(4 * share_C[second] / (share_C.sum() - share_C[first]))
    known = lists.counts_BK[0]
    assert alone.log_ratio_R[: known.sum()].numpy() == pytest.approx(np.array([of_first, of_second])[known], abs=1e-5)
    summed = np.array([of_first, of_first + of_second])[known]
    assert both.log_ratio_R[: known.sum()].numpy() == pytest.approx(summed, abs=1e-5)


def test_what_the_reward_model_expects_of_the_policy_is_the_mean_over_what_could_stand_there() -> None:
    lists = logged(20, unknown=0.0)
    said = all_rounds(Table(), lists, temperature=1.0)
    left_2 = [0.75 * WORTH_C.mean(), 0.75 * (WORTH_C.sum() - WORTH_C[lists.chosen_BK[0, 0]]) / 4]
    assert said.expected_R[:2].numpy() == pytest.approx(left_2, abs=1e-6)
    assert said.predicted_R[:2].numpy() == pytest.approx(0.75 * WORTH_C[lists.chosen_BK[0]], abs=1e-6)


def test_places_that_no_dice_filled_and_rewards_that_are_not_known_teach_nothing() -> None:
    lists = LoggedLists.of(
        Same(np.arange(2)),
        real=np.ones((2, NUM), dtype=np.bool_),
        chosen=np.array([[0, 1], [2, -1]]),
        propensity=np.array([[1.0, 0.25], [0.2, 0.0]]),
        reward=np.array([[1.0, np.nan], [0.5, 3.0]]),
        actor=np.zeros(2, dtype=np.int64),
    )
    assert lists.counts_BK.tolist() == [[False, False], [True, False]]
    joined = join_lists([lists, logged(1)], Same(np.arange(3)))
    assert joined.counts_BK[:2].tolist() == lists.counts_BK.tolist()
    assert joined.propensity_BK[1, 1] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": np.array([[0, 7]])}, "chosen of list 0, place 1 is 7, wanted a candidate of the pool"),
        ({"chosen": np.array([[3, 3]])}, "chosen of list 0, place 0 is 3, wanted each candidate once"),
        ({"propensity": np.array([[0.2, 0.0]])}, r"propensity of list 0, place 1 is 0.0, wanted in \(0, 1\]"),
        ({"reward": np.array([[np.inf, 0.0]])}, "reward of list 0, place 0 is inf"),
        ({"actor": np.zeros(2, dtype=np.int64)}, r"actor: wanted shape \(1,\), found \(2,\)"),
    ],
)
def test_lists_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "real": np.ones((1, NUM), dtype=np.bool_), "chosen": np.array([[0, 1]]),
        "propensity": np.array([[0.2, 0.25]]), "reward": np.array([[0.0, 1.0]]), "actor": np.zeros(1, dtype=np.int64),
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        LoggedLists.of(Same(np.arange(1)), **given | change)
