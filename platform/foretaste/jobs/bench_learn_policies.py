"""What `foretaste bench learn` compares: policies by each objective, with settings chosen on a part of the log.

All have one form, linear in the context for each action. A candidate is judged by a doubly robust estimate with shrunk
weights (DRos) on the rounds of the log that it did not learn from, with a reward model of the rounds that it did, less
a standard error: what is chosen must not only look good. The truth is asked once, of what was chosen.

Shapes: R rounds, A actions, C numbers of a context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.evaluation.offpolicy.estimators import DROS
from foretaste.evaluation.offpolicy.reward_regression import ridge
from foretaste.evaluation.offpolicy.rounds import Floats, Ints, Rounds
from foretaste.evaluation.offpolicy.synthetic_choices import ChoiceLog, softmax
from foretaste.evaluation.offpolicy.terms import Sums
from foretaste.training.config import TrainingConfig
from foretaste.training.loop import train
from foretaste.training.off_policy_lists import LoggedLists
from foretaste.training.off_policy_objectives import Objective, ObjectiveConfig
from foretaste.training.off_policy_task import OffPolicyTask
from foretaste.training.plain import PlainContext

LEARNED_SHARE = 0.7
"""Of a log's rounds; the others choose."""
TEMPERATURES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
"""Of a softmax over what rewards are expected; 0: the best alone."""
JUDGE = DROS.tuned(30.0)
"""Steady where logs are short and peaked, where unshrunk estimates take what only looks good."""
MARGIN = 1.0
"""Standard errors that a candidate's estimate is judged below."""


@dataclass(frozen=True)
class Contexts:
    """What a policy reads; see `LoggedLists`."""

    numbers_RC: Floats

    def __len__(self) -> int:
        return len(self.numbers_RC)

    def rows(self, index_R: Ints, /) -> Contexts:
        """Pick rounds by their number."""
        return Contexts(self.numbers_RC[index_R])


class Linear(nn.Module):
    """Scores of each action, linear in the context; of a chance its logarithm."""

    def __init__(self, num_numbers: int, num_actions: int, *, chance: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(num_numbers, num_actions)
        self.chance = chance
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, inputs: Contexts) -> Tensor:
        """Float[R, A]."""
        scores_RA: Tensor = self.layer(torch.from_numpy(inputs.numbers_RC).float())
        return nn.functional.logsigmoid(scores_RA) if self.chance else scores_RA


@dataclass(frozen=True)
class Halves:
    """A log, divided into what is learned from and what chooses, with the reward model of the first."""

    learn: LoggedLists[Contexts]
    choose: LoggedLists[Contexts]

    @classmethod
    def of(cls, log: ChoiceLog, num_actions: int) -> Halves:
        """The first rounds are learned from; each of two folds is predicted by the other, what chooses by both."""
        cut = round(LEARNED_SHARE * len(log.action_R))
        place_R = np.arange(len(log.action_R))
        fold_R = np.where(place_R < cut, place_R % 2, 2)
        predicted_RA = np.empty((len(place_R), num_actions))
        for fold, learn_R in ((0, fold_R == 1), (1, fold_R == 0), (2, fold_R < 2)):
            predicted_RA[fold_R == fold] = expected(log, learn_R, log.context_RC[fold_R == fold], num_actions)
        lists = LoggedLists.of(
            Contexts(log.context_RC),
            real=np.ones((len(place_R), num_actions), dtype=np.bool_),
            chosen=log.action_R[:, None],
            propensity=log.propensity_R[:, None],
            reward=log.reward_R[:, None],
            actor=place_R,
            predicted=predicted_RA,
        )
        return cls(lists.rows(place_R[:cut]), lists.rows(place_R[cut:]))

    def judged(self, chances: Callable[[Floats], Floats]) -> float:
        """Lower bound of what a policy earns, by the rounds that choose."""
        some = self.choose
        rounds = Rounds.of(
            action=some.chosen_BK[:, 0],
            reward=some.reward_BK[:, 0],
            propensity=some.propensity_BK[:, 0],
            target=chances(some.inputs.numbers_RC),
            predicted=some.predicted_BC,
        )
        sums = Sums.of(JUDGE(rounds))
        return sums.value - MARGIN * sums.standard_error


def expected(log: ChoiceLog, learn_R: NDArray[np.bool_], context_RC: Floats, num_actions: int) -> Floats:
    """Rewards of all actions by a ridge regression, linear in the context for each action: float64[R, A]."""
    told_RN = np.column_stack([np.ones(learn_R.sum()), log.context_RC[learn_R]])
    features_RAN = np.zeros((len(told_RN), num_actions, told_RN.shape[1]))
    features_RAN[np.arange(len(told_RN)), log.action_R[learn_R]] = told_RN
    level = float(log.reward_R[learn_R].mean())
    found_F = ridge(features_RAN.reshape(len(told_RN), -1), log.reward_R[learn_R] - level)
    asked_RN = np.column_stack([np.ones(len(context_RC)), context_RC])
    found_RA: Floats = level + asked_RN @ found_F.reshape(num_actions, -1).T
    return found_RA


@dataclass(frozen=True)
class Trained:
    """A policy that was trained, what it was trained by and how it was judged."""

    chances: Callable[[Floats], Floats]
    judged: float
    config: ObjectiveConfig
    learning_rate: float
    temperature: float | None = None


@dataclass(frozen=True)
class Grid:
    """What is tried; the penalty is tried at the best of the rest."""

    learning_rates: tuple[float, ...] = (0.1,)
    supervised_rates: tuple[float, ...] = (0.03, 0.1, 0.3)
    caps: tuple[float, ...] = (3.0, 10.0, 100.0)
    shifts: tuple[float, ...] = (0.8, 1.2, 1.6)  # times the mean reward that was logged; with the largest cap
    penalties: tuple[float, ...] = (0.5, 1.5, 4.0)
    epochs: int = 30


def off_policy(halves: Halves, objective: Objective, grid: Grid, *, seed: int) -> tuple[Trained, Trained]:
    """The best by one objective without penalty, and the best where penalties were tried, too."""
    mean = float(np.nanmean(halves.learn.reward_BK))
    configs = [ObjectiveConfig(objective=objective, cap=cap) for cap in grid.caps]
    if objective is Objective.SHIFTED:
        configs = [configs[-1].model_copy(update={"shift": mean * one}) for one in grid.shifts]
    tried = [fitted(halves, config, rate, grid.epochs, seed=seed) for config in configs for rate in grid.learning_rates]
    plain = _best(tried)
    penalised = [plain.config.model_copy(update={"variance_penalty": one}) for one in grid.penalties]
    more = [fitted(halves, config, plain.learning_rate, grid.epochs, seed=seed) for config in penalised]
    return plain, _best([plain, *more])


def supervised(halves: Halves, grid: Grid, *, seed: int) -> dict[str, Trained]:
    """Plain supervised training: of what was rewarded, and of the reward, its best title or a softmax of them."""
    cross = [
        fitted(halves, ObjectiveConfig(objective=Objective.CROSS_ENTROPY), rate, grid.epochs, seed=seed)
        for rate in grid.supervised_rates
    ]
    regressed = [
        fitted(halves, ObjectiveConfig(objective=Objective.REGRESSION), rate, grid.epochs, seed=seed)
        for rate in grid.supervised_rates
    ]
    softened = [option for one in regressed for option in _softened(halves, one)]
    return {
        "cross_entropy": _best(cross),
        "regression_best": _best([one for one in softened if one.temperature == 0.0]),
        "regression_softmax": _best(softened),
    }


def fitted(halves: Halves, config: ObjectiveConfig, rate: float, epochs: int, *, seed: int) -> Trained:
    """Train one policy by the loop; the rounds that choose choose its epoch, too."""
    regressing = config.objective is Objective.REGRESSION
    num_actions = halves.learn.real_BC.shape[1]
    network = Linear(halves.learn.inputs.numbers_RC.shape[1], num_actions, chance=regressing)
    size = len(halves.learn)
    training = TrainingConfig(
        epochs=epochs, patience=6, select_by="loss", learning_rate=rate, batch_size=min(1_024, max(256, size // 8)),
        weight_decay=1e-3, seed=seed, executor="plain",
    )  # fmt: skip
    mean = float(np.nanmean(halves.learn.reward_BK))
    task = OffPolicyTask(
        network, halves.learn, training, config, temperature=1.0, num_rounds=size,
        shift=mean if config.shift is None else config.shift, left_out=halves.choose, has_left_out=True, modelled=True,
    )  # fmt: skip
    state = train(task, training, PlainContext(lambda epoch: None))
    network.load_state_dict(state["best"])
    network.eval()

    def chances(context_RC: Floats) -> Floats:
        with torch.no_grad():
            scores_RA: Floats = network(Contexts(context_RC)).double().numpy()
        return softmax(scores_RA)

    return Trained(chances, halves.judged(chances), config, rate)


def _softened(halves: Halves, one: Trained) -> Iterator[Trained]:
    """Softmaxes of the rewards that a policy's network expects; its own chances are in proportion to them."""
    for temperature in TEMPERATURES:

        def chances(context_RC: Floats, temperature: float = temperature) -> Floats:
            share_RA = one.chances(context_RC)
            if temperature == 0.0:
                alone_RA: Floats = np.eye(share_RA.shape[1])[share_RA.argmax(axis=1)]
                return alone_RA
            return softmax(np.log(share_RA) / temperature)

        yield replace(one, chances=chances, judged=halves.judged(chances), temperature=temperature)


def _best(tried: Sequence[Trained]) -> Trained:
    return max(tried, key=lambda one: one.judged)
