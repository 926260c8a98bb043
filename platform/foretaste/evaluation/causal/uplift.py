"""Who gains by being treated: S-, T-, X- and DR-learner over any scikit-learn regressor, cross-fitted.

Kuenzel, Sekhon, Bickel and Yu, PNAS 2019 (S, T, X); Kennedy, EJS 2023 (DR). Treatment is given by dice of known
propensity; where it is not, these estimate an effect only as far as the columns hold all that drove it.

Shapes: N rows, D columns, F folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Regressor(Protocol):
    """What is used of scikit-learn's regressors; classifiers go through `Chance`."""

    def fit(self, x: Floats, y: Floats) -> Any:
        """Learn."""

    def predict(self, x: Floats) -> Any:
        """Tell the mean outcome."""


class Chance:
    """A binary classifier whose prediction is the probability of 1; constant where it sees one class."""

    def __init__(self, classifier: Any) -> None:
        self.classifier = classifier
        self.constant: float | None = None

    def fit(self, x: Floats, y: Floats) -> Chance:
        """Learn from outcomes 0 and 1."""
        self.constant = float(y[0]) if np.all(y == y[0]) else None
        if self.constant is None:
            self.classifier.fit(x, y)
        return self

    def predict(self, x: Floats) -> Floats:
        """Tell the probability of 1."""
        if self.constant is not None:
            return np.full(len(x), self.constant)
        return np.asarray(self.classifier.predict_proba(x)[:, 1], dtype=np.float64)


Make = Callable[[], Regressor]
"""Makes a new, unfitted regressor."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Rows that were treated or not by dice."""

    column_ND: Floats
    treated_N: Bools
    outcome_N: Floats
    propensity_N: Floats  # of being treated, within (0, 1)
    actor_N: NDArray[np.int64] | None = None  # whose row it is; none: each its own

    def __post_init__(self) -> None:
        num = len(self.column_ND)
        for name in ("treated_N", "outcome_N", "propensity_N"):
            if getattr(self, name).shape != (num,):
                raise ValueError(f"trial: {num} rows, but {name} has shape {getattr(self, name).shape}")
        if (certain_N := ~((self.propensity_N > 0) & (self.propensity_N < 1))).any():
            row = int(np.argmax(certain_N))
            raise ValueError(f"trial: the propensity of row {row} is {self.propensity_N[row]}, wanted within (0, 1)")
        if self.treated_N.all() or not self.treated_N.any():
            raise ValueError(f"trial: wanted rows treated and not, got {int(self.treated_N.sum())} treated of {num}")

    def __len__(self) -> int:
        return len(self.column_ND)

    def take(self, rows: NDArray[Any]) -> Trial:
        """Some of the rows."""
        actor = None if self.actor_N is None else self.actor_N[rows]
        return Trial(self.column_ND[rows], self.treated_N[rows], self.outcome_N[rows], self.propensity_N[rows], actor)


class Learner(Protocol):
    """Learns what treatment does to the outcome of each row."""

    def fit(self, trial: Trial) -> Callable[[Floats], Floats]:
        """Learn; returns a function from columns to effects."""


@dataclass(frozen=True, slots=True)
class SLearner:
    """One model of the outcome, which sees the treatment as a column; the effect is what changing that does."""

    outcome: Make

    def fit(self, trial: Trial) -> Callable[[Floats], Floats]:
        """Learn; returns a function from columns to effects."""
        model = self.outcome()
        model.fit(_with(trial.column_ND, trial.treated_N), trial.outcome_N)
        return lambda x: _told(model, _with(x, np.ones(len(x)))) - _told(model, _with(x, np.zeros(len(x))))


@dataclass(frozen=True, slots=True)
class TLearner:
    """A model of the outcome for each arm; the effect is their difference."""

    outcome: Make

    def fit(self, trial: Trial) -> Callable[[Floats], Floats]:
        """Learn; returns a function from columns to effects."""
        control, treated = _two(self.outcome, trial)
        return lambda x: _told(treated, x) - _told(control, x)


@dataclass(frozen=True, slots=True)
class XLearner:
    """Each arm's outcomes less what the other arm's model tells, learned, and weighed by the propensity of the row.

    It gains where one arm is much smaller than the other.
    """

    outcome: Make
    effect: Make
    propensity: Callable[[Floats], Floats] | None = None  # of new rows; none: the trial's mean

    def fit(self, trial: Trial) -> Callable[[Floats], Floats]:
        """Learn; returns a function from columns to effects."""
        control, treated = _two(self.outcome, trial)
        t = trial.treated_N
        on_treated, on_control = self.effect(), self.effect()
        on_treated.fit(trial.column_ND[t], trial.outcome_N[t] - _told(control, trial.column_ND[t]))
        on_control.fit(trial.column_ND[~t], _told(treated, trial.column_ND[~t]) - trial.outcome_N[~t])
        mean = float(trial.propensity_N.mean())
        propensity = self.propensity or (lambda x: np.full(len(x), mean))

        def effect(x: Floats) -> Floats:
            e = propensity(x)
            return np.asarray(e * _told(on_control, x) + (1.0 - e) * _told(on_treated, x))

        return effect


@dataclass(frozen=True, slots=True)
class DRLearner:
    """Regress each row's doubly robust effect on its columns; outcome models are of folds that the row is not in."""

    outcome: Make
    effect: Make
    folds: int = 2
    seed: int = 0

    def fit(self, trial: Trial) -> Callable[[Floats], Floats]:
        """Learn; returns a function from columns to effects."""
        model = self.effect()
        model.fit(trial.column_ND, doubly_robust(trial, self.outcome, folds=self.folds, seed=self.seed))
        return lambda x: _told(model, x)


def doubly_robust(trial: Trial, outcome: Make, *, folds: int = 2, seed: int = 0) -> Floats:
    """An effect for each row whose mean over any group of rows is unbiased for the group's, noisy as it is: float64[N].

    The mean over all rows is the cross-fitted AIPW estimate of the average effect.
    """
    told_N2 = np.empty((len(trial), 2))
    for held_N in fold_masks(trial, folds, seed):
        for arm, model in enumerate(_two(outcome, trial.take(~held_N))):
            told_N2[held_N, arm] = _told(model, trial.column_ND[held_N])
    t, e = trial.treated_N, trial.propensity_N
    weight_N = np.where(t, 1.0 / e, -1.0 / (1.0 - e))
    return np.asarray(
        told_N2[:, 1] - told_N2[:, 0] + weight_N * (trial.outcome_N - np.where(t, told_N2[:, 1], told_N2[:, 0]))
    )


def cross_fitted(learner: Learner, trial: Trial, *, folds: int = 5, seed: int = 0) -> Floats:
    """Each row's effect as told by a learner that did not see the row's fold: float64[N]."""
    effect_N = np.empty(len(trial))
    for held_N in fold_masks(trial, folds, seed):
        effect_N[held_N] = learner.fit(trial.take(~held_N))(trial.column_ND[held_N])
    return effect_N


def fold_ranks(effect_N: Floats, trial: Trial, *, folds: int, seed: int) -> Floats:
    """Effects as ranks within their fold, 0..1, ties alike.

    Models of different folds differ in level, and where one lies too high its own fold was left out for being low: rows
    of several folds are compared by rank, not by value. Folds and seed are those of `cross_fitted`.
    """
    rank_N = np.empty(len(effect_N))
    for held_N in fold_masks(trial, folds, seed):
        ordered = np.sort(effect_N[held_N])
        low, high = (np.searchsorted(ordered, effect_N[held_N], side=side) for side in ("left", "right"))
        rank_N[held_N] = (low + high) / (2 * len(ordered))
    return rank_N


def fold_masks(trial: Trial, folds: int, seed: int) -> list[Bools]:
    """Which rows each fold holds: arms in equal parts, or whole actors where rows have them.

    Raises ValueError where an arm has fewer rows than folds.
    """
    smallest = min(int(trial.treated_N.sum()), int((~trial.treated_N).sum()))
    if not 2 <= folds <= smallest:
        raise ValueError(f"folds: wanted 2 to {smallest} (rows of the smaller arm), got {folds}")
    rng = np.random.default_rng(seed)
    if trial.actor_N is not None:
        actors, place_N = np.unique(trial.actor_N, return_inverse=True)
        fold_N = rng.permutation(len(actors))[place_N] % folds
        return [fold_N == fold for fold in range(folds)]
    fold_N = np.empty(len(trial), dtype=np.int64)
    for arm in (False, True):
        rows = rng.permutation(np.flatnonzero(trial.treated_N == arm))
        fold_N[rows] = np.arange(len(rows)) % folds
    return [fold_N == fold for fold in range(folds)]


def _two(make: Make, trial: Trial) -> Sequence[Regressor]:
    """A model of the outcome of those not treated, and of those treated."""
    models = []
    for rows in (~trial.treated_N, trial.treated_N):
        model = make()
        model.fit(trial.column_ND[rows], trial.outcome_N[rows])
        models.append(model)
    return models


def _with(column_ND: Floats, treated_N: NDArray[Any]) -> Floats:
    return np.column_stack([column_ND, treated_N.astype(np.float64)])


def _told(model: Regressor, x: Floats) -> Floats:
    return np.asarray(model.predict(x), dtype=np.float64)
