"""Epsilon-greedy slates and their propensities, against the contract and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from foretaste.policies.epsilon_greedy import EpsilonGreedy, choose_slate, replay
from foretaste.policies.slate import Slate, SlatePolicy, dice
from foretaste.testing.contract_policy import assert_policy

EVERY_POLICY: list[SlatePolicy] = [EpsilonGreedy(epsilon) for epsilon in (0.0, 0.05, 0.3, 1.0)]


@pytest.mark.parametrize("policy", EVERY_POLICY, ids=lambda policy: f"{policy.name}-{policy.params['epsilon']}")
def test_every_policy_keeps_the_contract(policy: SlatePolicy) -> None:
    assert_policy(policy)


class Overconfident(EpsilonGreedy):
    """Logs a propensity without the share of the dice."""

    def choose(
        self,
        scores_C: NDArray[np.float64],
        *,
        k: int,
        rng: np.random.Generator,
        features_CD: NDArray[np.float64] | None = None,
    ) -> Slate:
        slate = choose_slate(scores_C, k=k, epsilon=self.epsilon, rng=rng)
        return Slate(
            slate.order_K, np.where(slate.propensity_K > 0.5, 1 - self.epsilon, slate.propensity_K), slate.explored_K
        )


class Loaded(EpsilonGreedy):
    """Rolls dice that fall on the first remaining too often, and logs what fair ones would have done."""

    def choose(
        self,
        scores_C: NDArray[np.float64],
        *,
        k: int,
        rng: np.random.Generator,
        features_CD: NDArray[np.float64] | None = None,
    ) -> Slate:
        if rng.random() < 0.1:
            rng = dice(1)
        return choose_slate(scores_C, k=k, epsilon=self.epsilon, rng=rng)


@pytest.mark.parametrize("policy", [Overconfident(0.2), Loaded(0.5)], ids=lambda policy: type(policy).__name__)
def test_the_contract_fails_a_policy_whose_propensities_are_not_its_frequencies(policy: SlatePolicy) -> None:
    with pytest.raises(AssertionError):
        assert_policy(policy)


def test_greedy_shows_the_best_first_with_propensity_one() -> None:
    slate = choose_slate(np.array([0.1, 0.9, 0.5]), k=3, epsilon=0.0, rng=dice(0))
    assert slate.order_K.tolist() == [1, 2, 0]
    assert slate.propensity_K.tolist() == [1.0, 1.0, 1.0]
    assert slate.slate_propensity == 1.0
    assert not slate.explored


def test_equal_scores_keep_the_order_of_the_pool() -> None:
    assert choose_slate(np.array([1.0, 2.0, 1.0, 2.0]), k=4, epsilon=0.0, rng=dice(0)).order_K.tolist() == [1, 3, 0, 2]


def test_propensities_by_hand_with_four_candidates() -> None:
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    for seed in range(200):
        slate = choose_slate(scores, k=2, epsilon=0.2, rng=dice(seed))
        first, second = slate.order_K.tolist()
        best_second = 1 if first == 0 else 0
        assert slate.propensity_K[0] == pytest.approx(0.85 if first == 0 else 0.05)
        assert slate.propensity_K[1] == pytest.approx((0.8 if second == best_second else 0.0) + 0.2 / 3)
        assert slate.slate_propensity == pytest.approx(slate.propensity_K[0] * slate.propensity_K[1])


def test_with_epsilon_one_every_order_is_equally_likely() -> None:
    slate = choose_slate(np.array([9.0, 1.0, 5.0]), k=3, epsilon=1.0, rng=dice(3))
    assert slate.slate_propensity == pytest.approx(1 / 6)
    assert slate.explored_K.all()


@pytest.mark.parametrize("epsilon", [-0.1, 1.1, float("nan")])
def test_an_epsilon_that_is_no_probability_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        choose_slate(np.array([1.0]), k=1, epsilon=epsilon, rng=dice(0))
    with pytest.raises(ValueError, match="epsilon"):
        EpsilonGreedy(epsilon)


@given(
    st.lists(st.floats(-10, 10), max_size=30),
    st.integers(0, 40),
    st.floats(0, 1),
    st.integers(0, 2**63 - 1),
)
def test_a_slate_is_made_again_from_scores_and_seed(scores: list[float], k: int, epsilon: float, seed: int) -> None:
    values = np.array(scores)
    first = choose_slate(values, k=k, epsilon=epsilon, rng=dice(seed))
    again = replay(values, k=k, params={"epsilon": epsilon}, seed=seed)
    assert again.order_K.tolist() == first.order_K.tolist()
    assert again.propensity_K.tobytes() == first.propensity_K.tobytes()
    assert again.explored_K.tolist() == first.explored_K.tolist()
    assert len(first) == min(k, len(scores))


def test_a_slate_of_another_version_is_not_replayed_silently() -> None:
    with pytest.raises(ValueError, match="version 0"):
        replay(np.array([1.0]), k=1, params={"epsilon": 0.1}, seed=1, version="0")
