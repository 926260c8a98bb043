"""Estimators of slates over all slates that a policy could have logged: each is right where what it believes is so."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest

from foretaste.evaluation.offpolicy.coverage import (
    every_slate,
    marginals,
    product_weights,
    pseudo_inverse_weights,
    second_moment,
    uniform_second_moment,
)
from foretaste.evaluation.offpolicy.rounds import Floats, Ints
from foretaste.evaluation.offpolicy.slates import (
    CASCADE_DR,
    INDEPENDENT,
    PSEUDO_INVERSE,
    REWARD_INTERACTION,
    SLATE_IPS,
    SlateEstimator,
    Slates,
)

P, A = 3, 4
LOGGED_A, TARGET_A = np.array([1.0, 2.0, 3.0, 4.0]), np.array([5.0, 1.0, 1.0, 3.0])
WORTH_PA = np.array([[1.0, 0.2, 0.5, 0.1], [0.3, 0.9, 0.4, 0.2], [0.7, 0.1, 0.8, 0.3]])


def luce(weights_A: Floats, above: tuple[int, ...]) -> Floats:
    """Plackett-Luce: the distribution of the next action after those above."""
    left_A = weights_A.copy()
    left_A[list(above)] = 0.0
    shares_A: Floats = left_A / left_A.sum()
    return shares_A


LISTS_NP, CHANCE_N = every_slate(P, A, partial(luce, LOGGED_A))
TARGET_N = every_slate(P, A, partial(luce, TARGET_A))[1]


def given(weights_A: Floats) -> Floats:
    """Distribution of each place of every slate given those above: float64[N, P, A]."""
    return np.array([[luce(weights_A, tuple(slate[:p])) for p in range(P)] for slate in LISTS_NP])


def of_actions(values_NPA: Floats) -> Floats:
    """Those of the actions of every slate."""
    taken: Floats = np.take_along_axis(values_NPA, LISTS_NP[:, :, None], axis=2)[:, :, 0]
    return taken


def additive(slates_NP: Ints) -> Floats:
    """A place earns by what stands there alone."""
    worth_NP: Floats = WORTH_PA[np.arange(P), slates_NP]
    return worth_NP


def cascading(slates_NP: Ints) -> Floats:
    """A place earns by what stands there and above."""
    worth_NP = additive(slates_NP)
    worth_NP[:, 1:] *= 1.0 + (slates_NP[:, :-1] > slates_NP[:, 1:])
    return worth_NP


def entangled(slates_NP: Ints) -> Floats:
    """A place earns by the whole slate."""
    return additive(slates_NP) * (1.0 + slates_NP[:, ::-1])


def slates(reward_NP: Floats, **more: Any) -> Slates:
    """All slates of the policy that logged."""
    places = np.arange(P)
    return Slates.of(
        action=LISTS_NP,
        reward=reward_NP,
        propensity=of_actions(given(LOGGED_A)),
        target=of_actions(given(TARGET_A)),
        marginal=marginals(LISTS_NP, CHANCE_N, A)[places, LISTS_NP],
        target_marginal=marginals(LISTS_NP, TARGET_N, A)[places, LISTS_NP],
        **more,
    )


def pseudo(second_DD: Floats) -> Floats:
    """Weights of all slates."""
    target_PA = marginals(LISTS_NP, TARGET_N, A)
    return pseudo_inverse_weights(second_DD, np.tile(target_PA, (len(LISTS_NP), 1, 1)), LISTS_NP)


@pytest.mark.parametrize(
    ("estimator", "rewards", "unbiased"),
    [
        (SLATE_IPS, entangled, True),
        (REWARD_INTERACTION, cascading, True),
        (REWARD_INTERACTION, entangled, False),
        (CASCADE_DR, cascading, True),
        (INDEPENDENT, additive, True),
        (INDEPENDENT, cascading, False),
        (PSEUDO_INVERSE, additive, True),
        (PSEUDO_INVERSE, entangled, False),
    ],
    ids=lambda of: getattr(of, "name", getattr(of, "__name__", str(of))),
)
def test_an_estimator_is_right_where_what_it_believes_is_so(
    estimator: SlateEstimator, rewards: Any, unbiased: bool
) -> None:
    reward_NP = rewards(LISTS_NP)
    rough_NPA = np.random.default_rng(0).random((len(LISTS_NP), P, A))
    for same in range(P):  # a prediction depends on what stands above, not on the slate
        _, first_N, inverse_N = np.unique(LISTS_NP[:, :same], axis=0, return_index=True, return_inverse=True)
        rough_NPA[:, same] = rough_NPA[first_N[inverse_N.ravel()], same]
    logged = slates(
        reward_NP,
        predicted=of_actions(rough_NPA),
        expected=(rough_NPA * given(TARGET_A)).sum(axis=2),
        pseudo_weight=pseudo(second_moment(LISTS_NP, CHANCE_N, A)),
    )
    error = CHANCE_N @ estimator(logged).per_round_R - TARGET_N @ reward_NP.sum(axis=1)
    assert (abs(error) < 1e-9) == unbiased, error


def test_belief_buys_variance() -> None:
    logged = slates(additive(LISTS_NP), pseudo_weight=pseudo(second_moment(LISTS_NP, CHANCE_N, A)))

    def variance(estimator: SlateEstimator) -> float:
        added_N = estimator(logged).per_round_R
        return float(CHANCE_N @ added_N**2 - (CHANCE_N @ added_N) ** 2)

    least, *between, most = (variance(e) for e in (INDEPENDENT, PSEUDO_INVERSE, REWARD_INTERACTION, SLATE_IPS))
    assert least < min(between) <= max(between) < most


def test_the_second_moment_of_even_slates_is_that_of_their_list() -> None:
    even_N = np.full(len(LISTS_NP), 1 / len(LISTS_NP))
    np.testing.assert_allclose(uniform_second_moment(P, A), second_moment(LISTS_NP, even_N, A))
    with pytest.raises(ValueError, match="wanted at least 5 actions"):
        uniform_second_moment(5, 4)


def test_places_drawn_by_themselves_have_a_weight_in_closed_form() -> None:
    lists_NP = np.array(list(product(range(3), repeat=2)))
    logged_PA, target_PA = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]), np.array([[0.5, 0.5, 0.0], [0.1, 0.1, 0.8]])
    places = np.arange(2)
    logged_NP, target_NP = logged_PA[places, lists_NP], target_PA[places, lists_NP]
    second_DD = second_moment(lists_NP, logged_NP.prod(axis=1), 3)
    by_inverse = pseudo_inverse_weights(second_DD, np.tile(target_PA, (len(lists_NP), 1, 1)), lists_NP)
    np.testing.assert_allclose(product_weights(logged_NP, target_NP), by_inverse)


def test_a_target_that_the_log_cannot_cover_is_refused() -> None:
    sure = second_moment(LISTS_NP[:1], np.ones(1), A)
    with pytest.raises(ValueError, match="slate 0: the log cannot cover the target policy"):
        pseudo(sure)


def test_slates_that_cannot_be_answered_from_are_refused_with_their_place() -> None:
    fine: dict[str, Any] = {
        "action": [[0, 1]],
        "reward": [[1.0, 0.0]],
        "propensity": [[0.5, 0.5]],
        "target": [[1.0, 0]],
    }
    for changed, message in (
        ({"propensity": [[0.5, 0.0]]}, r"propensity of slate 0, place 1 is 0.0, wanted in \(0, 1\] \(1 of 2 places\)"),
        ({"target": [[0.5, 1.2]]}, r"target of slate 0, place 1 is 1.2"),
        ({"reward": [[np.nan, 0]]}, r"reward of slate 0, place 0 is nan"),
        ({"reward": [1.0, 0.0]}, r"reward: wanted slates x places, found \(2,\)"),
        ({"action": [[0.0, 1.0]]}, r"action: wanted whole numbers"),
        ({"target": [[1.0]]}, r"target: wanted \(1, 2\), found \(1, 1\)"),
        ({"pseudo_weight": [1.0, 2.0]}, r"pseudo_weight: wanted a finite number for each of 1 slates"),
    ):
        with pytest.raises(ValueError, match=message):
            Slates.of(**{**fine, **changed})
    with pytest.raises(ValueError, match=r"cascade_dr needs \['predicted_SP', 'expected_SP'\]"):
        CASCADE_DR(Slates.of(**fine))
