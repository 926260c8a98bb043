"""A reward model of logged lists from what the log itself holds: scores, ranks and earnings of titles, who asked, when.

It is a ridge regression, learned from the actors of all folds but one and asked about that one. What titles earned is
a mean drawn to that of all, and is counted by fold, too: what a model for fold f reads of an actor of fold g was earned
in neither. So nothing of an actor is in what is predicted of them.

Of a place the model says what it earns given what stands above; with a model that says 0, DR is IPS.

Shapes: R rounds (places of lists), K places of a list, C candidates, T titles, F folds, D numbers of a candidate
(`OWN`, then what the title earned, as the model of each fold may know it).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foretaste.evaluation.offpolicy.reward_regression import Predicted, ridge
from foretaste.evaluation.offpolicy.rounds import Floats, Ints

OWN = ("guest", "log_events", "hour_sin", "hour_cos", "score", "log_rank")
"""Numbers of a candidate that no reward is in: of who asked and when, then of the title in its pool."""
DRAWN_TO = 20.0
"""Rounds by which what a title earned is drawn to the mean."""
LEARNED_AT_MOST = 200_000
FEWEST = 50
"""Rounds to learn from below which there is no model."""
_DAY_US = 86_400_000_000
_SALT = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Described:
    """What the model reads of a list."""

    chosen_KD: Floats  # of what was chosen; NaN where the judged policy's pool does not have it
    expected_KD: Floats  # mean under the judged policy, given those above


@dataclass(frozen=True)
class Earned:
    """What titles earned of the actors of each fold."""

    number: dict[str, int]
    sum_TF: Floats
    count_TF: Floats

    @classmethod
    def of(cls, parts: Iterable[tuple[Sequence[str], Ints, Floats]], *, folds: int) -> Earned:
        """Add up titles, numbers of actors and rewards (NaN: not known)."""
        number: dict[str, int] = {}
        rows: list[tuple[Ints, Floats]] = []
        for titles, actor_R, reward_R in parts:
            title_R = np.array([number.setdefault(title, len(number)) for title in titles], dtype=np.int64)
            known_R = ~np.isnan(reward_R)
            rows.append(((title_R * folds + folds_of(actor_R, folds))[known_R], reward_R[known_R]))
        size = len(number) * folds
        sum_X, count_X = np.zeros(size), np.zeros(size)
        for cell_R, reward_R in rows:
            sum_X += np.bincount(cell_R, reward_R, size)
            count_X += np.bincount(cell_R, minlength=size)
        return cls(number, sum_X.reshape(-1, folds), count_X.reshape(-1, folds))

    def means(self, titles: Sequence[str], actor: int) -> Floats:
        """What each title earned, as the model of each fold may know it of an actor: float64[C, F]."""
        folds = self.sum_TF.shape[1]
        out_FF = np.eye(folds)
        out_FF[:, int(folds_of(np.array([actor]), folds)[0])] = 1.0  # neither of the model's fold nor of the actor's
        kept_FF = 1.0 - out_FF
        total_F, num_F = kept_FF @ self.sum_TF.sum(axis=0), kept_FF @ self.count_TF.sum(axis=0)
        mean_F = total_F / np.maximum(num_F, 1.0)
        row_C = np.array([self.number.get(title, -1) for title in titles], dtype=np.int64)
        known_C = (row_C >= 0)[:, None]
        sum_CF = np.where(known_C, self.sum_TF[row_C] @ kept_FF.T, 0.0)
        count_CF = np.where(known_C, self.count_TF[row_C] @ kept_FF.T, 0.0)
        return np.asarray((sum_CF + DRAWN_TO * mean_F) / (count_CF + DRAWN_TO))


def folds_of(actor_R: Ints, folds: int) -> Ints:
    """Fold of each actor's number, by a hash of its own, which hangs together with no other division of actors."""
    mixed_R = np.asarray(actor_R).astype(np.uint64) ^ _SALT
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # SplitMix64
        mixed_R = (mixed_R ^ (mixed_R >> np.uint64(shift))) * np.uint64(factor)
    return ((mixed_R ^ (mixed_R >> np.uint64(31))) % np.uint64(folds)).astype(np.int64)


def describe(
    scores_C: Floats,
    titles: Sequence[str],
    at_K: Sequence[int],
    target_KC: Floats,
    *,
    guest: bool,
    num_events: int,
    at_us: int,
    actor: int,
    earned: Earned,
) -> Described:
    """Describe a list: what stands at each place (number in the pool, negative: not in it), and what would have."""
    some_C = np.isfinite(scores_C)
    mean, spread = (scores_C[some_C].mean(), scores_C[some_C].std()) if some_C.any() else (0.0, 0.0)
    standard_C = np.where(some_C, (scores_C - mean) / (spread or 1.0), 0.0)
    rank_C = np.empty(len(scores_C))
    rank_C[np.argsort(-scores_C, kind="stable")] = np.arange(len(scores_C))
    turn = 2.0 * np.pi * (at_us % _DAY_US) / _DAY_US
    of_asker = np.array([float(guest), np.log1p(num_events), np.sin(turn), np.cos(turn)])
    number_CD = np.column_stack(
        [np.tile(of_asker, (len(scores_C), 1)), standard_C, np.log1p(rank_C), earned.means(titles, actor)]
    )
    at = np.asarray(at_K, dtype=np.int64)
    return Described(np.where((at >= 0)[:, None], number_CD[at], np.nan), target_KC @ number_CD)


def cross_fitted(
    described: Described, above_R: Floats, reward_R: Floats, place_R: Ints, actor_R: Ints, *, folds: int
) -> Predicted | None:
    """Rewards that are predicted of rounds, of lists that are described; None where too little is there to learn from.

    `above_R` is how much likelier what stands above each place is under the judged policy; what is expected of the
    policy is weighed by it.
    """
    fold_R, own = folds_of(actor_R, folds), len(OWN)
    known_R: NDArray[np.bool_] = np.asarray(np.isfinite(described.chosen_KD).all(axis=1))
    dummy_RK = np.eye(int(place_R.max(initial=0)) + 1)[place_R][:, 1:]
    predicted_R, expected_R = np.zeros(len(reward_R)), np.zeros(len(reward_R))
    for fold in np.unique(fold_R).tolist():
        learn = np.flatnonzero(known_R & (fold_R != fold))
        if len(learn) < FEWEST:
            return None
        learn = learn[:: -(-len(learn) // LEARNED_AT_MOST)]
        columns = np.append(np.arange(own), own + fold)
        read_RD = np.column_stack([described.chosen_KD[:, columns], dummy_RK])
        mean_D, spread_D = read_RD[learn].mean(axis=0), read_RD[learn].std(axis=0)
        spread_D = np.where(spread_D > 0, spread_D, 1.0)
        level = float(reward_R[learn].mean())
        weight_D = ridge((read_RD[learn] - mean_D) / spread_D, reward_R[learn] - level) / spread_D
        asked = np.flatnonzero(fold_R == fold)
        would_RD = np.column_stack([described.expected_KD[asked][:, columns], dummy_RK[asked]])
        predicted_R[asked] = np.where(known_R[asked], level + (read_RD[asked] - mean_D) @ weight_D, 0.0)
        expected_R[asked] = level + (would_RD - mean_D) @ weight_D
    return Predicted(predicted_R, above_R * expected_R)


def explained(predicted_R: Floats, reward_R: Floats) -> float:
    """Share of the rewards' variance that predictions explain; below 0 where they are worse than the mean."""
    spread: NDArray[np.float64] = (reward_R - reward_R.mean()) ** 2
    return float(1.0 - ((reward_R - predicted_R) ** 2).sum() / spread.sum()) if spread.sum() else 0.0
