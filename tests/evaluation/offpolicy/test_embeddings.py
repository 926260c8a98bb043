"""Weights of groups, estimates that use them, and the regression that stands behind clusters."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.evaluation.offpolicy.cluster_search import alike, searched
from foretaste.evaluation.offpolicy.embeddings import (
    Choices,
    chosen_features,
    counted_weight_R,
    group_mass,
    groups_of,
    learned_weight_R,
    mips,
    offcem,
)
from foretaste.evaluation.offpolicy.reward_regression import by_action, contrasts, ridge, two_steps
from foretaste.evaluation.offpolicy.rounds import Floats, Ints
from foretaste.evaluation.offpolicy.terms import Sums


def choices(num_rounds: int = 400, num_titles: int = 12, *, seed: int = 0) -> Choices:
    """Five contexts; rewards are of the group of a title (its number by 3) and noise."""
    rng = np.random.default_rng(seed)
    logging_XA, target_XA = rng.dirichlet(np.ones(num_titles), size=(2, 5))
    context_R = rng.integers(5, size=num_rounds)
    action_R = (rng.random(num_rounds)[:, None] > logging_XA.cumsum(axis=1)[context_R]).sum(axis=1)
    action_R = action_R.clip(max=num_titles - 1)
    reward_R = action_R % 3 + 0.1 * rng.normal(size=num_rounds)
    return Choices(context_R, action_R, reward_R, logging_XA, target_XA)


def test_masses_of_groups_are_sums_over_their_titles() -> None:
    policy_XA = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.0, 0.2, 0.1]])
    assert group_mass(policy_XA, np.array([1, 0, 1, 2])) == pytest.approx(np.array([[0.2, 0.4, 0.4], [0.0, 0.9, 0.1]]))


def test_titles_of_the_same_features_are_a_group() -> None:
    feature_AD = np.array([[0, 1], [1, 1], [0, 1], [0, 2]])
    group_A = groups_of(feature_AD)
    assert group_A[0] == group_A[2]
    assert len(np.unique(group_A)) == 3
    assert groups_of(feature_AD[:, :0]).tolist() == [0, 0, 0, 0]


def test_groups_of_one_title_have_the_titles_weights_and_one_group_has_the_weight_1() -> None:
    log = choices()
    assert log.group_weight_R(np.arange(12)) == pytest.approx(log.weight_R, rel=1e-12)
    assert log.group_weight_R(np.zeros(12, dtype=np.int64)) == pytest.approx(np.ones(400))


def test_mips_is_exact_over_all_that_could_be_logged_where_groups_alone_decide() -> None:
    """Every context and title once, weighted by its chance: no draw, so no error."""
    log = choices()
    group_A = np.arange(12) % 3
    context_R, action_R = (one.ravel() for one in np.indices((5, 12)))
    every = Choices(context_R, action_R, (action_R % 3).astype(np.float64), log.logging_XA, log.target_XA)
    chance_R = log.logging_XA[context_R, action_R] / 5
    found = float((mips(every.reward_R, every.group_weight_R(group_A)).added_R * chance_R).sum())
    assert found == pytest.approx(float((log.target_XA * (np.arange(12) % 3)).sum(axis=1).mean()), rel=1e-12)


def test_offcem_is_exact_where_the_regression_is_right_but_for_the_level_of_clusters() -> None:
    log = choices()
    group_A = np.arange(12) % 3
    context_R, action_R = (one.ravel() for one in np.indices((5, 12)))
    earned_XA = np.random.default_rng(1).normal(size=(5, 12))
    wrong_XA = earned_XA - np.array([3.0, -1.0, 7.0])[group_A]
    every = Choices(context_R, action_R, earned_XA[context_R, action_R], log.logging_XA, log.target_XA)
    expected_R = (log.target_XA * wrong_XA).sum(axis=1)[context_R]
    weight_R = every.group_weight_R(group_A)
    terms = offcem(every.reward_R, weight_R, wrong_XA[context_R, action_R], expected_R, normalised=False)
    chance_R = log.logging_XA[context_R, action_R] / 5
    truth = float((log.target_XA * earned_XA).sum(axis=1).mean())
    assert float((terms.added_R * chance_R).sum()) == pytest.approx(truth, rel=1e-12)
    blind = float((mips(every.reward_R, weight_R).added_R * chance_R).sum())
    assert abs(blind - truth) > 0.01


def test_what_is_never_chosen_is_counted_by_title_and_by_group() -> None:
    logging_XA, target_XA = np.array([[0.0, 0.5, 0.5, 0.0]]), np.array([[0.1, 0.2, 0.3, 0.4]])
    log = Choices(np.zeros(2, dtype=np.int64), np.array([1, 2]), np.ones(2), logging_XA, target_XA)
    assert log.unsupported() == pytest.approx(0.5)
    assert log.unsupported(np.array([0, 0, 1, 1])) == 0


def grouped_log() -> tuple[Choices, Ints, Floats]:
    log = choices(20_000)
    group_A = np.arange(12) % 3
    return log, group_A, group_mass(log.target_XA, group_A)[log.context_R]


def test_counted_and_learned_weights_come_close_to_the_exact_ones() -> None:
    log, group_A, target_RG = grouped_log()
    exact_R = log.group_weight_R(group_A)
    group_R = group_A[log.action_R]
    counted_R = counted_weight_R(target_RG, group_R, log.context_R)
    assert counted_R == pytest.approx(exact_R, rel=0.15)
    learned_R = learned_weight_R(target_RG, group_R, np.eye(5)[log.context_R])
    assert learned_R == pytest.approx(exact_R, rel=0.2)


def test_the_feature_that_rewards_hang_on_is_kept_and_noise_is_dropped() -> None:
    log = choices(4_000)
    rng = np.random.default_rng(2)
    feature_AD = np.column_stack([rng.integers(4, size=12), np.arange(12) % 3, rng.integers(4, size=12)])
    features, weight_R = chosen_features(log, feature_AD)
    assert 1 in features
    assert len(features) < 3
    truth = float((log.target_XA * (np.arange(12) % 3)).sum(axis=1)[log.context_R].mean())
    assert Sums.of(mips(log.reward_R, weight_R)).value == pytest.approx(truth, abs=0.1)


def test_contrasts_are_worth_all_pairs_of_a_group() -> None:
    rng = np.random.default_rng(0)
    group_R = rng.integers(6, size=30)
    features_RF, answer_R = rng.normal(size=(30, 2)), rng.normal(size=30)
    rows_KF = contrasts(features_RF, group_R)
    assert len(rows_KF) == 30 - len(np.unique(group_R))
    centred_RF, centred_R = features_RF.copy(), answer_R.copy()
    for group in np.unique(group_R):
        rows = group_R == group
        centred_RF[rows] -= centred_RF[rows].mean(axis=0)
        centred_R[rows] -= centred_R[rows].mean()
    assert rows_KF.T @ rows_KF == pytest.approx(centred_RF.T @ centred_RF, rel=1e-9)
    answers_K = contrasts(answer_R[:, None], group_R)[:, 0]
    assert rows_KF.T @ answers_K == pytest.approx(centred_RF.T @ centred_R, rel=1e-9)


def test_ridge_chooses_the_penalty_of_the_least_error_of_leaving_one_out() -> None:
    rng = np.random.default_rng(1)
    features_RF = rng.normal(size=(40, 5))
    answer_R = features_RF @ np.array([1.0, 0.0, 0.5, 0.0, 0.0]) + rng.normal(size=40)

    def left_out(penalty: float) -> float:
        errors = []
        for row in range(40):
            kept = np.arange(40) != row
            gram = features_RF[kept].T @ features_RF[kept] + penalty * np.eye(5)
            coefficients = np.linalg.solve(gram, features_RF[kept].T @ answer_R[kept])
            errors.append((answer_R[row] - features_RF[row] @ coefficients) ** 2)
        return float(np.mean(errors))

    penalties = (0.1, 3.0, 30.0, 1_000.0)
    best = min(penalties, key=left_out)
    wanted = np.linalg.solve(features_RF.T @ features_RF + best * np.eye(5), features_RF.T @ answer_R)
    assert ridge(features_RF, answer_R, penalties) == pytest.approx(wanted, rel=1e-9)


def test_two_steps_learn_what_titles_of_a_cluster_differ_by_and_never_from_the_round_itself() -> None:
    rng = np.random.default_rng(2)
    num_members, num_titles, num_rounds = 60, 40, 3_000
    cluster_A = np.arange(num_titles) % 4
    dummies_AE = np.column_stack([np.ones(num_titles), rng.integers(2, size=(num_titles, 3))])
    numbers_XN = np.column_stack([np.ones(num_members), rng.normal(size=(num_members, 2))])
    earned_XA = (numbers_XN @ rng.normal(size=(3, 4)))[:, cluster_A] + numbers_XN @ rng.normal(size=(3, 3)) @ (
        dummies_AE[:, 1:].T
    )
    even_XA = np.full((num_members, num_titles), 1 / num_titles)
    context_R, action_R = rng.integers(num_members, size=num_rounds), rng.integers(num_titles, size=num_rounds)
    noise_R = rng.normal(size=num_rounds)
    log = Choices(context_R, action_R, earned_XA[context_R, action_R] + noise_R, even_XA, even_XA)
    found = two_steps(log, numbers_XN, dummies_AE, cluster_A, folds=3, rng=rng)
    missed_R = found.predicted_R - earned_XA[context_R, action_R]
    assert (missed_R**2).mean() < 0.1 * earned_XA.var()
    assert abs(np.corrcoef(missed_R, noise_R)[0, 1]) < 0.06  # 3 standard errors: it has not seen the round's own noise
    assert found.expected_R == pytest.approx(earned_XA.mean(axis=1)[context_R], abs=0.6)
    with pytest.raises(ValueError, match="two folds"):
        two_steps(log, numbers_XN, dummies_AE, cluster_A, folds=1, rng=rng)


def test_predictions_of_actions_are_from_other_contexts_rounds() -> None:
    rng = np.random.default_rng(3)
    context_RC = rng.normal(size=(50, 2))[rng.integers(50, size=2_000)]
    action_R = rng.integers(3, size=2_000)
    mean_RA = np.column_stack([context_RC[:, 0], -context_RC[:, 1], np.ones(2_000)])
    noise_R = rng.normal(size=2_000)
    rows = np.arange(2_000)
    predicted_RA = by_action(
        context_RC, action_R, mean_RA[rows, action_R] + noise_R, num_actions=3, folds=2, rng=np.random.default_rng(0)
    )
    assert np.abs(predicted_RA - mean_RA).mean() < 0.15
    assert abs(np.corrcoef((predicted_RA - mean_RA)[rows, action_R], noise_R)[0, 1]) < 0.07


def test_titles_that_earn_alike_are_found_and_serve_as_clusters() -> None:
    rng = np.random.default_rng(4)
    num_members, num_titles, num_rounds = 40, 60, 3_000
    kind_A = np.arange(num_titles) % 3
    dummies_AE = np.column_stack([np.ones(num_titles), kind_A == 1, kind_A == 2]).astype(np.float64)
    numbers_XN = np.column_stack([np.ones(num_members), rng.normal(size=(num_members, 2))])
    earned_XA = (numbers_XN @ rng.normal(size=(3, 3)))[:, kind_A]
    cluster_A = alike(earned_XA, 3, seed=0)
    assert len(np.unique(cluster_A * 3 + kind_A)) == 3
    logging_XA = np.full((num_members, num_titles), 1 / num_titles)
    target_XA = np.zeros_like(logging_XA)
    target_XA[np.arange(num_members), earned_XA.argmax(axis=1)] = 1.0
    context_R, action_R = rng.integers(num_members, size=num_rounds), rng.integers(num_titles, size=num_rounds)
    reward_R = earned_XA[context_R, action_R] + rng.normal(size=num_rounds)
    log = Choices(context_R, action_R, reward_R, logging_XA, target_XA)
    found = searched(log, numbers_XN, dummies_AE, sizes=(3, 30), folds=2, rng=rng)
    truth = float(earned_XA.max(axis=1)[context_R].mean())
    by_title = Sums.of(mips(reward_R, log.weight_R)).standard_error
    assert Sums.of(found.terms).standard_error < by_title / 3
    assert Sums.of(found.terms).value == pytest.approx(truth, abs=4 * Sums.of(found.terms).standard_error)


def test_policies_over_other_titles_are_refused() -> None:
    log = choices()
    with pytest.raises(ValueError, match="target: wanted"):
        Choices(log.context_R, log.action_R, log.reward_R, log.logging_XA, log.target_XA[:, :5])
    with pytest.raises(ValueError, match="one each a round"):
        Choices(log.context_R[:3], log.action_R, log.reward_R, log.logging_XA, log.target_XA)
