"""Logs over few actions with a known truth, and the ways in which a log fails to answer.

Contexts are drawn from a finite set, so the truth is exact. The target's scores are those of the policy that logged
plus `distance` times others that go with the reward; both policies are softmaxes.

Shapes: R rounds, X contexts, A actions, C numbers of a context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from pydantic import Field

from foretaste.contracts.config import Frozen
from foretaste.evaluation.offpolicy.reward_regression import by_action
from foretaste.evaluation.offpolicy.rounds import Floats, Rounds

Fault = Literal["no_support", "hidden_support", "far", "hidden_far", "wrong_propensities", "short"]
FAULTS: tuple[Fault, ...] = get_args(Fault)
"""What a log suffers from; hidden: its policy is known only for what it chose."""
FAR, SHARP, SHORT = 6.0, 3.0, 60


class LogConfig(Frozen):
    """One log; `drawn` draws them."""

    num_rounds: int = Field(2_000, ge=2, description="rounds")
    num_actions: int = Field(10, ge=2, description="actions, A")
    num_contexts: int = Field(300, ge=2, description="contexts, evenly drawn, X")
    num_numbers: int = Field(4, ge=1, description="numbers of a context, standard normal, C")
    reward: Literal["binary", "normal", "skewed"] = Field("binary", description="distribution around its mean")
    sharpness: float = Field(0.7, ge=0, description="spread of the logging policy's scores")
    distance: float = Field(0.7, ge=0, description="spread of what the target's scores have beside")
    fault: Fault | None = Field(
        None,
        description="why it cannot answer; no support: the quarter that the target likes best is never shown",
    )

    @classmethod
    def drawn(cls, rng: np.random.Generator, *, fault: Fault | None = None) -> LogConfig:
        """A log of some length, number of actions, reward, sharpness and distance."""
        far = fault in ("far", "hidden_far")
        return cls.model_validate(
            {
                "num_rounds": SHORT if fault == "short" else int(rng.choice([1_000, 2_000, 5_000])),
                "num_actions": int(rng.choice([4, 10, 20])),
                "reward": str(rng.choice(["binary", "normal", "skewed"])),
                "sharpness": SHARP if far else float(rng.uniform(0.2, 2.0)),
                "distance": FAR if far else float(rng.uniform(0.2, 3.0)),
                "fault": fault,
            }
        )


@dataclass(frozen=True)
class KnownLog:
    """Rounds, with predictions of a cross-fitted regression, and what the target policy truly earns."""

    rounds: Rounds
    truth: float


def known_log(config: LogConfig, rng: np.random.Generator) -> KnownLog:
    """Draw a world, its policies and a log."""
    numbers_XC = rng.normal(size=(config.num_contexts, config.num_numbers))
    scores_XA, own_XA, beside_XA = (_scores(numbers_XC, config.num_actions, rng) for _ in range(3))
    mean_XA = _mean_reward(scores_XA)
    logging_XA = _softmax(config.sharpness * own_XA)
    target_XA = _softmax(config.sharpness * own_XA + config.distance * (scores_XA + beside_XA) / np.sqrt(2.0))
    if config.fault in ("no_support", "hidden_support"):
        favourites = np.argsort(-target_XA.mean(axis=0))[: max(1, config.num_actions // 4)]
        logging_XA[:, favourites] = 0.0
        logging_XA /= logging_XA.sum(axis=1, keepdims=True)
    context_R = rng.integers(config.num_contexts, size=config.num_rounds)
    below_RA = logging_XA.cumsum(axis=1)[context_R]
    action_R = (rng.random(config.num_rounds)[:, None] > below_RA).sum(axis=1).clip(max=config.num_actions - 1)
    reward_R = _rewards(mean_XA[context_R, action_R], config.reward, rng)
    if config.fault == "wrong_propensities":
        logging_XA = _softmax(0.5 * config.sharpness * own_XA + 0.5 * _scores(numbers_XC, config.num_actions, rng))
    hidden = config.fault in ("hidden_support", "hidden_far")
    context_RC = numbers_XC[context_R]
    predicted_RA = by_action(context_RC, action_R, reward_R, num_actions=config.num_actions, folds=2, rng=rng)
    rounds = Rounds.of(
        action=action_R,
        reward=reward_R,
        propensity=logging_XA[context_R, action_R],
        target=target_XA[context_R],
        logging=None if hidden else logging_XA[context_R],
        predicted=predicted_RA,
        context=context_RC,
    )
    return KnownLog(rounds, float((target_XA * mean_XA).sum(axis=1).mean()))


def _scores(numbers_XC: Floats, num_actions: int, rng: np.random.Generator) -> Floats:
    """Linear in the context for each action, with mean 0 and spread 1."""
    scores_XA: Floats = numbers_XC @ rng.normal(size=(numbers_XC.shape[1], num_actions)) + rng.normal(size=num_actions)
    standard_XA: Floats = (scores_XA - scores_XA.mean()) / scores_XA.std()
    return standard_XA


def _mean_reward(scores_XA: Floats) -> Floats:
    """Between 0.05 and 0.65, with a bend that a linear regression misses."""
    mean_XA: Floats = 0.05 + 0.6 / (1.0 + np.exp(1.0 - scores_XA - 0.3 * scores_XA**2))
    return mean_XA


def _rewards(mean_R: Floats, kind: str, rng: np.random.Generator) -> Floats:
    if kind == "binary":
        return rng.binomial(1, mean_R).astype(np.float64)
    if kind == "normal":
        return rng.normal(mean_R, 0.5)
    return mean_R * rng.lognormal(-0.5, 1.0, size=len(mean_R))


def _softmax(scores_XA: Floats) -> Floats:
    raised_XA = np.exp(scores_XA - scores_XA.max(axis=1, keepdims=True))
    chances_XA: Floats = raised_XA / raised_XA.sum(axis=1, keepdims=True)
    return chances_XA
