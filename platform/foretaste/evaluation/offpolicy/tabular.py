"""A reward model that counts: the mean of each action at each position, drawn towards the mean of all.

Cross-fitted: what is predicted for a round never saw that round, so that doubly robust estimates stay unbiased.

Shapes: R rounds, A actions, P positions.
"""

from __future__ import annotations

import numpy as np

from foretaste.evaluation.offpolicy.rounds import Floats, Ints


def counted(
    action_R: Ints,
    reward_R: Floats,
    *,
    num_actions: int,
    position_R: Ints | None = None,
    fold_R: Ints,
    drawn_by: float = 20.0,
) -> Floats:
    """Reward expected of every action at the round's position, from the rounds of other folds: float64[R, A].

    `drawn_by` is the number of rounds that the mean of all counts as. Raises ValueError where a fold leaves no round.
    """
    place_R = np.zeros(len(action_R), dtype=np.int64) if position_R is None else position_R
    num_positions = int(place_R.max(initial=0)) + 1
    predicted_RA = np.empty((len(action_R), num_actions))
    for fold in np.unique(fold_R):
        learn_R = fold_R != fold
        if not learn_R.any():
            raise ValueError(f"no round is outside fold {fold}: wanted two folds or more")
        cell_R = place_R[learn_R] * num_actions + action_R[learn_R]
        size = num_positions * num_actions
        times, earned = np.bincount(cell_R, minlength=size), np.bincount(cell_R, reward_R[learn_R], minlength=size)
        mean = reward_R[learn_R].mean()
        expected_PA = ((earned + drawn_by * mean) / (times + drawn_by)).reshape(num_positions, num_actions)
        predicted_RA[~learn_R] = expected_PA[place_R[~learn_R]]
    return predicted_RA
