"""Every policy keeps the contract, whatever its bounds: exact propensities, and a price within its budget."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from foretaste.policies.by_place import ByPlace
from foretaste.policies.contextual import (
    LinearThompson,
    LinUCB,
    LogisticThompson,
    NeuralThompson,
    Published,
)
from foretaste.policies.epsilon_greedy import BoundedEpsilonGreedy, EpsilonGreedy
from foretaste.policies.exploration import Exploration
from foretaste.policies.plackett_luce import PlackettLuce
from foretaste.policies.posterior import Posterior, PosteriorConfig
from foretaste.policies.register import policy_of, replay
from foretaste.policies.slate import Slate, SlatePolicy, dice
from foretaste.policies.worth import Scale, log_values, logits, worth
from foretaste.testing.contract_policy import SCORES, assert_policy

D = 3
BOUNDS = Exploration(epsilon=0.2, among=3, cold_share=0.15, budget=0.3)


def features(num: int) -> NDArray[np.float64]:
    """Of candidates that differ."""
    return dice(5).normal(size=(num, D))


def published(kind: str, *, num_draws: int = 16) -> Published:
    """A posterior that has seen a little."""
    config = PosteriorConfig.model_validate({"kind": kind})
    x_RD = dice(1).normal(size=(40, D))
    reward_R = (dice(2).random(40) < 0.4).astype(float)
    posterior = Posterior.of(config, D)
    return Published.of(posterior.learned(posterior.gathered(x_RD, reward_R)), num_draws=num_draws)


LINEAR, LOGISTIC = published("linear"), published("logistic")
PLAIN: list[ByPlace] = [
    PlackettLuce(temperature=0.7),
    PlackettLuce(temperature=1e-9),
    LinUCB(posterior=LINEAR, alpha=2.0),
    LinearThompson(posterior=LINEAR),
    LogisticThompson(posterior=LOGISTIC, width=0.5),
    NeuralThompson(posterior=LOGISTIC),
]
BOUNDED: list[ByPlace] = [
    BoundedEpsilonGreedy(exploration=BOUNDS, cold=(1, 3), scale=Scale.VALUE),
    PlackettLuce(exploration=BOUNDS, cold=(1, 3), protected=(1,)),
    PlackettLuce(exploration=Exploration(epsilon=0.3), protected=(0, 2)),
    LinUCB(posterior=LINEAR, exploration=BOUNDS, cold=(0,)),
    LinearThompson(posterior=LINEAR, exploration=BOUNDS, cold=(2,), protected=(0,)),
    LogisticThompson(posterior=LOGISTIC, exploration=BOUNDS, cold=(1, 3)),
]


@pytest.mark.parametrize("policy", [*PLAIN, *BOUNDED], ids=lambda policy: policy.name)
def test_every_policy_keeps_the_contract(policy: ByPlace) -> None:
    assert isinstance(policy, SlatePolicy)
    assert_policy(policy, draws=2_500, features=features)


def test_the_contract_fails_a_policy_that_logs_less_than_its_dice_do() -> None:
    class Hot(PlackettLuce):
        def choose(
            self,
            scores_C: NDArray[np.float64],
            *,
            k: int,
            rng: np.random.Generator,
            features_CD: NDArray[np.float64] | None = None,
        ) -> Slate:
            slate = PlackettLuce(temperature=5.0).choose(scores_C, k=k, rng=rng)
            order = slate.order_K.tolist()
            told = [self.distribution(scores_C, order[:place])[one] for place, one in enumerate(order)]
            return replace(slate, propensity_K=np.array(told))

    with pytest.raises(AssertionError, match="frequencies differ"):
        assert_policy(Hot(temperature=2.0), draws=5_000)


@pytest.mark.parametrize("policy", [*PLAIN, *BOUNDED], ids=lambda policy: policy.name)
def test_a_slate_is_made_again_from_what_is_logged_to_the_bit(policy: ByPlace) -> None:
    scores_C = np.array(SCORES["spread"])
    x_CD = features(len(scores_C))
    params = json.loads(json.dumps(policy.params))
    posterior = next((one for one in (LINEAR, LOGISTIC) if one.fingerprint == params.get("posterior")), None)
    for seed in range(20):
        first = policy.choose(scores_C, k=4, rng=dice(seed), features_CD=x_CD)
        again = replay(
            scores_C, name=policy.name, version=policy.version, params=params, seed=seed, k=4,
            protected=policy.protected, posterior=posterior, features_CD=x_CD,
        )  # fmt: skip
        assert again.order_K.tolist() == first.order_K.tolist()
        assert again.propensity_K.tobytes() == first.propensity_K.tobytes()


def test_what_was_chosen_by_another_version_or_posterior_is_not_made_again_silently() -> None:
    policy = LogisticThompson(posterior=LOGISTIC)
    with pytest.raises(ValueError, match="version 0"):
        policy_of(policy.name, "0", policy.params, posterior=LOGISTIC)
    with pytest.raises(ValueError, match=f"given is {LINEAR.fingerprint}"):
        policy_of(policy.name, policy.version, policy.params, posterior=LINEAR)
    with pytest.raises(ValueError, match="given is None"):
        policy_of(policy.name, policy.version, policy.params)
    with pytest.raises(ValueError, match="no policy 'dice'"):
        policy_of("dice", "1", {})


def test_plackett_luce_chooses_in_proportion_to_values_at_temperature_one() -> None:
    policy = PlackettLuce()
    assert policy.distribution(np.log([4.0, 3.0, 1.0]), ()).tolist() == pytest.approx([0.5, 0.375, 0.125])
    assert policy.distribution(np.log([4.0, 3.0, 1.0]), (0,)).tolist() == pytest.approx([0, 0.75, 0.25])


def test_thompson_propensities_are_counts_of_the_draws_that_agree() -> None:
    policy, scores_C, x_CD = LinearThompson(posterior=LINEAR), np.zeros(4), features(4)
    drawn_MC = LINEAR.draws_MD @ x_CD.T
    share_C = policy.distribution(scores_C, (), features_CD=x_CD)
    assert share_C.tolist() == [(drawn_MC.argmax(axis=1) == c).mean() for c in range(4)]
    drawn_MC[:, 1] = -np.inf
    share_C = policy.distribution(scores_C, (1,), features_CD=x_CD)
    assert share_C.tolist() == [(drawn_MC.argmax(axis=1) == c).mean() for c in range(4)]


def test_linucb_prefers_what_it_knows_little_of_and_greedy_bounds_give_that_up() -> None:
    config = PosteriorConfig(kind="linear", noise=1.0, noise_rounds=None)
    posterior = Posterior.of(config, 2)
    x_RD = np.tile([1.0, 0.0], (50, 1))
    known = Published.of(posterior.learned(posterior.gathered(x_RD, np.full(50, 0.1))))
    arms_CD = np.eye(2)
    assert LinUCB(posterior=known, alpha=1.0).distribution(np.zeros(2), (), features_CD=arms_CD).tolist() == [0, 1]
    assert LinUCB(posterior=known, alpha=0.0).distribution(np.zeros(2), (), features_CD=arms_CD).tolist() == [1, 0]
    careful = LinUCB(posterior=known, alpha=1.0, exploration=Exploration(budget=0.25))
    assert careful.distribution(np.zeros(2), (), features_CD=arms_CD).tolist() == pytest.approx([0.75, 0.25])


def test_features_that_will_not_do_are_refused_with_what_was_wanted() -> None:
    policy = LinearThompson(posterior=LINEAR)
    with pytest.raises(ValueError, match="wants 3 of each candidate, got none"):
        policy.choose(np.zeros(2), k=1, rng=dice(0))
    with pytest.raises(ValueError, match=r"wanted shape \(2, 3\), got \(2, 2\)"):
        policy.choose(np.zeros(2), k=1, rng=dice(0), features_CD=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="candidate 1"):
        policy.choose(np.zeros(2), k=1, rng=dice(0), features_CD=np.array([[0.0] * 3, [0.0, np.nan, 0.0]]))
    with pytest.raises(ValueError, match="a linear posterior wants value, got log"):
        LinearThompson(posterior=LINEAR, scale=Scale.LOG)
    with pytest.raises(ValueError, match="temperature"):
        PlackettLuce(temperature=0.0)
    with pytest.raises(ValueError, match="width"):
        LinearThompson(posterior=LINEAR, width=0.0)
    with pytest.raises(ValueError, match="alpha"):
        LinUCB(posterior=LINEAR, alpha=-1.0)


@settings(max_examples=60, deadline=None)
@example([0.0, 0.0, 1.0], 1.0, 0.5, 0.125, 3, 0)  # cold titles alone would take the whole budget
@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=12),
    st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.integers(1, 12), st.integers(0, 2**32),
)  # fmt: skip
def test_no_place_gives_up_more_than_the_budget_and_nothing_possible_becomes_impossible(
    scores: list[float], epsilon: float, cold_share: float, budget: float, among: int, seed: int
) -> None:
    bounds = Exploration(epsilon=epsilon, cold_share=cold_share, budget=budget, among=among)
    cold, values = tuple(range(0, len(scores), 2)), np.array(scores)
    slate = PlackettLuce(exploration=bounds, cold=cold).choose(values, k=5, rng=dice(seed))
    assert slate.price is not None
    assert (slate.price.given_up_K <= budget * slate.price.best_K + 1e-9).all()
    assert slate.price.share <= budget + 1e-9
    free = PlackettLuce(exploration=Exploration(epsilon=epsilon), cold=cold).distribution(values, ())
    if budget > 0 and epsilon > 1e-6 and among >= len(scores) and cold_share < 1:
        bound = PlackettLuce(exploration=bounds, cold=cold).distribution(values, ())
        assert ((bound > 0) == (free > 0)).all()


def test_the_price_is_what_the_distribution_loses_against_the_best() -> None:
    scores_C = np.array([0.9, 0.5, 0.4, 0.2])
    for policy in (EpsilonGreedy(0.3), BoundedEpsilonGreedy(exploration=Exploration(epsilon=0.3), scale=Scale.VALUE)):
        slate = policy.choose(scores_C, k=3, rng=dice(4))
        assert slate.price is not None
        for place in range(3):
            placed = slate.order_K[:place].tolist()
            best = max(score for c, score in enumerate(scores_C) if c not in placed)
            lost = best - policy.distribution(scores_C, placed) @ scores_C
            assert slate.price.best_K[place] == best
            assert slate.price.given_up_K[place] == pytest.approx(lost)
    assert EpsilonGreedy(0.0).choose(scores_C, k=3, rng=dice(4)).price.share == 0.0  # type: ignore[union-attr]


def test_cold_titles_get_their_share_first_and_less_where_it_alone_costs_too_much() -> None:
    scores_C = np.array([1.0, 0.9, 0.8, 0.5])
    shared = Exploration(epsilon=1.0, cold_share=0.2)
    policy = BoundedEpsilonGreedy(exploration=shared, cold=(3,), scale=Scale.VALUE)
    assert policy.distribution(scores_C, ())[3] == pytest.approx(0.2 + 0.8 / 4)
    tight = replace(policy, exploration=shared.model_copy(update={"budget": 0.1}))
    assert tight.distribution(scores_C, ()).tolist() == pytest.approx([0.7125, 0.0625, 0.0625, 0.1625])
    tighter = replace(policy, exploration=shared.model_copy(update={"budget": 0.05}))
    assert tighter.distribution(scores_C, ()).tolist() == pytest.approx([0.85625, 0.03125, 0.03125, 0.08125])
    for bound, found in ((0.1, tight), (0.05, tighter)):
        assert found.distribution(scores_C, ()) @ (1.0 - scores_C) == pytest.approx(bound), "all of the budget"
    assert replace(policy, cold=()).distribution(scores_C, ()).tolist() == pytest.approx([0.25] * 4)


def test_epsilon_over_a_bounded_pool_reaches_no_further_than_the_next_few() -> None:
    policy = EpsilonGreedy(0.5, exploration=Exploration(among=2))
    assert (policy.name, policy.version) == ("epsilon_greedy", "3")
    scores_C = np.array([4.0, 3.0, 2.0, 1.0])
    assert policy.distribution(scores_C, ()).tolist() == [0.75, 0.25, 0, 0]
    assert policy.distribution(scores_C, (1,)).tolist() == [0.75, 0, 0.25, 0]
    assert EpsilonGreedy(0.5).version == "2"


def test_the_propensity_of_what_a_client_showed_ends_with_the_deepest_title_that_it_did() -> None:
    slate = EpsilonGreedy(0.5).choose(np.arange(6.0), k=4, rng=dice(3))
    assert slate.shown_propensity([2, 0]) == pytest.approx(np.prod(slate.propensity_K[:3]))
    assert slate.shown_propensity([]) == 1.0
    assert slate.shown_propensity(range(4)) == pytest.approx(slate.slate_propensity)


def test_scores_are_worth_what_their_scale_says() -> None:
    assert worth(np.array([2.0, 0.5]), Scale.VALUE).tolist() == [2.0, 0.5]
    assert worth(np.array([1.0, -3.0]), Scale.VALUE).tolist() == [4.0, 0.0]
    assert worth(np.log([2.0, 0.5]), Scale.LOG).tolist() == pytest.approx([2.0, 0.5])
    assert worth(np.array([0.0]), Scale.LOGIT).tolist() == [0.5]
    assert worth(np.array([np.inf, -np.inf, 1e300]), Scale.VALUE).tolist() == [2e300, 0.0, 2e300]
    assert np.isfinite(worth(np.array([np.inf, -np.inf]), Scale.LOG)).all()
    assert log_values(np.array([0.5, 0.0])).tolist() == pytest.approx(np.log([0.5, 5e-7]).tolist())
    assert log_values(np.array([-1.0, 0.0])).tolist() == [0.0, 0.0]
    assert logits(np.array([0.5, 1.0])).tolist() == pytest.approx([0.0, np.log(1e6)], rel=1e-5)
