"""Uplift learners find what was planted, weigh arms as they should, and never judge a row by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeRegressor

from foretaste.evaluation.causal.uplift import (
    Chance,
    DRLearner,
    Learner,
    SLearner,
    TLearner,
    Trial,
    XLearner,
    cross_fitted,
    doubly_robust,
    fold_masks,
    fold_ranks,
)
from foretaste.evaluation.causal.uplift_curves import ranked

TREE, LINE = DecisionTreeRegressor, LinearRegression
LEARNERS: dict[str, Learner] = {
    "S": SLearner(TREE),
    "T": TLearner(TREE),
    "X": XLearner(TREE, TREE),
    "DR": DRLearner(TREE, TREE),
}


def _trial(num: int, seed: int, *, noise: float = 0.0, share: float = 0.5) -> Trial:
    """Members of two groups; treatment adds 0.5 to the first and takes 1.5 from the second."""
    rng = np.random.default_rng(seed)
    group_N = rng.integers(0, 2, num).astype(np.float64)
    treated_N = rng.random(num) < share
    outcome_N = 1.0 + 2.0 * group_N + treated_N * (0.5 - 2.0 * group_N) + noise * rng.normal(size=num)
    return Trial(group_N[:, None], treated_N, outcome_N, np.full(num, share))


@pytest.mark.parametrize("name", LEARNERS)
def test_without_noise_every_learner_finds_the_effect_of_each_group_exactly(name: str) -> None:
    effect = LEARNERS[name].fit(_trial(200, 0))
    np.testing.assert_allclose(effect(np.array([[0.0], [1.0]])), [0.5, -1.5], atol=1e-12)


@pytest.mark.parametrize("name", LEARNERS)
def test_cross_fitted_effects_of_noisy_rows_are_those_of_their_group(name: str) -> None:
    trial = _trial(8_000, 1, noise=1.0, share=0.3)
    effect_N = cross_fitted(LEARNERS[name], trial, folds=4)
    for group, wanted in ((0.0, 0.5), (1.0, -1.5)):
        assert effect_N[trial.column_ND[:, 0] == group].mean() == pytest.approx(wanted, abs=0.12)


def test_an_additive_s_learner_knows_one_effect_for_all() -> None:
    trial = _trial(4_000, 2)
    told = SLearner(LINE).fit(trial)(np.array([[0.0], [1.0]]))
    assert told[0] == pytest.approx(told[1])
    assert told[0] == pytest.approx(-0.5, abs=0.1)


def test_the_x_learner_weighs_what_was_learned_of_each_arm_by_the_propensity() -> None:
    """The outcome models know one constant an arm, control 1 and treated 3; the lines say the rest."""
    column = np.array([[0.0], [1.0], [0.0], [1.0]])
    trial = Trial(column, np.array([False, False, True, True]), np.array([0.0, 2.0, 4.0, 2.0]), np.full(4, 0.25))
    at = np.array([[0.0], [1.0]])
    of_treated, of_control = (
        XLearner(DummyRegressor, LINE, propensity=share).fit(trial)(at)
        for share in (lambda x: np.zeros(len(x)), lambda x: np.ones(len(x)))
    )
    np.testing.assert_allclose(of_treated, [4.0 - 1.0, 2.0 - 1.0])  # treated outcomes less the mean of control
    np.testing.assert_allclose(of_control, [3.0 - 0.0, 3.0 - 2.0])  # the mean of treated less control outcomes
    mixed = XLearner(DummyRegressor, LINE).fit(replace(trial, outcome_N=np.array([0.0, 2.0, 4.0, 5.0])))(at)
    np.testing.assert_allclose(mixed, 0.75 * np.array([3.0, 4.0]) + 0.25 * np.array([4.5, 2.5]))


def test_doubly_robust_effects_are_right_on_average_if_either_half_is() -> None:
    rng = np.random.default_rng(4)
    level_N = rng.random(20_000)
    propensity_N = 0.2 + 0.6 * level_N
    treated_N = rng.random(20_000) < propensity_N
    outcome_N = 5.0 * level_N + 1.0 * treated_N + rng.normal(size=20_000)
    trial = Trial(level_N[:, None], treated_N, outcome_N, propensity_N)
    assert outcome_N[treated_N].mean() - outcome_N[~treated_N].mean() > 1.8
    wrong_model = doubly_robust(trial, lambda: DummyRegressor(strategy="constant", constant=0.0))
    ips = treated_N * outcome_N / propensity_N - ~treated_N * outcome_N / (1 - propensity_N)
    np.testing.assert_allclose(wrong_model, ips)
    wrong_dice = doubly_robust(replace(trial, propensity_N=np.full(20_000, 0.5)), LINE)
    for effect_N in (wrong_model, wrong_dice):
        assert effect_N.mean() == pytest.approx(1.0, abs=4 * effect_N.std() / np.sqrt(20_000))


def test_a_learner_that_remembers_rows_finds_nothing_in_noise_once_it_is_cross_fitted() -> None:
    rng = np.random.default_rng(5)
    trial = Trial(
        rng.normal(size=(2_000, 3)),
        rng.random(2_000) < 0.5,
        rng.integers(0, 2, 2_000).astype(np.float64),
        np.full(2_000, 0.5),
    )
    learner = TLearner(lambda: KNeighborsRegressor(1))
    seen = ranked(trial.outcome_N, learner.fit(trial)(trial.column_ND), trial.treated_N, resamples=0)
    told_N = fold_ranks(cross_fitted(learner, trial, seed=1), trial, folds=5, seed=1)
    unseen = ranked(trial.outcome_N, told_N, trial.treated_N, resamples=100)
    assert seen.qini.value > 0.2
    assert unseen.qini.low is not None
    assert unseen.qini.high is not None
    assert unseen.qini.low < 0 < unseen.qini.high


def test_folds_hold_each_row_once_with_arms_in_equal_parts_and_actors_whole() -> None:
    trial = _trial(103, 6)
    masks = fold_masks(trial, 5, 0)
    assert np.sum(masks, axis=0).tolist() == [1] * 103
    assert np.ptp([trial.treated_N[mask].sum() for mask in masks]) <= 1
    actor_N = np.arange(103) // 4
    for mask in fold_masks(replace(trial, actor_N=actor_N), 5, 0):
        assert not set(actor_N[mask]) & set(actor_N[~mask])


def test_a_classifier_tells_chances_also_where_it_saw_one_class() -> None:
    column = np.linspace(-1, 1, 50)[:, None]
    model = Chance(LogisticRegression()).fit(column, (column[:, 0] > 0).astype(float))
    assert (np.diff(model.predict(column)) > 0).all()
    assert Chance(LogisticRegression()).fit(column, np.zeros(50)).predict(column).tolist() == [0.0] * 50


def test_errors_name_the_row() -> None:
    with pytest.raises(ValueError, match=r"propensity of row 1 is 1\.0"):
        Trial(np.zeros((2, 1)), np.array([True, False]), np.zeros(2), np.array([0.5, 1.0]))
    with pytest.raises(ValueError, match="0 treated of 2"):
        Trial(np.zeros((2, 1)), np.array([False, False]), np.zeros(2), np.full(2, 0.5))
    with pytest.raises(ValueError, match="wanted 2 to 1"):
        fold_masks(Trial(np.zeros((2, 1)), np.array([True, False]), np.zeros(2), np.full(2, 0.5)), 2, 0)
