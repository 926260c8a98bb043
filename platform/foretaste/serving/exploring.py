"""Who acts: the policy of a request with its bounds, what it reads of the scores, and what stands in for it.

Requests and replays call the same functions, so a list follows from its row and what was published.

Shapes: C candidates of the pool, in order of the list; D features of a candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foretaste.contracts.config import Frozen
from foretaste.contracts.decisions import Level
from foretaste.contracts.wire import PolicyName
from foretaste.policies.arrange import dealt
from foretaste.policies.by_place import ByPlace
from foretaste.policies.contextual import SCALE_OF
from foretaste.policies.epsilon_greedy import EpsilonGreedy
from foretaste.policies.exploration import Exploration
from foretaste.policies.plackett_luce import PlackettLuce
from foretaste.policies.register import CONTEXTUAL
from foretaste.policies.slate import Slate, dice
from foretaste.policies.worth import Scale, log_values, logits
from foretaste.serving.models import Models
from foretaste.serving.posteriors import Learned, PublishedPosteriors
from foretaste.serving.stages import Scored
from foretaste.signals.views import ABSENT, TitleView

COLD_PLAYS = "cold_plays"
"""Beside a policy's own parameters: up to how many plays a title is cold."""


class ExploringConfig(Frozen):
    """How policies use dice, and what that may cost."""

    temperature: float = Field(
        0.25, gt=0, description="of plackett_luce: a title is chosen by its value to the power of 1 / temperature"
    )
    alpha: float = Field(1.0, ge=0, description="of linucb: deviations above the mean that a title is taken for")
    width: float = Field(1.0, gt=0, description="of Thompson sampling: what draws are apart from the mean, times this")
    bounds: Exploration = Field(
        Exploration(), description="of surfaces without their own; its epsilon counts for all but (epsilon_)greedy"
    )
    surfaces: dict[str, Exploration] = Field({}, description="bounds by name of the surface")
    cold_plays: int = Field(20, ge=0, description="plays up to which a title is cold")

    def of(self, surface: str) -> Exploration:
        """The bounds of a surface."""
        return self.surfaces.get(surface, self.bounds)


@dataclass(frozen=True, slots=True)
class Acting:
    """A policy and what it is handed."""

    policy: EpsilonGreedy | ByPlace
    scores_C: NDArray[np.float64]
    features_CD: NDArray[np.float64] | None = None
    instead_of: str | None = None  # what was asked for and could not act
    told: Mapping[str, Any] | None = None  # logged beside the policy's parameters

    def choose(self, *, k: int, seed: int) -> Slate:
        """Choose a list by a seed."""
        return self.policy.choose(self.scores_C, k=k, rng=dice(seed), features_CD=self.features_CD)

    @property
    def params(self) -> dict[str, Any]:
        """What a decision logs of the policy."""
        return dict(self.policy.params) | dict(self.told or {})


@dataclass(frozen=True, slots=True)
class Handed:
    """An arranged pool as policies are handed it, by a request or by a logged decision."""

    scores_C: NDArray[np.float64]  # the titles' own
    log: bool  # whether these are logarithms
    protected: tuple[int, ...]
    cold: Callable[[int], tuple[int, ...]]  # candidates that were played at most so often
    features: Callable[[Learned | None], NDArray[np.float64] | None]  # of the pool, as a posterior has them described


class Explorer:
    """Says who acts, by the configuration and what is published."""

    def __init__(
        self, config: ExploringConfig, *, policy: PolicyName, epsilon: float, posteriors: PublishedPosteriors
    ) -> None:
        """`policy` is that of requests that name none, `epsilon` that of epsilon-greedy."""
        self._config, self._policy, self._epsilon = config, policy, epsilon
        self.posteriors = posteriors

    def acting(
        self,
        asked: PolicyName | None,
        surface: str,
        scored: Scored,
        titles: TitleView,
        models: Models,
        *,
        protected: tuple[int, ...],
    ) -> Acting:
        """Make the policy of a request; epsilon-greedy acts in place of one that cannot."""
        handed = Handed(
            scored.scores_C,
            scored.source is Level.INTENT,
            protected,
            lambda cold_plays: cold_of(titles, scored.codes_C, cold_plays=cold_plays),
            lambda learned: features_of(learned, scored, models),
        )
        return self.acts(asked, surface, handed)

    def acts(self, asked: PolicyName | None, surface: str, handed: Handed) -> Acting:
        """Make the policy that would act on a pool; raises what asking for cold titles or features raises."""
        name, config = asked or self._policy, self._config
        dealt_C, log, protected = dealt(handed.scores_C), handed.log, handed.protected
        if name is PolicyName.GREEDY:
            return Acting(EpsilonGreedy(0.0, protected, scale=scale_of(log)), dealt_C)
        bounds = config.of(surface)
        cold = handed.cold(config.cold_plays) if bounds.cold_share > 0 else ()
        told = {COLD_PLAYS: config.cold_plays} if bounds.cold_share > 0 else {}
        same: dict[str, Any] = {"exploration": bounds, "protected": protected, "cold": cold}
        if name is PolicyName.PLACKETT_LUCE:
            softmax = PlackettLuce(temperature=config.temperature, **same)
            return Acting(softmax, read_as(name, dealt_C, log=log), told=told)
        instead_of = None
        if name is not PolicyName.EPSILON_GREEDY:
            learned = self.posteriors.of(name)
            features_CD = handed.features(learned)
            if learned is not None and features_CD is not None:
                kind = learned.published.kind
                own: dict[str, Any] = {"alpha": config.alpha} if name is PolicyName.LINUCB else {"width": config.width}
                policy = CONTEXTUAL[name](posterior=learned.published, scale=SCALE_OF[kind], **own, **same)
                return Acting(policy, read_as(name, dealt_C, log=log, kind=kind), features_CD, told=told)
            instead_of = name.value
        greedy = EpsilonGreedy(self._epsilon, scale=scale_of(log), **same)
        return Acting(greedy, dealt_C, instead_of=instead_of, told=told)


def scale_of(log: bool) -> Scale:
    """What raw scores are; `log` says that they are the intent model's."""
    return Scale.LOG if log else Scale.VALUE


def read_as(name: str, dealt_C: NDArray[np.float64], *, log: bool, kind: str | None = None) -> NDArray[np.float64]:
    """Scores as a policy reads them; `kind` is that of its posterior."""
    if name == PlackettLuce.name:
        return dealt_C if log else log_values(dealt_C)
    return logits(dealt_C) if kind == "logistic" else dealt_C


def features_of(learned: Learned | None, scored: Scored, models: Models) -> NDArray[np.float64] | None:
    """Features of the pool, where the ranker answered and can tell."""
    if learned is None or scored.inputs is None or scored.source is not Level.RANKER:
        return None
    return learned.described.features(
        scored.inputs, scored.codes_C, ranker=models.ranker, fingerprint=models.ranker_fingerprint
    )


def cold_of(titles: TitleView, codes_C: NDArray[np.int32], *, cold_plays: int) -> tuple[int, ...]:
    """Candidates that were played at most so often; none where nothing is known of any."""
    if (titles.asof_ms[codes_C] == ABSENT).all():
        return ()
    return tuple(np.flatnonzero(titles.plays_all[codes_C] <= cold_plays).tolist())
