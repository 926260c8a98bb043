"""What a policy would have earned from whole slates that another logged.

Each estimator believes something of how a place earns: from the whole slate (standard), from the places above it and
itself (reward interaction, cascade-DR), from itself alone (independent); or that a slate earns the sum of what its
places give, whichever they are (pseudo-inverse). What is believed and not so is bias; what is not believed is variance.

A slate's value is the sum of the rewards of its places. Terms are one a slate, so that intervals are over slates.

Shapes: S slates, P places, A actions, D = P x A.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from foretaste.evaluation.offpolicy.rounds import ABOVE_ONE, Floats, Ints
from foretaste.evaluation.offpolicy.terms import Terms


@dataclass(frozen=True)
class Slates:
    """Logged slates with the target policy's probabilities; make them with `Slates.of`, which checks them.

    Probabilities are of the action at its place given those above it, as decisions log them; marginal ones are of the
    action at its place whatever stands above.
    """

    action_SP: Ints
    reward_SP: Floats
    propensity_SP: Floats  # by the policy that logged, given the actions above
    target_SP: Floats  # by the target policy, given the same actions above
    marginal_SP: Floats | None = None  # by the policy that logged
    target_marginal_SP: Floats | None = None
    predicted_SP: Floats | None = None  # reward from here on that a model expects of the action, given those above
    expected_SP: Floats | None = None  # the same of the target policy's action here, given those above
    pseudo_weight_S: Floats | None = None  # see `pseudo_inverse_weights`

    @classmethod
    def of(
        cls,
        *,
        action: ArrayLike,
        reward: ArrayLike,
        propensity: ArrayLike,
        target: ArrayLike,
        marginal: ArrayLike | None = None,
        target_marginal: ArrayLike | None = None,
        predicted: ArrayLike | None = None,
        expected: ArrayLike | None = None,
        pseudo_weight: ArrayLike | None = None,
    ) -> Slates:
        """Check and lay out slates; all are S x P, but `pseudo_weight` (S).

        Raises ValueError naming the field, the first slate and place at fault, what was wanted and what was found.
        """
        reward_SP = _table("reward", reward, None)
        shape = reward_SP.shape
        actions = np.asarray(action)
        if actions.shape != shape or actions.dtype.kind not in "iu":
            raise ValueError(f"action: wanted whole numbers {shape}, found {actions.dtype} {actions.shape}")
        return cls(
            action_SP=actions.astype(np.int64, copy=False),
            reward_SP=reward_SP,
            propensity_SP=_probabilities("propensity", propensity, shape, some=True),
            target_SP=_probabilities("target", target, shape),
            marginal_SP=None if marginal is None else _probabilities("marginal", marginal, shape, some=True),
            target_marginal_SP=(
                None if target_marginal is None else _probabilities("target_marginal", target_marginal, shape)
            ),
            predicted_SP=None if predicted is None else _table("predicted", predicted, shape),
            expected_SP=None if expected is None else _table("expected", expected, shape),
            pseudo_weight_S=None if pseudo_weight is None else _column("pseudo_weight", pseudo_weight, len(reward_SP)),
        )

    def __len__(self) -> int:
        return len(self.reward_SP)

    def take(self, rows: slice) -> Slates:
        """Those slates."""
        taken: dict[str, Any] = {
            f.name: None if (column := getattr(self, f.name)) is None else column[rows] for f in fields(self)
        }
        return Slates(**taken)

    @property
    def weight_SP(self) -> Floats:
        """Importance weight of what stands down to each place: float64[S, P], of the whole slate at the last."""
        weight_SP: Floats = np.cumprod(self.target_SP / self.propensity_SP, axis=1, dtype=np.float64)
        return weight_SP


@dataclass(frozen=True, slots=True)
class SlateEstimator:
    """A way to estimate a policy's mean reward of a slate; see `Estimates`."""

    name: str
    terms: Callable[[Slates], Terms]
    needs: tuple[str, ...] = ()

    def __call__(self, slates: Slates, /) -> Terms:
        """Terms of each slate; raises ValueError where the slates lack what it needs."""
        missing = [name for name in self.needs if getattr(slates, name) is None]
        if missing:
            raise ValueError(f"{self.name} needs {missing} of each slate, which these slates do not have")
        return self.terms(slates)


def standard(slates: Slates) -> Terms:
    """All of a slate's reward, by the weight of the whole slate."""
    return Terms(len(slates), gain_R=slates.weight_SP[:, -1] * slates.reward_SP.sum(axis=1))


def self_normalised(slates: Slates) -> Terms:
    """The same over the sum of the weights."""
    weight_S = slates.weight_SP[:, -1]
    return Terms(len(slates), gain_R=weight_S * slates.reward_SP.sum(axis=1), mass_R=weight_S)


def independent(slates: Slates) -> Terms:
    """Each place's reward by the weight of what stands there. Li et al., KDD 2018."""
    weight_SP = np.asarray(slates.target_marginal_SP) / np.asarray(slates.marginal_SP)
    return Terms(len(slates), gain_R=(weight_SP * slates.reward_SP).sum(axis=1))


def reward_interaction(slates: Slates) -> Terms:
    """Each place's reward by the weight of what stands down to there. McInerney et al., KDD 2020."""
    return Terms(len(slates), gain_R=(slates.weight_SP * slates.reward_SP).sum(axis=1))


def cascade_doubly_robust(slates: Slates) -> Terms:
    """The same, around a model of the reward from each place on. Kiyohara et al., WSDM 2022."""
    weight_SP = slates.weight_SP
    above_SP = np.concatenate([np.ones((len(slates), 1)), weight_SP[:, :-1]], axis=1)
    base_S = (above_SP * np.asarray(slates.expected_SP)).sum(axis=1)
    gain_S = (weight_SP * (slates.reward_SP - np.asarray(slates.predicted_SP))).sum(axis=1)
    return Terms(len(slates), base_S, gain_S)


def pseudo_inverse(slates: Slates) -> Terms:
    """All of a slate's reward, by how well the target policy's places are covered. Swaminathan et al., NeurIPS 2017."""
    return Terms(len(slates), gain_R=np.asarray(slates.pseudo_weight_S) * slates.reward_SP.sum(axis=1))


SLATE_IPS = SlateEstimator("slate_ips", standard)
SLATE_SNIPS = SlateEstimator("slate_snips", self_normalised)
INDEPENDENT = SlateEstimator("independent_ips", independent, ("marginal_SP", "target_marginal_SP"))
REWARD_INTERACTION = SlateEstimator("reward_interaction_ips", reward_interaction)
CASCADE_DR = SlateEstimator("cascade_dr", cascade_doubly_robust, ("predicted_SP", "expected_SP"))
PSEUDO_INVERSE = SlateEstimator("pseudo_inverse", pseudo_inverse, ("pseudo_weight_S",))

EVERY_SLATE = (SLATE_IPS, SLATE_SNIPS, INDEPENDENT, REWARD_INTERACTION, CASCADE_DR, PSEUDO_INVERSE)


def _table(name: str, given: ArrayLike, shape: tuple[int, ...] | None) -> Floats:
    values_SP = np.asarray(given, dtype=np.float64)
    if values_SP.ndim != 2 or values_SP.shape[1] == 0 or (shape is not None and values_SP.shape != shape):
        raise ValueError(f"{name}: wanted {shape or 'slates x places'}, found {values_SP.shape}")
    return _fine(name, values_SP, np.asarray(np.isfinite(values_SP)), "finite")


def _column(name: str, given: ArrayLike, num_slates: int) -> Floats:
    values_S = np.asarray(given, dtype=np.float64)
    if values_S.shape != (num_slates,) or not np.isfinite(values_S).all():
        raise ValueError(f"{name}: wanted a finite number for each of {num_slates} slates, found {values_S.shape}")
    return values_S


def _probabilities(name: str, given: ArrayLike, shape: tuple[int, ...], *, some: bool = False) -> Floats:
    values_SP = _table(name, given, shape)
    low_SP = values_SP > 0 if some else values_SP >= 0
    return _fine(name, values_SP, low_SP & (values_SP <= 1 + ABOVE_ONE), "in (0, 1]" if some else "in [0, 1]")


def _fine(name: str, values_SP: Floats, good_SP: Any, wanted: str) -> Floats:
    if not good_SP.all():
        slate, place = np.argwhere(~good_SP)[0]
        raise ValueError(
            f"{name} of slate {slate}, place {place} is {values_SP[slate, place]}, wanted {wanted} "
            f"({int((~good_SP).sum())} of {good_SP.size} places)"
        )
    return values_SP
