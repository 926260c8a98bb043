"""Weights of the pseudo-inverse estimator: how a policy's places are covered by the slates that another shows.

With 1_s the indicator of a slate's actions at its places, the weight of slate s is q' G^+ 1_s: q are the target
policy's probabilities of each action at each place, G the second moment of 1_s under the policy that logged. It is
unbiased where a slate earns the sum of what its places give and G covers q. Swaminathan et al., NeurIPS 2017.

Shapes: S slates, P places, A actions, D = P x A, N slates of an enumeration.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from foretaste.evaluation.offpolicy.rounds import Floats, Ints

UNCOVERED = 1e-6
"""Share of the target's probabilities that may lie outside what the log covers, by rounding."""


def pseudo_inverse_weights(second_DD: Floats, target_SPA: Floats, action_SP: Ints) -> Floats:
    """Weights of slates that one policy logged, whose second moment is `second_DD`: float64[S].

    `target_SPA` are the target policy's marginal probabilities. Raises ValueError naming the first slate where the log
    covers too little of them: no estimate is unbiased there.
    """
    num_slates, num_places, num_actions = target_SPA.shape
    target_SD = target_SPA.reshape(num_slates, -1)
    solved_SD = target_SD @ np.linalg.pinv(second_DD, hermitian=True)
    missed_S = np.abs(solved_SD @ second_DD - target_SD).max(axis=1, initial=0.0)
    if num_slates and missed_S.max() > UNCOVERED:
        slate = int(np.argmax(missed_S > UNCOVERED))
        raise ValueError(f"slate {slate}: the log cannot cover the target policy there (off by {missed_S[slate]:.2g})")
    cell_SP = action_SP + np.arange(num_places) * num_actions
    weights_S: Floats = np.take_along_axis(solved_SD, cell_SP, axis=1).sum(axis=1)
    return weights_S


def product_weights(marginal_SP: Floats, target_marginal_SP: Floats) -> Floats:
    """The same where the policy that logged draws each place by itself: float64[S].

    Then the weight is 1 + sum over places of (target / logged - 1).
    """
    weights_S: Floats = 1.0 + (target_marginal_SP / marginal_SP - 1.0).sum(axis=1)
    return weights_S


def uniform_second_moment(num_places: int, num_actions: int) -> Floats:
    """Second moment of slates drawn evenly among those without repetition: float64[D, D]."""
    if num_places > num_actions:
        raise ValueError(f"wanted at least {num_places} actions for as many places, found {num_actions}")
    pair_AA = (1.0 - np.eye(num_actions)) / (num_actions * max(num_actions - 1, 1))
    same_PP = np.eye(num_places)
    second_DD: Floats = np.kron(same_PP, np.eye(num_actions) / num_actions) + np.kron(1.0 - same_PP, pair_AA)
    return second_DD


def second_moment(slates_NP: Ints, probability_N: Floats, num_actions: int) -> Floats:
    """Second moment of a distribution over slates that are listed: float64[D, D]."""
    shown_ND = _indicators(slates_NP, num_actions)
    second_DD: Floats = (shown_ND * probability_N[:, None]).T @ shown_ND
    return second_DD


def marginals(slates_NP: Ints, probability_N: Floats, num_actions: int) -> Floats:
    """Probability of each action at each place under a distribution over slates that are listed: float64[P, A]."""
    shown_ND = _indicators(slates_NP, num_actions)
    marginal_PA: Floats = (probability_N @ shown_ND).reshape(slates_NP.shape[1], num_actions)
    return marginal_PA


def every_slate(
    num_places: int, num_actions: int, following: Callable[[tuple[int, ...]], Floats]
) -> tuple[Ints, Floats]:
    """All slates without repetition and their probabilities: int64[N, P], float64[N]; for small cases only.

    `following` gives the distribution of the next action (A) after those above.
    """
    slates = list(permutations(range(num_actions), num_places))
    probability_N = np.array([_chance(slate, following) for slate in slates])
    return np.array(slates, dtype=np.int64), probability_N


def _chance(slate: tuple[int, ...], following: Callable[[tuple[int, ...]], Floats]) -> float:
    return float(np.prod([following(slate[:place])[action] for place, action in enumerate(slate)]))


def _indicators(slates_NP: Ints, num_actions: int) -> NDArray[np.float64]:
    num_slates, num_places = slates_NP.shape
    shown_NPA = np.zeros((num_slates, num_places, num_actions))
    np.put_along_axis(shown_NPA, slates_NP[:, :, None], 1.0, axis=2)
    shown_ND: Floats = shown_NPA.reshape(num_slates, -1)
    return shown_ND
