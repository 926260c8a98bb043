"""The world that policies learn in: its log is of the policy that it says, and its truth is what is earned there."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.evaluation.offpolicy.synthetic_choices import ChoiceWorld, ChoiceWorldConfig, LoggingConfig


def drawn(bend: float = 1.0, **logging: float) -> ChoiceWorld:
    return ChoiceWorld.drawn(ChoiceWorldConfig(bend=bend), LoggingConfig(**logging), np.random.default_rng(3))


def test_actions_and_rewards_come_as_often_as_the_world_says() -> None:
    world = drawn(sharpness=2.0)
    log = world.log(40_000, np.random.default_rng(0))
    logged_RA, chance_RA = world.logged(log.context_RC), world.chances(log.context_RC)
    assert logged_RA.sum(axis=1) == pytest.approx(1.0)
    rows = np.arange(len(log.action_R))
    assert np.array_equal(log.propensity_R, logged_RA[rows, log.action_R])
    often_A = np.bincount(log.action_R, minlength=10) / len(rows)
    assert often_A == pytest.approx(logged_RA.mean(axis=0), abs=0.01)
    assert log.reward_R.mean() == pytest.approx(chance_RA[rows, log.action_R].mean(), abs=0.01)
    assert set(np.unique(log.reward_R)) == {0.0, 1.0}


def test_a_sharp_policy_that_agrees_with_the_truth_earns_more_than_one_that_disagrees() -> None:
    values = []
    for agreement in (-0.9, 0.0, 0.9):
        world = drawn(sharpness=4.0, agreement=agreement)
        context_RC = world.contexts(5_000, np.random.default_rng(1))
        values.append(float((world.logged(context_RC) * world.chances(context_RC)).sum(axis=1).mean()))
    assert values[0] < values[1] < values[2]


def test_without_a_bend_log_odds_are_linear_in_the_context() -> None:
    for bend, straight in ((0.0, True), (1.0, False)):
        world = drawn(bend)
        context_RC = world.contexts(500, np.random.default_rng(2))
        chance_RA = world.chances(context_RC)
        odds_RA = np.log(chance_RA) - np.log1p(-chance_RA)
        told_RN = np.column_stack([np.ones(500), context_RC])
        left_RA = odds_RA - told_RN @ np.linalg.lstsq(told_RN, odds_RA, rcond=None)[0]
        assert bool(np.abs(left_RA).max() < 1e-9) is straight
