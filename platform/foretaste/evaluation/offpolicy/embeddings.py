"""Estimates over large catalogues: weights of groups of titles instead of titles (MIPS), and of clusters (OffCEM).

A title of thousands is hardly ever logged, its group is. What a group's weight leaves out is the difference between
titles of a group: MIPS is biased by it, the conjunct effect model hands it to a regression.
Policies are given for the X contexts that rounds are of, so that a log of few members is small.

Shapes: R rounds, X contexts, A titles, G groups, D features of a title, C numbers of a context.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from foretaste.evaluation.offpolicy.rounds import Floats, Ints
from foretaste.evaluation.offpolicy.selection import Candidate, slope
from foretaste.evaluation.offpolicy.terms import Sums, Terms


@dataclass(frozen=True)
class Choices:
    """Rounds over a catalogue: whose they were, what was chosen and earned, and both policies in full."""

    context_R: Ints
    action_R: Ints
    reward_R: Floats
    logging_XA: Floats
    target_XA: Floats

    def __post_init__(self) -> None:
        if self.logging_XA.shape != self.target_XA.shape:
            raise ValueError(f"target: wanted {self.logging_XA.shape} (contexts, titles), found {self.target_XA.shape}")
        if not len(self.context_R) == len(self.action_R) == len(self.reward_R):
            found = f"{len(self.context_R)}, {len(self.action_R)} and {len(self.reward_R)}"
            raise ValueError(f"context, action and reward: wanted one each a round, found {found}")

    @property
    def weight_R(self) -> Floats:
        """Weights of the titles themselves."""
        weight_R: Floats = self._at(self.target_XA) / self._at(self.logging_XA)
        return weight_R

    def group_weight_R(self, group_A: Ints) -> Floats:
        """Weights of the groups of what was chosen, exact: the group's mass under the target over that when logged."""
        logging_XG, target_XG = group_mass(self.logging_XA, group_A), group_mass(self.target_XA, group_A)
        group_R = group_A[self.action_R]
        weight_R: Floats = target_XG[self.context_R, group_R] / logging_XG[self.context_R, group_R]
        return weight_R

    def unsupported(self, group_A: Ints | None = None) -> float:
        """Share of the target's mass on titles (groups) that are never chosen in their context."""
        logging_XA, target_XA = self.logging_XA, self.target_XA
        if group_A is not None:
            logging_XA, target_XA = group_mass(logging_XA, group_A), group_mass(target_XA, group_A)
        mass_X = np.where(logging_XA > 0, 0.0, target_XA).sum(axis=1)
        return float(mass_X[self.context_R].mean())

    def _at(self, values_XA: Floats) -> Floats:
        at_R: Floats = values_XA[self.context_R, self.action_R]
        return at_R


def group_mass(policy_XA: Floats, group_A: Ints) -> Floats:
    """Probability of each group: float64[X, G]; groups are numbered 0..G-1."""
    num_titles, num_groups = len(group_A), int(group_A.max()) + 1
    member_AG = sparse.csc_array((np.ones(num_titles), (np.arange(num_titles), group_A)), (num_titles, num_groups))
    mass_XG: Floats = policy_XA @ member_AG
    return mass_XG


def groups_of(feature_AD: Ints) -> Ints:
    """Titles of the same features are a group: int64[A], 0..G-1. No feature: one group."""
    code_A = np.zeros(len(feature_AD), dtype=np.int64)
    for feature_A in feature_AD.T:
        _, code_A = np.unique(code_A * (int(feature_A.max()) + 1) + feature_A, return_inverse=True)
    return code_A.astype(np.int64)


def counted_weight_R(target_RG: Floats, group_R: Ints, stratum_R: Ints) -> Floats:
    """Weights of groups where nobody knows the propensities: they are counted in each stratum of contexts.

    `target_RG` is the target's mass of each group in each round. Right where, within a stratum, what was chosen does
    not hang on what else the context says. Counted propensities vary less than the true ones: Hirano, Imbens and
    Ridder, 2003.
    """
    num_groups = target_RG.shape[1]
    _, place_R = np.unique(stratum_R, return_inverse=True)
    cell_R = place_R * num_groups + group_R
    times_S = np.bincount(place_R)
    counted_SG = np.bincount(cell_R, minlength=len(times_S) * num_groups).reshape(len(times_S), num_groups)
    share_R = counted_SG[place_R, group_R] / times_S[place_R]
    weight_R: Floats = target_RG[np.arange(len(group_R)), group_R] / share_R
    return weight_R


def learned_weight_R(target_RG: Floats, group_R: Ints, context_RC: Floats, *, penalty: float = 1.0) -> Floats:
    """Weights of groups with the logging policy's mass learned by multinomial logistic regression on the context.

    Groups that were never chosen have no row, so no weight. Saito and Joachims, ICML 2022, section 4.
    """
    model = LogisticRegression(C=1.0 / penalty, max_iter=1_000).fit(context_RC, group_R)
    column_R = np.searchsorted(model.classes_, group_R)
    learned_R = model.predict_proba(context_RC)[np.arange(len(group_R)), column_R]
    weight_R: Floats = target_RG[np.arange(len(group_R)), group_R] / learned_R
    return weight_R


def mips(reward_R: Floats, weight_R: Floats, *, normalised: bool = False) -> Terms:
    """Marginalised inverse propensities: mean reward with the weights of groups. Saito and Joachims, ICML 2022."""
    return Terms(len(reward_R), gain_R=weight_R * reward_R, mass_R=weight_R if normalised else None)


def offcem(
    reward_R: Floats, weight_R: Floats, predicted_R: Floats, expected_R: Floats, *, normalised: bool = True
) -> Terms:
    """Conjunct effect model: what a regression expects of the target, its errors weighted by cluster.

    Unbiased where the regression ranks titles of a cluster rightly (local correctness), whatever it says of clusters.
    Self-normalised by default: its bias is of order 1/R, and a weight of a hundred does not move the level.
    Saito, Ren and Joachims, ICML 2023, equation 6.
    """
    gain_R = weight_R * (reward_R - predicted_R)
    return Terms(len(reward_R), base_R=expected_R, gain_R=gain_R, mass_R=weight_R if normalised else None)


def chosen_features(choices: Choices, feature_AD: Ints, *, normalised: bool = False) -> tuple[tuple[int, ...], Floats]:
    """Features that MIPS should group titles by, and their weights: the fewest that still agree with more of them.

    Starting with all, the feature whose loss narrows the interval the most is dropped; along that chain SLOPE goes on
    while estimates agree. Saito and Joachims, ICML 2022, section 3.3 (there: every subset, or a greedy pruning).
    """
    kept = tuple(range(feature_AD.shape[1]))
    chain = [_grouped(choices, feature_AD, kept, normalised)]
    while len(kept) > 1:
        fewer = [tuple(d for d in kept if d != dropped) for dropped in kept]
        options = [_grouped(choices, feature_AD, features, normalised) for features in fewer]
        chain.append(min(options, key=lambda option: option.candidate.half_width))
        kept = chain[-1].features
    best = chain[slope([option.candidate for option in chain])]
    return best.features, best.weight_R


@dataclass(frozen=True, slots=True)
class _Grouped:
    features: tuple[int, ...]
    weight_R: Floats
    candidate: Candidate


def _grouped(choices: Choices, feature_AD: Ints, features: tuple[int, ...], normalised: bool) -> _Grouped:
    weight_R = choices.group_weight_R(groups_of(feature_AD[:, list(features)]))
    sums = Sums.of(mips(choices.reward_R, weight_R, normalised=normalised))
    return _Grouped(features, weight_R, Candidate.of(str(features), sums))
