"""What is known of a linear model's weights: evidence that adds up, whoever gathered it and in whatever order.

`linear`: rewards with noise of one size, known or learned with the weights; conjugate (normal, inverse gamma), exact.
`logistic`: rewards of 0 to 1 as chances; each batch is a normal site around the joint mode (Laplace, by Newton steps on
the full Hessian, the posterior of before as its prior). Sites add up as evidence does: exact for one batch, close for
several (assumed-density filtering).

Evidence fades by time, not by rounds, so that replicas may add what they have at different times.

Shapes: D features, R rounds, M draws, C candidates.
Murphy, Conjugate Bayesian analysis of the Gaussian distribution, 2007; Chapelle and Li, NeurIPS 2011.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foretaste.contracts.config import Frozen

DAY_US = 86_400_000_000
NEWTON_STEPS, ENOUGH = 50, 1e-10


class PosteriorConfig(Frozen):
    """What is believed of the weights before any reward."""

    kind: Literal["linear", "logistic"] = Field("logistic", description="linear: any reward; logistic: rewards of 0..1")
    prior_precision: float = Field(
        1.0, gt=0, description="inverse variance of each weight; linear: as a multiple of that of the rewards' noise"
    )
    noise: float = Field(1.0, gt=0, description="variance of rewards around their mean, linear only")
    noise_rounds: float | None = Field(
        10.0, gt=0, description="rounds that this guess counts as beside the data; null: it is known"
    )
    half_life_days: float | None = Field(
        None, gt=0, description="days after which evidence counts half; null: it never fades"
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """Sums over rounds, as of a time: what replicas gather and add."""

    precision_DD: NDArray[np.float64]
    shift_D: NDArray[np.float64]  # precision times the weights that the rounds speak for
    squares: float = 0.0  # of the rewards, linear only
    num_rounds: float = 0.0  # faded ones count for less
    at_us: int = 0  # that fading is counted from

    @staticmethod
    def none(width: int) -> Evidence:
        """What is known after no round."""
        return Evidence(np.zeros((width, width)), np.zeros(width))

    def plus(self, other: Evidence, *, half_life_days: float | None = None) -> Evidence:
        """Evidence of both, as of the later time."""
        at_us = max(self.at_us, other.at_us)
        a, b = (one.faded(at_us, half_life_days=half_life_days) for one in (self, other))
        sums = {field.name: getattr(a, field.name) + getattr(b, field.name) for field in fields(Evidence)}
        return Evidence(**sums | {"at_us": at_us})

    def faded(self, at_us: int, *, half_life_days: float | None) -> Evidence:
        """The same as of a later time (an earlier one changes nothing)."""
        if half_life_days is None or at_us <= self.at_us or not self.num_rounds:
            return replace(self, at_us=max(at_us, self.at_us))
        share = 2.0 ** (-(at_us - self.at_us) / (half_life_days * DAY_US))
        sums = {field.name: share * getattr(self, field.name) for field in fields(Evidence)}
        return Evidence(**sums | {"at_us": at_us})


@dataclass(frozen=True, slots=True)
class Posterior:
    """Prior and evidence. A value: learning gives another one."""

    config: PosteriorConfig
    prior_D: NDArray[np.float64]  # mean of the weights before any reward
    evidence: Evidence

    @staticmethod
    def of(config: PosteriorConfig, prior: NDArray[np.float64] | int) -> Posterior:
        """Before any reward; `prior` is the mean of the weights, or how many there are, all 0."""
        prior_D = np.zeros(prior) if isinstance(prior, int) else np.asarray(prior, dtype=np.float64)
        return Posterior(config, prior_D, Evidence.none(len(prior_D)))

    @property
    def width(self) -> int:
        """How many weights there are."""
        return len(self.prior_D)

    @property
    def precision_DD(self) -> NDArray[np.float64]:
        """Inverse covariance of the weights, linear: as a multiple of that of the noise."""
        return self.evidence.precision_DD + self.config.prior_precision * np.eye(self.width)

    @property
    def mean_D(self) -> NDArray[np.float64]:
        """Mean of the weights."""
        shift_D = self.evidence.shift_D + self.config.prior_precision * self.prior_D
        return np.asarray(np.linalg.solve(self.precision_DD, shift_D), dtype=np.float64)

    @property
    def noise(self) -> float:
        """Variance of the noise that the weights' is a multiple of: its mean where it is learned, logistic: 1."""
        if self.config.kind == "logistic":
            return 1.0
        rounds, squares = self._noise_sums
        return self.config.noise if rounds is None else squares / rounds

    @property
    def _noise_sums(self) -> tuple[float | None, float]:
        """Rounds that the noise is known by (None: it is given) and their squared distances."""
        if self.config.kind == "logistic" or self.config.noise_rounds is None:
            return None, 0.0
        mean_D, prior_D = self.mean_D, self.prior_D
        explained = mean_D @ self.precision_DD @ mean_D - self.config.prior_precision * prior_D @ prior_D
        rest = max(0.0, float(self.evidence.squares - explained))
        rounds = self.config.noise_rounds + self.evidence.num_rounds
        return rounds, self.config.noise_rounds * self.config.noise + rest

    def root(self) -> NDArray[np.float64]:
        """A matrix whose product with its transpose is the weights' covariance; [D, D]."""
        lower_DD = np.linalg.cholesky(self.precision_DD)
        return np.asarray(np.linalg.solve(lower_DD, np.eye(self.width)).T * np.sqrt(self.noise), dtype=np.float64)

    def draws(self, num: int) -> NDArray[np.float64]:
        """Draw weights by dice that follow from the posterior itself, so that it has one set of them; [M, D]."""
        rng = np.random.Generator(np.random.PCG64(int(self.fingerprint, 16)))
        apart_MD = rng.standard_normal((num, self.width)) @ self.root().T
        if (rounds := self._noise_sums[0]) is not None:
            apart_MD = apart_MD / np.sqrt(rng.chisquare(rounds, size=(num, 1)) / rounds)
        return np.asarray(self.mean_D + apart_MD, dtype=np.float64)

    def learned(self, evidence: Evidence) -> Posterior:
        """With more evidence."""
        return replace(self, evidence=self.evidence.plus(evidence, half_life_days=self.config.half_life_days))

    def gathered(
        self,
        x_RD: NDArray[np.float64],
        reward_R: NDArray[np.float64],
        *,
        at_us: int = 0,
        weight_R: NDArray[np.float64] | None = None,
        offset_R: NDArray[np.float64] | None = None,
    ) -> Evidence:
        """Evidence of rounds as of a time: their features, rewards, how much each counts and what was known before.

        `offset_R` is what the weights' part is added to: in the unit of rewards, logistic: as log odds. Raises
        ValueError for other shapes, numbers that are not finite, a weight below 0 or, logistic, rewards beyond 0..1.
        """
        x_RD, reward_R, weight_R, offset_R = self._checked(x_RD, reward_R, weight_R, offset_R)
        if self.config.kind == "linear":
            target_R = reward_R - offset_R
            weighed_RD = x_RD * weight_R[:, None]
            squares = float(weight_R @ target_R**2)
            return Evidence(weighed_RD.T @ x_RD, weighed_RD.T @ target_R, squares, float(weight_R.sum()), at_us)
        return self._site(x_RD, reward_R, weight_R, offset_R, at_us)

    def _site(
        self,
        x_RD: NDArray[np.float64],
        reward_R: NDArray[np.float64],
        weight_R: NDArray[np.float64],
        offset_R: NDArray[np.float64],
        at_us: int,
    ) -> Evidence:
        """The normal that a batch adds: curvature at the joint mode, and what moves the mean there."""
        before = replace(self, evidence=self.evidence.faded(at_us, half_life_days=self.config.half_life_days))
        prior_DD, mean_D = before.precision_DD, before.mean_D
        mode_D = mean_D.copy()

        def cost(at_D: NDArray[np.float64]) -> float:
            odds_R = offset_R + x_RD @ at_D
            loss = weight_R @ (np.logaddexp(0.0, odds_R) - reward_R * odds_R)
            return float(loss + 0.5 * (at_D - mean_D) @ prior_DD @ (at_D - mean_D))

        def curvature(at_D: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            chance_R = _chance(offset_R + x_RD @ at_D)
            bend_DD = (x_RD * (weight_R * chance_R * (1.0 - chance_R))[:, None]).T @ x_RD
            return bend_DD, x_RD.T @ (weight_R * (reward_R - chance_R)) - prior_DD @ (at_D - mean_D)

        for _ in range(NEWTON_STEPS):
            bend_DD, slope_D = curvature(mode_D)
            step_D = np.linalg.solve(prior_DD + bend_DD, slope_D)
            gain, size, now = float(slope_D @ step_D), 1.0, cost(mode_D)
            if gain <= ENOUGH * max(1.0, abs(now)):
                break
            while cost(mode_D + size * step_D) > now - 1e-4 * size * gain and size > 1e-6:
                size /= 2.0
            mode_D = mode_D + size * step_D
        bend_DD, _ = curvature(mode_D)
        shift_D = (prior_DD + bend_DD) @ mode_D - prior_DD @ mean_D
        return Evidence(bend_DD, shift_D, 0.0, float(weight_R.sum()), at_us)

    def _checked(
        self,
        x_RD: NDArray[np.float64],
        reward_R: NDArray[np.float64],
        weight_R: NDArray[np.float64] | None,
        offset_R: NDArray[np.float64] | None,
    ) -> tuple[NDArray[np.float64], ...]:
        x_RD, reward_R = np.asarray(x_RD, dtype=np.float64), np.asarray(reward_R, dtype=np.float64)
        if x_RD.ndim != 2 or x_RD.shape[1] != self.width:
            raise ValueError(f"features: wanted {self.width} of each round, got shape {x_RD.shape}")
        size = len(x_RD)
        given = {"weight": (weight_R, 1.0), "offset": (offset_R, 0.0)}
        found = {"features": x_RD, "reward": reward_R}
        for name, (value_R, otherwise) in given.items():
            found[name] = np.full(size, otherwise) if value_R is None else np.asarray(value_R, dtype=np.float64)
        for name, values in found.items():
            if len(values) != size or (name != "features" and values.ndim != 1):
                raise ValueError(f"{name}: wanted one of each of {size} rounds, got shape {values.shape}")
            if not np.isfinite(values).all():
                bad = int(np.argwhere(~np.isfinite(values))[0][0])
                raise ValueError(f"{name}: round {bad} of {size} is not finite")
        if (found["weight"] < 0).any():
            raise ValueError(f"weight: round {int((found['weight'] < 0).argmax())} counts less than nothing")
        outside_R = (reward_R < 0) | (reward_R > 1)
        if self.config.kind == "logistic" and outside_R.any():
            bad = int(outside_R.argmax())
            raise ValueError(f"reward: wanted 0..1, round {bad} of {size} has {reward_R[bad]}")
        return found["features"], found["reward"], found["weight"], found["offset"]

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with any bit of it."""
        digest = hashlib.blake2b(self.config.fingerprint().encode(), digest_size=6)
        for _, array in sorted(self.arrays().items()):
            digest.update(str(array.shape).encode() + np.ascontiguousarray(array, dtype="<f8").tobytes())
        digest.update(str(self.evidence.at_us).encode())
        return digest.hexdigest()

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """All of it that is an array, by name."""
        known = self.evidence
        sums_2 = np.array([known.squares, known.num_rounds])
        return {"prior": self.prior_D, "precision": known.precision_DD, "shift": known.shift_D, "sums": sums_2}

    def about(self) -> dict[str, Any]:
        """All the rest, as JSON has it."""
        return {"posterior": self.config.model_dump(mode="json"), "at_us": self.evidence.at_us}

    @staticmethod
    def restored(arrays: Mapping[str, NDArray[np.float64]], about: Mapping[str, Any]) -> Posterior:
        """The posterior that gave these, bit for bit. Raises ValueError where they are not of one."""
        missing = [name for name in ("prior", "precision", "shift", "sums") if name not in arrays]
        missing += [name for name in ("posterior", "at_us") if name not in about]
        if missing:
            raise ValueError(f"a posterior without {', '.join(missing)}")
        prior_D, precision_DD, shift_D = arrays["prior"], arrays["precision"], arrays["shift"]
        if precision_DD.shape != (len(prior_D), len(prior_D)) or shift_D.shape != prior_D.shape:
            raise ValueError(f"a posterior of {len(prior_D)} weights with a precision of {precision_DD.shape}")
        squares, num_rounds = arrays["sums"].tolist()
        evidence = Evidence(precision_DD, shift_D, squares, num_rounds, int(about["at_us"]))
        return Posterior(PosteriorConfig(**about["posterior"]), prior_D, evidence)


def _chance(odds_R: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-np.clip(odds_R, -700.0, 700.0)))
