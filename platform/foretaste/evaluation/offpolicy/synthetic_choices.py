"""A world of single choices for policies that learn from logs, with a known truth.

A title's chance of a reward rises with a score that is linear in the context, with a bend of products of the context's
numbers that no linear policy has. Logging policies are softmaxes of scores that agree with the truth in part.

Shapes: R rounds, A actions, C numbers of a context, Q products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from foretaste.contracts.config import Frozen
from foretaste.evaluation.offpolicy.rounds import Floats, Ints


class ChoiceWorldConfig(Frozen):
    """The world."""

    num_actions: int = Field(10, ge=2, description="actions, A")
    num_numbers: int = Field(6, ge=2, description="numbers of a context, standard normal, C")
    bend: float = Field(1.0, ge=0, description="spread of what products add to the scores, beside 1 of the linear part")
    steepness: float = Field(1.0, ge=0, description="log odds of a reward by standard deviation of the score")


class LoggingConfig(Frozen):
    """The policy that logs: a softmax."""

    sharpness: float = Field(0.3, ge=0, description="of its scores, which have deviation 1")
    agreement: float = Field(0.5, ge=-1, le=1, description="correlation of its scores with the truth's linear part")


@dataclass(frozen=True)
class ChoiceLog:
    """What a log holds."""

    context_RC: Floats
    action_R: Ints
    reward_R: Floats  # 0 or 1
    propensity_R: Floats


@dataclass(frozen=True)
class ChoiceWorld:
    """A world and the policy that logs in it; `contexts` and `log` draw from it."""

    config: ChoiceWorldConfig
    logging: LoggingConfig
    linear_CA: Floats
    level_A: Floats
    product_QA: Floats
    own_CA: Floats  # of the logging policy, where it does not agree
    own_A: Floats

    @classmethod
    def drawn(cls, config: ChoiceWorldConfig, logging: LoggingConfig, rng: np.random.Generator) -> ChoiceWorld:
        """Draw what titles are worth to whom, and what the logging policy believes."""
        numbers, actions = config.num_numbers, config.num_actions
        shape, scale = (numbers, actions), 1.0 / np.sqrt(numbers + 1)
        products = numbers * (numbers - 1) // 2
        bend_QA = config.bend * rng.normal(size=(products, actions)) / np.sqrt(products)
        linear = (scale * rng.normal(size=shape), scale * rng.normal(size=actions))
        own = (scale * rng.normal(size=shape), scale * rng.normal(size=actions))
        return cls(config, logging, *linear, bend_QA, *own)

    def contexts(self, number: int, rng: np.random.Generator) -> Floats:
        """Draw contexts: float64[R, C]."""
        return rng.normal(size=(number, self.config.num_numbers))

    def chances(self, context_RC: Floats) -> Floats:
        """Chance that each action is rewarded: float64[R, A]."""
        first, second = np.triu_indices(self.config.num_numbers, k=1)
        bent_RA = (context_RC[:, first] * context_RC[:, second]) @ self.product_QA
        score_RA = self._linear(context_RC) + bent_RA
        found_RA: Floats = 1.0 / (1.0 + np.exp(2.0 - self.config.steepness * score_RA))
        return found_RA

    def logged(self, context_RC: Floats) -> Floats:
        """The logging policy's chance of each action: float64[R, A]."""
        agreement = self.logging.agreement
        own_RA = context_RC @ self.own_CA + self.own_A
        score_RA = agreement * self._linear(context_RC) + np.sqrt(1.0 - agreement**2) * own_RA
        return softmax(self.logging.sharpness * score_RA)

    def log(self, number: int, rng: np.random.Generator) -> ChoiceLog:
        """Draw rounds."""
        context_RC = self.contexts(number, rng)
        logging_RA = self.logged(context_RC)
        below_RA = logging_RA.cumsum(axis=1)
        action_R = (rng.random(number)[:, None] > below_RA).sum(axis=1).clip(max=self.config.num_actions - 1)
        row_R = np.arange(number)
        rewarded_R = rng.random(number) < self.chances(context_RC)[row_R, action_R]
        return ChoiceLog(context_RC, action_R, rewarded_R.astype(np.float64), logging_RA[row_R, action_R])

    def _linear(self, context_RC: Floats) -> Floats:
        linear_RA: Floats = context_RC @ self.linear_CA + self.level_A
        return linear_RA


def softmax(scores_RA: Floats) -> Floats:
    """Chances by scores, a row a distribution."""
    raised_RA = np.exp(scores_RA - scores_RA.max(axis=1, keepdims=True))
    chances_RA: Floats = raised_RA / raised_RA.sum(axis=1, keepdims=True)
    return chances_RA
