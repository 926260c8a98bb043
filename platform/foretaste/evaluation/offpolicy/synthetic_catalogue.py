"""Logs over a large catalogue with a known truth, after Saito, Ren and Joachims (ICML 2023, section 4.1).

Every title has D categorical features of V values; titles fall into G clusters that depend on the features a little.
What a title earns from a member is g(member, cluster) + h(member, title). g is a polynomial of the member's numbers
with steps, h is linear in member, features and their products, with coefficients of its own in each cluster. The policy
that logged is a softmax that prefers what earns LESS (inverse temperature below 0), the target takes the best title
with probability 1 - epsilon and any with epsilon.

Shapes: R rounds, X members (contexts), A titles, C numbers of a member, D features, E = D (V - 1) + 1 dummies,
G clusters, P monomials.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foretaste.contracts.config import Frozen

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class CatalogueWorldConfig(Frozen):
    """The world; the defaults are those of the published experiment."""

    num_titles: int = Field(2_000, ge=2, description="titles, A")
    num_members: int = Field(200, ge=2, description="members of a log; each of its rounds is of one of them")
    num_rounds: int = Field(3_000, ge=2, description="rounds of a log")
    num_clusters: int = Field(50, ge=2, description="clusters in which titles are alike to a member")
    num_features: int = Field(10, ge=1, description="categorical features of a title, D")
    num_values: int = Field(5, ge=2, description="values of each feature, V")
    num_numbers: int = Field(10, ge=8, description="numbers of a member, C, standard normal")
    cluster_spread: float = Field(3.0, ge=0, description="standard deviation of g over members and clusters, rewards")
    title_spread: float = Field(1.0, ge=0, description="standard deviation of h over members and titles, rewards")
    alike: bool = Field(
        False, description="whether features are worth the same in every cluster, so that h can be learned"
    )
    noise: float = Field(3.0, ge=0, description="standard deviation of a reward around its mean, rewards")
    inverse_temperature: float = Field(-0.1, description="of the policy that logged, per unit of reward")
    epsilon: float = Field(0.2, ge=0, le=1, description="share of rounds in which the target takes any title")


@dataclass(frozen=True)
class CatalogueWorld:
    """Titles and what they earn, drawn once; `members` and `log` draw from it."""

    config: CatalogueWorldConfig
    feature_AD: Ints
    cluster_A: Ints
    polynomial_PG: Floats
    step_4: Floats
    linear_GCE: Floats
    scale_2: Floats  # of g and h, so that their spreads are the stated ones
    centre_2: Floats

    @classmethod
    def drawn(cls, config: CatalogueWorldConfig, rng: np.random.Generator) -> CatalogueWorld:
        """Draw features, clusters and coefficients; spreads are set on 500 members that no log has."""
        num_titles, num_features = config.num_titles, config.num_features
        logits_ADV = 4.0 * rng.normal(size=(num_titles, num_features, config.num_values))
        feature_AD = (logits_ADV + rng.gumbel(size=logits_ADV.shape)).argmax(axis=2)
        dummies_AE = dummies(feature_AD, config.num_values)
        logits_AG = dummies_AE @ rng.uniform(size=(dummies_AE.shape[1], config.num_clusters))
        logits_AG = (logits_AG - logits_AG.mean()) / logits_AG.std() / 10.0
        cluster_A = (logits_AG + rng.gumbel(size=logits_AG.shape)).argmax(axis=1)
        num_monomials = monomials(np.zeros((1, config.num_numbers))).shape[1]
        polynomial_PG = rng.uniform(-1, 1, size=(num_monomials, config.num_clusters))
        step_4 = rng.uniform(-3, 3, size=4)
        linear_GCE = rng.uniform(-1, 1, size=(config.num_clusters, config.num_numbers + 1, dummies_AE.shape[1]))
        if config.alike:
            linear_GCE[1:] = linear_GCE[0]
        world = cls(config, feature_AD, cluster_A, polynomial_PG, step_4, linear_GCE, np.ones(2), np.zeros(2))
        g_XG, h_XA = world._effects(rng.normal(size=(500, config.num_numbers)))
        spreads = (config.cluster_spread, config.title_spread)
        scale_2 = np.array([spread / effect.std() for spread, effect in zip(spreads, (g_XG, h_XA), strict=True)])
        centre_2 = np.array([g_XG.mean(), h_XA.mean()])
        kept = (world.polynomial_PG, world.step_4, world.linear_GCE, scale_2, centre_2)
        return cls(config, feature_AD, cluster_A, *kept)

    def _effects(self, numbers_XC: Floats) -> tuple[Floats, Floats]:
        g_XG = 3.0 * monomials(numbers_XC) @ self.polynomial_PG + steps(numbers_XC, self.step_4)[:, None]
        ones_XC = np.column_stack([np.ones(len(numbers_XC)), numbers_XC])
        dummies_AE = dummies(self.feature_AD, self.config.num_values)
        h_XA = np.empty((len(numbers_XC), len(self.cluster_A)))
        for cluster in np.unique(self.cluster_A):
            titles = self.cluster_A == cluster
            h_XA[:, titles] = ones_XC @ self.linear_GCE[cluster] @ dummies_AE[titles].T
        return g_XG, h_XA

    def rewards(self, numbers_XC: Floats) -> Floats:
        """What each title earns from each member in the mean: float64[X, A]."""
        g_XG, h_XA = self._effects(numbers_XC)
        (of_g, of_h), (g_0, h_0) = self.scale_2, self.centre_2
        earned_XA: Floats = of_g * (g_XG - g_0)[:, self.cluster_A] + of_h * (h_XA - h_0)
        return earned_XA

    def members(self, number: int, rng: np.random.Generator) -> Floats:
        """Draw members: float64[X, C]."""
        return rng.normal(size=(number, self.config.num_numbers))

    def truth(self, number: int, rng: np.random.Generator) -> float:
        """Value of the target policy: the mean over `number` members, drawn."""
        earned_XA = self.rewards(self.members(number, rng))
        epsilon = self.config.epsilon
        return float((1 - epsilon) * earned_XA.max(axis=1).mean() + epsilon * earned_XA.mean())

    def log(self, rng: np.random.Generator) -> CatalogueLog:
        """Draw members and rounds."""
        config = self.config
        numbers_XC = self.members(config.num_members, rng)
        earned_XA = self.rewards(numbers_XC)
        logits_XA = config.inverse_temperature * earned_XA
        logging_XA = np.exp(logits_XA - logits_XA.max(axis=1, keepdims=True))
        logging_XA /= logging_XA.sum(axis=1, keepdims=True)
        target_XA = np.full_like(earned_XA, config.epsilon / config.num_titles)
        target_XA[np.arange(len(earned_XA)), earned_XA.argmax(axis=1)] += 1 - config.epsilon
        context_R = rng.integers(config.num_members, size=config.num_rounds)
        below_XA = logging_XA.cumsum(axis=1)
        drawn_R = rng.random(config.num_rounds)
        action_R = np.array([np.searchsorted(below_XA[x], u) for x, u in zip(context_R, drawn_R, strict=True)])
        action_R = np.minimum(action_R, config.num_titles - 1)
        reward_R = earned_XA[context_R, action_R] + config.noise * rng.normal(size=config.num_rounds)
        value = float((target_XA * earned_XA).sum(axis=1).mean())
        return CatalogueLog(numbers_XC, context_R, action_R, reward_R, logging_XA, target_XA, value)


@dataclass(frozen=True)
class CatalogueLog:
    """Rounds of members whose policies are known in full."""

    numbers_XC: Floats
    context_R: Ints  # which member
    action_R: Ints
    reward_R: Floats
    logging_XA: Floats
    target_XA: Floats
    value_here: float  # of the target policy for these members


def dummies(feature_AD: Ints, num_values: int) -> Floats:
    """A constant, and for each feature a column for each value but the first: float64[A, E]."""
    hot_ADV = feature_AD[:, :, None] == np.arange(1, num_values)
    return np.column_stack([np.ones(len(feature_AD)), hot_ADV.reshape(len(feature_AD), -1)]).astype(np.float64)


def monomials(numbers_XC: Floats) -> Floats:
    """All products of up to three of a member's numbers: float64[X, P]."""
    ones_XC = np.column_stack([np.ones(len(numbers_XC)), numbers_XC])
    width = ones_XC.shape[1]
    triples = [(i, j, k) for i in range(width) for j in range(i, width) for k in range(j, width)]
    first, second, third = np.array(triples).T
    products_XP: Floats = ones_XC[:, first] * ones_XC[:, second] * ones_XC[:, third]
    return products_XP


def steps(numbers_XC: Floats, step_4: Floats) -> Floats:
    """The published steps in means of a member's numbers: float64[X]."""
    with np.errstate(divide="ignore"):
        first_X = 1.0 / numbers_XC[:, :3].mean(axis=1)
        second_X = 1.0 / numbers_XC[:, 2:8].mean(axis=1)
    third_X, fourth_X = numbers_XC[:, 1:3].mean(axis=1), numbers_XC[:, 5:].mean(axis=1)
    hit_X4 = np.column_stack([first_X < 1.5, second_X < -0.5, third_X > 3.0, fourth_X < 1.0])
    sums_X: Floats = hit_X4 @ step_4
    return sums_X
