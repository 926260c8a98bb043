"""Clusters for the conjunct effect model where nobody has named any: titles that are expected to earn alike.

Clusters and predictions for a round come from other contexts' rounds, so that no round is weighted by its own reward.

Shapes: R rounds, X contexts, A titles, E dummies of titles, N numbers of contexts with a constant, K components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans

from foretaste.evaluation.offpolicy.embeddings import Choices, offcem
from foretaste.evaluation.offpolicy.reward_regression import fitted
from foretaste.evaluation.offpolicy.rounds import Floats, Ints
from foretaste.evaluation.offpolicy.selection import Candidate, slope
from foretaste.evaluation.offpolicy.terms import Sums, Terms

COMPONENTS = 16
"""Directions in which expected rewards of titles may differ."""


@dataclass(frozen=True)
class Found:
    """How many clusters SLOPE takes, and the estimate with them."""

    num_clusters: int
    terms: Terms


def searched(
    choices: Choices,
    numbers_XN: Floats,
    dummies_AE: Floats,
    *,
    sizes: Sequence[int],
    folds: int,
    rng: np.random.Generator,
) -> Found:
    """The conjunct effect model with clusters that are found, as few as still agree with more of them.

    Many clusters are nearly titles (unbiased, unsure), few are sure and biased by what they hide: SLOPE goes from many
    to few. Raises ValueError for fewer than two folds.
    """
    if folds < 2:
        raise ValueError(f"searched: wanted two folds or more, found {folds}")
    num_contexts, num_titles = choices.target_XA.shape
    fold_X = rng.permutation(np.arange(num_contexts) % folds)
    fold_R = fold_X[choices.context_R]
    alone_A = np.zeros(num_titles, dtype=np.int64)
    predicted_R, expected_X = np.zeros(len(fold_R)), np.zeros(num_contexts)
    weights = {size: np.zeros(len(fold_R)) for size in sizes}
    for fold in range(folds):
        everybody_X = np.ones(num_contexts, dtype=np.bool_)
        earned_XA = fitted(choices, fold_R != fold, numbers_XN, dummies_AE, alone_A, everybody_X)
        inside_X, rows = np.flatnonzero(fold_X == fold), np.flatnonzero(fold_R == fold)
        expected_X[inside_X] = np.vecdot(choices.target_XA[inside_X], earned_XA[inside_X])
        predicted_R[rows] = earned_XA[choices.context_R[rows], choices.action_R[rows]]
        for size in sizes:
            cluster_A = alike(earned_XA, size, seed=int(rng.integers(2**31)))
            weights[size][rows] = choices.group_weight_R(cluster_A)[rows]
    made = {
        size: offcem(choices.reward_R, weight_R, predicted_R, expected_X[choices.context_R])
        for size, weight_R in weights.items()
    }
    taken = slope([Candidate.of(str(size), Sums.of(terms)) for size, terms in made.items()])
    num_clusters = list(made)[taken]
    return Found(num_clusters, made[num_clusters])


def alike(earned_XA: Floats, num_clusters: int, *, seed: int) -> Ints:
    """Clusters of titles that are expected to earn alike from all contexts: int64[A], K-means on main components."""
    centred_XA = earned_XA - earned_XA.mean(axis=1, keepdims=True)
    values_K, vectors_XK = np.linalg.eigh(centred_XA @ centred_XA.T)
    components_AK = centred_XA.T @ vectors_XK[:, -COMPONENTS:]
    if not values_K[-1] > 0:
        return np.zeros(earned_XA.shape[1], dtype=np.int64)
    num_clusters = min(num_clusters, len(np.unique(components_AK.round(9), axis=0)))
    found_A = KMeans(num_clusters, n_init=1, max_iter=30, random_state=seed).fit_predict(components_AK)
    _, cluster_A = np.unique(found_A, return_inverse=True)
    return cluster_A.astype(np.int64)
