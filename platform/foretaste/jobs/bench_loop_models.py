"""Models of the loop's catalogue: those that are to be judged, and the reward model that helps to judge them.

Shapes: S visits, C titles of a visit's pool, N titles, M members, G genres, D features, R rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from foretaste.jobs.bench_loop_service import NUMBERS, SCALE, Floats, Ints, Layout, Visits, prior_of
from foretaste.policies.posterior import Posterior, PosteriorConfig
from foretaste.worlds.members import Members
from foretaste.worlds.titles import Titles

FOLDS = 3
Signal = Callable[[Ints, Ints], Floats]
"""Something to know of members and titles, [...] each."""


@dataclass(frozen=True)
class Model:
    """A linear model of log odds, or of the chance itself."""

    weights_D: Floats
    signals: tuple[tuple[float, Signal], ...] = ()  # with their weights

    def scores(self, visits: Visits, layout: Layout) -> Floats:
        """Of every title of each visit's pool, [S, C]."""
        pool_SC = visits["pool"]
        found_SC = SCALE * visits["pool numbers"] @ self.weights_D[: len(NUMBERS)]
        found_SC += layout.own(self.weights_D)[pool_SC]
        members_SC = np.broadcast_to(visits["member"][:, None], pool_SC.shape)
        for weight, signal in self.signals:
            found_SC += weight * signal(members_SC, pool_SC)
        return found_SC


def ratings(titles: Titles, *, seed: int, noise: float = 0.1) -> Signal:
    """What a press review says of titles: their quality, not quite."""
    rating_N = titles.quality_N + np.random.default_rng([seed, 31]).normal(0.0, noise, len(titles))
    return lambda member, title: rating_N[title]


def answers(members: Members, titles: Titles, *, seed: int, noise: float = 0.05) -> Signal:
    """What members say of their taste when asked, not quite, over the genres of a title."""
    told_MG = members.taste_MG + np.random.default_rng([seed, 32]).normal(0.0, noise, members.taste_MG.shape)
    return lambda member, title: np.asarray((told_MG[member] * titles.genre_NG[title]).sum(axis=-1))


def next_models(warm: Visits, layout: Layout, signals: dict[str, Signal]) -> dict[str, Model]:
    """Models made of what was logged before the period: of less, of more, and of other kinds than the serving one."""
    x_RD, reward_R = warm.rounds(layout)
    numbers_D = np.arange(layout.width) < len(NUMBERS)
    half_R = np.repeat(warm["member"] % 2 == 0, layout.places)
    found = {
        "blind to which title": Model(_fitted("logistic", layout, x_RD * numbers_D, reward_R)),
        "of half of the members": Model(_fitted("logistic", layout, x_RD[half_R], reward_R[half_R])),
        "linear": Model(_fitted("linear", layout, x_RD, reward_R)),
    }
    member_R, title_R = np.repeat(warm["member"], layout.places), warm["title"].ravel()
    reads = {f"with {name}": (name,) for name in signals} | {"with both": tuple(signals)}
    for name, read in reads.items():
        value_RX = np.stack([SCALE * signals[one](member_R, title_R) for one in read], axis=1)
        weights = _fitted("logistic", layout, np.concatenate([x_RD, value_RX], axis=1), reward_R)
        weight_X = (SCALE * weights[layout.width :]).tolist()
        found[name] = Model(
            weights[: layout.width], tuple((w, signals[one]) for w, one in zip(weight_X, read, strict=True))
        )
    return found


def folds_of(visits: Visits, *, seed: int) -> Ints:
    """Fold of each visit, that of its member."""
    members = int(visits["member"].max()) + 1
    fold_M = np.random.default_rng(seed).permutation(np.arange(members) % FOLDS)
    return np.asarray(fold_M[visits["member"]], dtype=np.int64)


@dataclass(frozen=True)
class Rewarded:
    """What was shown of a visit's pool, and whether it earned."""

    visit_R: Ints
    place_R: Ints  # in the pool
    reward_R: Floats

    def cells(self, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        """How often each title of a pool was shown, and what it earned in the mean, [S, C]."""
        cell_R, num = self.visit_R * shape[1] + self.place_R, shape[0] * shape[1]
        times_X = np.bincount(cell_R, minlength=num).astype(np.float64)
        earned_X = np.bincount(cell_R, self.reward_R, minlength=num)
        return times_X.reshape(shape), (earned_X / np.maximum(times_X, 1.0)).reshape(shape)


def reward_odds(visits: Visits, log: Rewarded, layout: Layout, fold_S: Ints) -> Floats:
    """Log odds that a model learned from the visits of other folds has of each title of the pool, [S, C]."""
    pool_SC = visits["pool"]
    times_SC, mean_SC = log.cells(pool_SC.shape)
    odds_SC = np.zeros(pool_SC.shape)
    prior = prior_of("logistic", layout)
    for fold in range(FOLDS):
        s, c = np.nonzero((times_SC > 0) & (fold_S != fold)[:, None])
        x_RD = layout.of(visits["pool numbers"][s, c], pool_SC[s, c])
        known = prior.learned(prior.gathered(x_RD, mean_SC[s, c], weight_R=times_SC[s, c]))
        predict = np.flatnonzero(fold_S == fold)
        odds_SC[predict] = Model(known.mean_D).scores(visits.take(predict), layout)
    return odds_SC


def told_by(odds_SC: Floats, scores_SC: Floats, log: Rewarded, fold_S: Ints) -> Floats:
    """Chances by the reward model and by what the judged model thinks, weighed on other folds, [S, C].

    A signal that only the judged model has is so read from the log as far as it can be.
    """
    z_SC = (scores_SC - scores_SC.mean()) / scores_SC.std()
    x_SC3 = np.stack([np.ones_like(z_SC), z_SC, odds_SC - odds_SC.mean()], axis=2)
    times_SC, mean_SC = log.cells(odds_SC.shape)
    corrected_SC = np.zeros_like(odds_SC)
    prior = Posterior.of(PosteriorConfig(kind="logistic"), 3)
    for fold in range(FOLDS):
        learn = (times_SC > 0) & (fold_S != fold)[:, None]
        weights = {"weight_R": times_SC[learn], "offset_R": odds_SC[learn]}
        known = prior.learned(prior.gathered(x_SC3[learn], mean_SC[learn], **weights))
        predict = fold_S == fold
        corrected_SC[predict] = odds_SC[predict] + x_SC3[predict] @ known.mean_D
    return np.asarray(1.0 / (1.0 + np.exp(-corrected_SC)))


def _fitted(kind: str, layout: Layout, x_RD: Floats, reward_R: Floats) -> Floats:
    """Mean weights; a feature that is always 0 has that of the prior, 0 but for the constant."""
    prior = prior_of(kind, layout)
    more = x_RD.shape[1] - layout.width
    prior = Posterior.of(prior.config, np.concatenate([prior.prior_D, np.zeros(more)]))
    return prior.learned(prior.gathered(x_RD, reward_R)).mean_D
