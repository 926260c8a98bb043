"""Policies that learn what candidates' features are worth: Thompson sampling and LinUCB over a published posterior.

A published posterior carries M draws of its weights, made once. At each place one of them is taken evenly and the
remaining candidate that it thinks best is put there: the propensity is the number of draws that agree, over M. So
Thompson sampling has exact propensities, in closed form and for any list, and M (a power of two) divides them without
rounding. Between two publications these M draws stand for the posterior.

What weights say is added to the scores, which are what is known without them: log odds of the reward (logistic), the
reward itself (linear), or zeros.

Shapes: C candidates of the pool, D features of a candidate, M draws.
Thompson, Biometrika 1933; Chapelle and Li, NeurIPS 2011; Riquelme et al. (neural linear), ICLR 2018; Li et al.
(LinUCB), WWW 2010.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from foretaste.policies.by_place import Base, ByPlace, Plan, only
from foretaste.policies.posterior import Posterior
from foretaste.policies.worth import Scale, bounded, worth

DRAWS = 128
SCALE_OF = {"linear": Scale.VALUE, "logistic": Scale.LOGIT}


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """A posterior as policies read it: what is drawn and solved is so once, and filed with it, to the bit."""

    fingerprint: str
    kind: str  # linear or logistic
    mean_D: NDArray[np.float64]
    root_DD: NDArray[np.float64]  # times its transpose: the covariance
    draws_MD: NDArray[np.float64]

    @staticmethod
    def of(posterior: Posterior, *, num_draws: int = DRAWS) -> Published:
        """Draw and solve."""
        draws_MD = posterior.draws(num_draws)
        return Published(posterior.fingerprint, posterior.config.kind, posterior.mean_D, posterior.root(), draws_MD)


@dataclass(frozen=True, kw_only=True)
class Contextual(ByPlace):
    """Scores plus what a posterior says of the features."""

    posterior: Published = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse scores of another scale than the posterior's."""
        wanted = SCALE_OF[self.posterior.kind]
        if self.scale is not wanted:
            raise ValueError(f"scale: a {self.posterior.kind} posterior wants {wanted.value}, got {self.scale.value}")

    @property
    def params(self) -> dict[str, Any]:
        """The posterior's name, and those of every policy."""
        return {"posterior": self.posterior.fingerprint} | super().params

    def plan(self, scores_C: NDArray[np.float64], features_CD: NDArray[np.float64] | None) -> Plan:
        """Worth is by the mean of the weights."""
        width = len(self.posterior.mean_D)
        if features_CD is None:
            raise ValueError(f"features: {self.name} wants {width} of each candidate, got none")
        x_CD = np.asarray(features_CD, dtype=np.float64)
        if x_CD.shape != (len(scores_C), width):
            raise ValueError(f"features: wanted shape {(len(scores_C), width)}, got {x_CD.shape}")
        if not np.isfinite(x_CD).all():
            raise ValueError(f"features: candidate {int(np.argwhere(~np.isfinite(x_CD))[0][0])} has one that is none")
        known_C = bounded(scores_C)
        mean_C = known_C + products(self.posterior.mean_D[None], x_CD)[0]
        return Plan(worth(mean_C, self.scale), self._base(known_C, mean_C, x_CD))

    @abstractmethod
    def _base(self, scores_C: NDArray[np.float64], mean_C: NDArray[np.float64], x_CD: NDArray[np.float64]) -> Base:
        """The policy's own distribution."""
        ...


@dataclass(frozen=True, kw_only=True)
class Thompson(Contextual):
    """Takes one of the posterior's draws at each place, each as likely as any other.

    `width` narrows or widens what they are apart from the mean: where rewards say little, a posterior explores for
    longer than most horizons are worth (Chapelle and Li: posterior reshaping).
    """

    width: float = 1.0  # times the posterior's deviation, above 0

    def __post_init__(self) -> None:
        """Refuse a width that is none."""
        super().__post_init__()
        if not 0.0 < self.width < np.inf:
            raise ValueError(f"width: wanted a finite number above 0, got {self.width}")

    @property
    def params(self) -> dict[str, Any]:
        """The width, and those of every policy."""
        return {"width": self.width} | super().params

    def _base(self, scores_C: NDArray[np.float64], mean_C: NDArray[np.float64], x_CD: NDArray[np.float64]) -> Base:
        drawn_MD = self.width * self.posterior.draws_MD + (1.0 - self.width) * self.posterior.mean_D
        drawn_MC = scores_C + products(drawn_MD, x_CD)
        leader_M = drawn_MC.argmax(axis=1) if drawn_MC.shape[1] else np.zeros(0, dtype=np.int64)

        def base(left_C: NDArray[np.bool_]) -> NDArray[np.float64]:
            best_M = leader_M.copy()
            behind = np.flatnonzero(~left_C[leader_M])
            left = np.flatnonzero(left_C)
            best_M[behind] = left[drawn_MC[np.ix_(behind, left)].argmax(axis=1)]
            return np.bincount(best_M, minlength=len(left_C)) / len(best_M)

        return base


@dataclass(frozen=True, kw_only=True)
class LinearThompson(Thompson):
    """Thompson sampling of a linear model of the reward."""

    name: ClassVar[str] = "linear_thompson"
    version: ClassVar[str] = "1"
    scale: Scale = Scale.VALUE


@dataclass(frozen=True, kw_only=True)
class LogisticThompson(Thompson):
    """Thompson sampling of a logistic model of a chance."""

    name: ClassVar[str] = "logistic_thompson"
    version: ClassVar[str] = "1"
    scale: Scale = Scale.LOGIT


@dataclass(frozen=True, kw_only=True)
class NeuralThompson(Thompson):
    """The same where the features are what the ranker's last layer reads, and scores are its own log odds."""

    name: ClassVar[str] = "neural_thompson"
    version: ClassVar[str] = "1"
    scale: Scale = Scale.LOGIT


@dataclass(frozen=True, kw_only=True)
class LinUCB(Contextual):
    """The candidate of the largest upper bound: mean and `alpha` deviations. It uses no dice but those of its bounds.

    Without any, every propensity is 1, and nothing can be learned from its log about other lists.
    """

    name: ClassVar[str] = "linucb"
    version: ClassVar[str] = "1"
    scale: Scale = Scale.VALUE

    alpha: float = 1.0  # deviations of the weights' part, 0 or more

    def __post_init__(self) -> None:
        """Refuse a bound that is none."""
        super().__post_init__()
        if not 0.0 <= self.alpha < np.inf:
            raise ValueError(f"alpha: wanted a finite number of 0 or more, got {self.alpha}")

    @property
    def params(self) -> dict[str, Any]:
        """Alpha, and those of every policy."""
        return {"alpha": self.alpha} | super().params

    def _base(self, scores_C: NDArray[np.float64], mean_C: NDArray[np.float64], x_CD: NDArray[np.float64]) -> Base:
        wide_C = np.sqrt((products(self.posterior.root_DD.T, x_CD) ** 2).sum(axis=0))
        bound_C = mean_C + self.alpha * wide_C

        def base(left_C: NDArray[np.bool_]) -> NDArray[np.float64]:
            return only(int(np.where(left_C, bound_C, -np.inf).argmax()), len(left_C))

        return base


def products(weights_MD: NDArray[np.float64], x_CD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Products of weights and features, [M, C], summed feature by feature: the same bits on any machine and thread."""
    found_MC, one_MC = np.zeros((2, len(weights_MD), len(x_CD)))
    for weight_M, x_C in zip(np.ascontiguousarray(weights_MD.T), np.ascontiguousarray(x_CD.T), strict=True):
        found_MC += np.multiply(weight_M[:, None], x_C[None, :], out=one_MC)
    return found_MC
