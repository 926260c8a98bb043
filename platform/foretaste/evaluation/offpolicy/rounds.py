"""Rounds as a log has them, and what the policy that is to be judged would have done in them.

A round is one choice: what was shown, with which probability, and what it earned. Where a round has a position, its
propensity, its target and its predictions are those at that position.

Shapes: R rounds, A actions, P positions, C numbers of a context.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ABOVE_ONE = 1e-9
"""What a probability may be above 1, by rounding."""

SUM_TOLERANCE = 1e-5
"""What the sum of a distribution may be away from 1."""

_CELLS_AT_ONCE = 131_072
"""Of a matrix, so that a block of two of them stays in a core's cache."""


@dataclass(frozen=True)
class Rounds:
    """Logged rounds with the target policy's probabilities; make them with `Rounds.of`, which checks them.

    What is None is not known; an estimator that needs it says so.
    """

    action_R: Ints  # what was chosen, 0..A-1
    reward_R: Floats
    propensity_R: Floats  # with which it was chosen, by the policy that logged
    target_R: Floats  # with which the target policy would have chosen it
    position_R: Ints | None = None  # 0..P-1, where it stood
    actor_R: Ints | None = None  # whose round it is: rounds of one actor are not independent
    predicted_R: Floats | None = None  # reward that a model expects of what was chosen
    expected_R: Floats | None = None  # reward that the model expects of the target policy
    target_RA: Floats | None = None  # the target policy's whole distribution
    logging_RA: Floats | None = None  # that of the policy that logged
    predicted_RA: Floats | None = None  # reward that the model expects of each action
    context_RC: Floats | None = None

    @classmethod
    def of(
        cls,
        *,
        action: ArrayLike,
        reward: ArrayLike,
        propensity: ArrayLike,
        target: ArrayLike,
        position: ArrayLike | None = None,
        actor: ArrayLike | None = None,
        predicted: ArrayLike | None = None,
        expected: ArrayLike | None = None,
        logging: ArrayLike | None = None,
        context: ArrayLike | None = None,
    ) -> Rounds:
        """Check and lay out the rounds of a log.

        `target` and `predicted` are of the logged action (R), of every action (R x A), or of every action at every
        position (R x A x P, read at the round's own); `logging` is R x A or R x A x P. `expected` is what the model
        expects of the target policy (R); it follows where `target` and `predicted` are of every action.
        Raises ValueError naming the field, the first round at fault, what was wanted and what was found.
        """
        reward_R = _vector("reward", reward, None)
        num_rounds = len(reward_R)
        action_R = _whole("action", action, num_rounds)
        propensity_R = _vector("propensity", propensity, num_rounds)
        _refuse("propensity", propensity_R, (propensity_R > 0) & (propensity_R <= 1 + ABOVE_ONE), "in (0, 1]")
        position_R = None if position is None else _whole("position", position, num_rounds)
        target_R, target_RA = _of_action("target", target, action_R, position_R)
        if target_RA is None:
            _refuse("target", target_R, (target_R >= 0) & (target_R <= 1 + ABOVE_ONE), "in [0, 1]")
        else:
            _check_distribution("target", target_RA)
        logging_RA = _logging(logging, action_R, position_R, propensity_R)
        predicted_R, predicted_RA = (
            (None, None) if predicted is None else _of_action("predicted", predicted, action_R, position_R)
        )
        if expected is not None:
            expected_R: Floats | None = _vector("expected", expected, num_rounds)
        elif target_RA is not None and predicted_RA is not None:
            expected_R = expected_under(target_RA, predicted_RA)
        else:
            expected_R = None
        return cls(
            action_R=action_R,
            reward_R=reward_R,
            propensity_R=propensity_R,
            target_R=target_R,
            position_R=position_R,
            actor_R=None if actor is None else _whole("actor", actor, num_rounds),
            predicted_R=predicted_R,
            expected_R=expected_R,
            target_RA=target_RA,
            logging_RA=logging_RA,
            predicted_RA=predicted_RA,
            context_RC=None if context is None else _matrix("context", context, num_rounds),
        )

    def __len__(self) -> int:
        return len(self.reward_R)

    @cached_property
    def weight_R(self) -> Floats:
        """Importance weights: how much likelier the target policy was to choose what was chosen."""
        weight_R: Floats = self.target_R / self.propensity_R
        return weight_R

    @cached_property
    def surprise_R(self) -> Floats:
        """What was earned beyond what the model expects of what was chosen; where there is no model, all of it."""
        return self.reward_R if self.predicted_R is None else self.reward_R - self.predicted_R

    def take(self, rows: slice | Ints | NDArray[np.bool_]) -> Rounds:
        """Those rounds (again, where a row stands twice)."""
        taken: dict[str, Any] = {f.name: _rows(getattr(self, f.name), rows) for f in fields(self)}
        return Rounds(**taken)

    def need(self, what: str, *names: str) -> None:
        """Raise ValueError where `what` (an estimator) needs fields that these rounds do not have."""
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{what} needs {missing} of each round, which these rounds do not have")


def expected_under(target_RA: Floats, predicted_RA: Floats) -> Floats:
    """Reward that a model expects of a policy in each round: float64[R].

    Raises ValueError where the shapes differ or a prediction is not finite.
    """
    if predicted_RA.shape != target_RA.shape:
        raise ValueError(
            f"predicted: wanted {target_RA.shape} (rounds, actions) as target has, found {predicted_RA.shape}"
        )
    expected_R = np.empty(len(target_RA))
    for rows in _blocks(target_RA):
        expected_R[rows] = _row_sums(target_RA[rows] * predicted_RA[rows])
    _refuse("predicted", expected_R, np.isfinite(expected_R), "finite for every action")  # 0 times what is not is not
    return expected_R


def _of_action(name: str, given: ArrayLike, action_R: Ints, position_R: Ints | None) -> tuple[Floats, Floats | None]:
    """What `given` says of the action of each round, and of every action where it says that."""
    values = np.asarray(given, dtype=np.float64)
    if values.ndim < 2:
        return _vector(name, values, len(action_R)), None
    values_RA = _at_position(name, values, len(action_R), position_R)
    num_actions = values_RA.shape[1]
    _refuse("action", action_R, (action_R >= 0) & (action_R < num_actions), f"in 0..{num_actions - 1}, as {name} has")
    return _cells(values_RA, action_R), values_RA


def _cells(values_RA: Floats, action_R: Ints) -> Floats:
    """The cell of each row's action."""
    if not values_RA.flags.c_contiguous:
        values_R: Floats = values_RA[np.arange(len(action_R)), action_R]
        return values_R
    cells_R: Floats = values_RA.reshape(-1).take(np.arange(len(action_R)) * values_RA.shape[1] + action_R)
    return cells_R


def _at_position(name: str, values: Floats, num_rounds: int, position_R: Ints | None) -> Floats:
    """The matrix of rounds and actions, at the position of each round."""
    if values.ndim not in (2, 3) or len(values) != num_rounds:
        raise ValueError(f"{name}: wanted {num_rounds} rounds x actions [x positions], found shape {values.shape}")
    if values.ndim == 2:
        return values
    num_positions = values.shape[2]
    if position_R is None:
        if num_positions > 1:
            raise ValueError(f"{name}: has {num_positions} positions, but no position of each round was given")
        first_RA: Floats = values[:, :, 0]
        return first_RA
    wanted = f"in 0..{num_positions - 1}, as {name} has"
    _refuse("position", position_R, (position_R >= 0) & (position_R < num_positions), wanted)
    if num_positions == 1:
        only_RA: Floats = values[:, :, 0]
        return only_RA
    values_RA: Floats = values[np.arange(num_rounds), :, position_R]
    return values_RA


def _check_distribution(name: str, values_RA: Floats) -> None:
    """Refuse rows that are no distributions."""
    for rows in _blocks(values_RA):
        rows_BA = values_RA[rows]
        total_B = _row_sums(rows_BA)
        if rows_BA.size and rows_BA.min() >= 0 and np.abs(total_B - 1).max() <= SUM_TOLERANCE:
            continue
        low_B = rows_BA.min(axis=1) if rows_BA.size else total_B
        _refuse(name, low_B, low_B >= 0, "probabilities of 0 or more", rows.start)
        _refuse(name, total_B, np.abs(total_B - 1) <= SUM_TOLERANCE, "probabilities with the sum 1", rows.start)


def _blocks(values_RA: Floats) -> Iterator[slice]:
    """Rows of a matrix, as many at a time as stay in a core's cache."""
    size = max(1, _CELLS_AT_ONCE // max(values_RA.shape[1], 1))
    for first in range(0, len(values_RA), size):
        yield slice(first, first + size)


def _row_sums(values_BA: Floats) -> Floats:
    """Twenty times as fast for a few actions as `sum(axis=1)`, and as exact to the last digits."""
    sums_B: Floats = values_BA @ np.ones(values_BA.shape[1])
    return sums_B


def _logging(logging: ArrayLike | None, action_R: Ints, position_R: Ints | None, propensity_R: Floats) -> Floats | None:
    """The whole distribution of the policy that logged, which must agree with the propensities."""
    if logging is None:
        return None
    logged_R, logging_RA = _of_action("logging", logging, action_R, position_R)
    if logging_RA is None:
        raise ValueError("logging: wanted probabilities of every action, found one a round: that is the propensity")
    _check_distribution("logging", logging_RA)
    alike_R = np.isclose(logged_R, propensity_R, rtol=1e-6, atol=1e-12)
    _refuse("propensity", propensity_R, alike_R, "what logging has for the action")
    return logging_RA


def _rows(column: NDArray[Any] | None, rows: slice | Ints | NDArray[np.bool_]) -> NDArray[Any] | None:
    return None if column is None else column[rows]


def _vector(name: str, given: ArrayLike, num_rounds: int | None) -> Floats:
    values_R = np.asarray(given, dtype=np.float64)
    if values_R.ndim != 1 or (num_rounds is not None and len(values_R) != num_rounds):
        raise ValueError(f"{name}: wanted {_count(num_rounds)}, found shape {values_R.shape}")
    _refuse(name, values_R, np.isfinite(values_R), "finite numbers")
    return values_R


def _whole(name: str, given: ArrayLike, num_rounds: int) -> Ints:
    values_R = np.asarray(given)
    if not values_R.size:  # of an empty list numpy does not know that whole numbers are meant
        values_R = values_R.astype(np.int64)
    if values_R.shape != (num_rounds,) or values_R.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: wanted whole numbers, {_count(num_rounds)}, found {values_R.dtype}, shape {values_R.shape}"
        )
    _refuse(name, values_R, values_R >= 0, "0 or more")
    return values_R.astype(np.int64, copy=False)


def _matrix(name: str, given: ArrayLike, num_rounds: int) -> Floats:
    values_RC = np.asarray(given, dtype=np.float64)
    if values_RC.ndim != 2 or len(values_RC) != num_rounds:
        raise ValueError(f"{name}: wanted {num_rounds} rounds x numbers, found shape {values_RC.shape}")
    finite_R = np.asarray(np.isfinite(values_RC).all(axis=1))
    _refuse(name, values_RC, finite_R, "finite numbers")
    return values_RC


def _count(num_rounds: int | None) -> str:
    return "one a round" if num_rounds is None else f"one for each of {num_rounds} rounds"


def _refuse(name: str, values: NDArray[Any], good_R: NDArray[np.bool_], wanted: str, first: int = 0) -> None:
    """Say which round is the first at fault, and how many are."""
    if good_R.all():
        return
    rows = np.flatnonzero(~good_R)
    raise ValueError(
        f"{name} of round {first + rows[0]} is {values[rows[0]]}, wanted {wanted} ({len(rows)} of {len(good_R)} rounds)"
    )
