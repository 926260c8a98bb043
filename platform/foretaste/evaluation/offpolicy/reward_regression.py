"""What titles of a large catalogue earn from members: a ridge regression in two steps, fitted on other members' rounds.

First the difference between titles of a cluster, from pairs of rounds of the same member and cluster; then what the
cluster earns, from what that leaves. Both are linear in the member's numbers, the second for each cluster.

Shapes: R rounds, X contexts, A titles, E dummies of titles, N numbers of contexts with a constant, G clusters,
F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.evaluation.offpolicy.embeddings import Choices
from foretaste.evaluation.offpolicy.rounds import Floats, Ints

PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 1e9)


@dataclass(frozen=True)
class Predicted:
    """What the regression expects, of what was chosen and of the target, each from other contexts' rounds."""

    predicted_R: Floats
    expected_R: Floats


def two_steps(
    choices: Choices, numbers_XN: Floats, dummies_AE: Floats, cluster_A: Ints, *, folds: int, rng: np.random.Generator
) -> Predicted:
    """Fit on the contexts of all folds but one and predict for that one: no round is predicted with its own reward.

    `numbers_XN` has a constant. Raises ValueError for fewer than two folds.
    """
    if folds < 2:
        raise ValueError(f"two_steps: wanted two folds or more, found {folds}")
    fold_X = rng.permutation(np.arange(len(numbers_XN)) % folds)
    fold_R = fold_X[choices.context_R]
    predicted_R, expected_X = np.zeros(len(fold_R)), np.zeros(len(numbers_XN))
    for fold in range(folds):
        earned_XA = fitted(choices, fold_R != fold, numbers_XN, dummies_AE, cluster_A, fold_X == fold)
        inside = np.flatnonzero(fold_X == fold)
        expected_X[inside] = np.vecdot(choices.target_XA[inside], earned_XA)
        place_X = np.cumsum(fold_X == fold) - 1
        rows = np.flatnonzero(fold_R == fold)
        predicted_R[rows] = earned_XA[place_X[choices.context_R[rows]], choices.action_R[rows]]
    return Predicted(predicted_R, expected_X[choices.context_R])


def by_action(
    context_RC: Floats, action_R: Ints, reward_R: Floats, *, num_actions: int, folds: int, rng: np.random.Generator
) -> Floats:
    """What each action earns in each round, linear in the context for each action: float64[R, A].

    Each round is predicted from the rounds of other contexts, so that none is predicted with its own reward.
    Raises ValueError for fewer than two folds.
    """
    if folds < 2:
        raise ValueError(f"by_action: wanted two folds or more, found {folds}")
    numbers_RN = np.column_stack([np.ones(len(context_RC)), context_RC])
    _, context_R = np.unique(context_RC, axis=0, return_inverse=True)
    fold_R = rng.permutation(np.arange(context_R.max() + 1) % folds)[context_R]
    predicted_RA = np.empty((len(reward_R), num_actions))
    for fold in range(folds):
        learn, predict = np.flatnonzero(fold_R != fold), np.flatnonzero(fold_R == fold)
        features_RAN = np.zeros((len(learn), num_actions, numbers_RN.shape[1]))
        features_RAN[np.arange(len(learn)), action_R[learn]] = numbers_RN[learn]
        level = float(reward_R[learn].mean())
        found_F = ridge(features_RAN.reshape(len(learn), -1), reward_R[learn] - level)
        predicted_RA[predict] = level + numbers_RN[predict] @ found_F.reshape(num_actions, -1).T
    return predicted_RA


def fitted(
    choices: Choices,
    learn_R: NDArray[np.bool_],
    numbers_XN: Floats,
    dummies_AE: Floats,
    cluster_A: Ints,
    predict_X: NDArray[np.bool_],
) -> Floats:
    """Rewards of every title for the contexts to predict for, learned from the rounds to learn from."""
    context_R, action_R = choices.context_R[learn_R], choices.action_R[learn_R]
    reward_R, cluster_R = choices.reward_R[learn_R], cluster_A[action_R]
    num_clusters, num_numbers = int(cluster_A.max()) + 1, numbers_XN.shape[1]
    title_RF = (numbers_XN[context_R][:, :, None] * dummies_AE[action_R][:, None, 1:]).reshape(len(reward_R), -1)
    _, group_R = np.unique(context_R * num_clusters + cluster_R, return_inverse=True)
    of_title_F = ridge(contrasts(title_RF, group_R), contrasts(reward_R[:, None], group_R)[:, 0])
    left_R = reward_R - title_RF @ of_title_F
    level = float(left_R.mean())
    cluster_RF = np.zeros((len(reward_R), num_clusters, num_numbers))
    cluster_RF[np.arange(len(reward_R)), cluster_R] = numbers_XN[context_R]
    of_cluster_F = ridge(cluster_RF.reshape(len(reward_R), -1), left_R - level)
    numbers_XN = numbers_XN[predict_X]
    of_title_XA = numbers_XN @ of_title_F.reshape(num_numbers, -1) @ dummies_AE[:, 1:].T
    of_cluster_XG = numbers_XN @ of_cluster_F.reshape(num_clusters, num_numbers).T
    earned_XA: Floats = level + of_title_XA + of_cluster_XG[:, cluster_A]
    return earned_XA


def contrasts(values_RF: Floats, group_R: Ints) -> Floats:
    """Helmert contrasts of each group, one row fewer than it has: what its rounds differ by, independent of each other.

    Least squares over them is that over all pairs of a group, each weighted by one over the size of the group.
    """
    order_R = np.argsort(group_R, kind="stable")
    sorted_RF = values_RF[order_R]
    first_R = np.diff(group_R[order_R], prepend=-1) != 0
    start_R = np.maximum.accumulate(np.where(first_R, np.arange(len(first_R)), 0))
    before_RF = np.cumsum(sorted_RF, axis=0) - sorted_RF
    before_RF -= before_RF[start_R]
    place_R = np.arange(len(first_R)) - start_R
    later = np.flatnonzero(place_R)
    count = place_R[later, None]
    rows_KF: Floats = (sorted_RF[later] - before_RF[later] / count) * np.sqrt(count / (count + 1.0))
    return rows_KF


def ridge(features_RF: Floats, answer_R: Floats, penalties: tuple[float, ...] = PENALTIES) -> Floats:
    """Coefficients with the penalty of the least leave-one-out error: float64[F]. Hastie et al. 2009, section 7.10."""
    values_F, vectors_FF = np.linalg.eigh(features_RF.T @ features_RF)
    values_F = np.maximum(values_F, 0.0)
    turned_RF = features_RF @ vectors_FF
    moments_F, squares_RF = turned_RF.T @ answer_R, turned_RF**2
    best, found = np.inf, np.zeros(len(values_F))
    for penalty in penalties:
        coefficients_F = moments_F / (values_F + penalty)
        leverage_R = squares_RF @ (1.0 / (values_F + penalty))
        error = float((((answer_R - turned_RF @ coefficients_F) / (1.0 - leverage_R)) ** 2).mean())
        if error < best:
            best, found = error, vectors_FF @ coefficients_F
    return found
