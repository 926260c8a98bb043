"""The worlds that estimators are measured in are what they say they are."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.evaluation.offpolicy.diagnostics import Measures
from foretaste.evaluation.offpolicy.synthetic_catalogue import CatalogueWorld, CatalogueWorldConfig, monomials
from foretaste.evaluation.offpolicy.synthetic_logs import LogConfig, known_log

SMALL = CatalogueWorldConfig(num_titles=300, num_clusters=10, num_rounds=20_000, num_members=50)


def test_a_catalogue_has_the_spreads_that_are_stated() -> None:
    rng = np.random.default_rng(0)
    world = CatalogueWorld.drawn(SMALL, rng)
    g_XG, h_XA = world._effects(world.members(2_000, rng))
    assert g_XG.std() * world.scale_2[0] == pytest.approx(3.0, rel=0.25)  # cubes of normal numbers: heavy tails
    assert h_XA.std() * world.scale_2[1] == pytest.approx(1.0, rel=0.1)
    assert len(np.unique(world.cluster_A)) == 10


def test_titles_are_drawn_and_earn_as_the_log_says() -> None:
    rng = np.random.default_rng(1)
    log = CatalogueWorld.drawn(SMALL, rng).log(rng)
    for policy_XA in (log.logging_XA, log.target_XA):
        assert policy_XA.sum(axis=1) == pytest.approx(np.ones(50))
    counted = np.bincount(log.action_R, minlength=300)
    expected = log.logging_XA[log.context_R].sum(axis=0)
    assert ((counted - expected) ** 2 / expected).sum() < 300 + 5 * np.sqrt(600)
    assert log.value_here > log.reward_R.mean() + 1  # the target takes the best, the policy that logged avoids it


def test_products_of_up_to_three_numbers_are_all_there() -> None:
    assert monomials(np.array([[2.0, 3.0]])).ravel().tolist() == [1, 2, 3, 4, 6, 9, 8, 12, 18, 27]


@pytest.mark.parametrize("reward", ["binary", "normal", "skewed"])
def test_the_truth_of_a_log_is_what_the_target_earns(reward: str) -> None:
    config = LogConfig.model_validate({"reward": reward, "num_rounds": 60_000, "distance": 0.0})
    log = known_log(config, np.random.default_rng(2))
    assert log.rounds.weight_R == pytest.approx(np.ones(60_000))
    assert log.rounds.reward_R.mean() == pytest.approx(log.truth, abs=0.01)


def test_a_far_target_makes_weights_uneven_and_hidden_faults_hide_the_policy() -> None:
    near, far = (
        Measures.of(known_log(LogConfig(distance=distance), np.random.default_rng(3)).rounds) for distance in (0.1, 3.0)
    )
    assert far.effective_rounds < near.effective_rounds / 2
    hidden = known_log(LogConfig(fault="hidden_support"), np.random.default_rng(4)).rounds
    assert hidden.logging_RA is None
