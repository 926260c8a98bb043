"""Logged lists as a policy learns from them: the pool of each, what was chosen of it, with which chance, and what it
earned.

Shapes: B lists, C candidates of a pool, K places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

CERTAIN = 1.0 - 1e-9
"""A choice of this chance was none: nothing is learned of what else could have stood there."""


class Inputs(Protocol):
    """What a network reads of lists."""

    def __len__(self) -> int: ...

    def rows(self, index_B: NDArray[np.int64], /) -> Self:
        """Pick lists by their number."""
        ...


Read = TypeVar("Read", bound=Inputs)


@dataclass(frozen=True, slots=True)
class LoggedLists(Generic[Read]):
    """B lists; make them with `of`, which checks them."""

    inputs: Read
    real_BC: NDArray[np.bool_]  # False for padding of the pool
    chosen_BK: NDArray[np.int64]  # place in the pool, -1 where the list is over
    propensity_BK: NDArray[np.float64]  # of what was chosen, given those above; 1 where the list is over
    reward_BK: NDArray[np.float64]  # NaN where it is not known
    predicted_BC: NDArray[np.float64]  # reward that a model expects of each candidate, whatever its place; 0: none
    beside_BK: NDArray[np.float64]  # what it adds for the place
    actor_B: NDArray[np.int64]  # a number an actor

    @classmethod
    def of(
        cls,
        inputs: Read,
        *,
        real: NDArray[np.bool_],
        chosen: NDArray[np.int64],
        propensity: NDArray[np.float64],
        reward: NDArray[np.float64],
        actor: NDArray[np.int64],
        predicted: NDArray[np.float64] | None = None,
        beside: NDArray[np.float64] | None = None,
    ) -> LoggedLists[Read]:
        """Check and lay out lists.

        Raises ValueError naming the field and the first list at fault: other shapes, a choice that is not in the pool
        or stands twice, a propensity that is none, a reward that is infinite.
        """
        size, places = len(inputs), chosen.shape[1]
        for name, array, shape in (
            ("real", real, (size, real.shape[-1])), ("chosen", chosen, (size, places)),
            ("propensity", propensity, (size, places)), ("reward", reward, (size, places)), ("actor", actor, (size,)),
        ):  # fmt: skip
            if array.shape != shape:
                raise ValueError(f"{name}: wanted shape {shape}, found {array.shape}")
        there_BK = chosen >= 0
        inside_BK = ~there_BK | ((chosen < real.shape[1]) & np.take_along_axis(
            real, np.clip(chosen, 0, real.shape[1] - 1), axis=1
        ))  # fmt: skip
        _refuse("chosen", inside_BK, chosen, "a candidate of the pool")
        sorted_BK = np.sort(chosen, axis=1)
        twice_B1 = ((np.diff(sorted_BK, axis=1) == 0) & (sorted_BK[:, 1:] >= 0)).any(axis=1, keepdims=True)
        _refuse("chosen", np.broadcast_to(~twice_B1, chosen.shape), chosen, "each candidate once")
        _refuse("propensity", ~there_BK | ((propensity > 0) & (propensity <= 1 + 1e-9)), propensity, "in (0, 1]")
        _refuse("reward", ~there_BK | ~np.isinf(reward), reward, "finite, or NaN where it is not known")
        return cls(
            inputs,
            real,
            chosen.astype(np.int64),
            np.where(there_BK, propensity, 1.0),
            np.where(there_BK, reward, np.nan),
            np.zeros(real.shape) if predicted is None else predicted,
            np.zeros(chosen.shape) if beside is None else beside,
            actor.astype(np.int64),
        )

    def __len__(self) -> int:
        return len(self.actor_B)

    @property
    def drawn_BK(self) -> NDArray[np.bool_]:
        """Places that were filled by dice."""
        return (self.chosen_BK >= 0) & (self.propensity_BK < CERTAIN)

    @property
    def counts_BK(self) -> NDArray[np.bool_]:
        """Rounds: places that were filled by dice and whose reward is known."""
        return self.drawn_BK & ~np.isnan(self.reward_BK)

    def rows(self, index_B: NDArray[np.int64]) -> LoggedLists[Read]:
        """Pick lists by their number."""
        arrays = {f.name: getattr(self, f.name)[index_B] for f in fields(self) if f.name != "inputs"}
        return LoggedLists(inputs=self.inputs.rows(index_B), **arrays)

    def modelled(self, predicted_BC: NDArray[np.float64], beside_BK: NDArray[np.float64]) -> LoggedLists[Read]:
        """The same with a reward model's predictions."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return LoggedLists(**values | {"predicted_BC": predicted_BC, "beside_BK": beside_BK})


_PADDING = {"real_BC": False, "chosen_BK": -1, "propensity_BK": 1.0, "reward_BK": np.nan, "predicted_BC": 0.0,
            "beside_BK": 0.0}  # fmt: skip


def join_lists(parts: Sequence[LoggedLists[Read]], inputs: Read) -> LoggedLists[Read]:
    """Put lists after each other, padded to the largest pool and the longest list; `inputs` are those of all."""
    values: dict[str, NDArray[Any]] = {"actor_B": np.concatenate([part.actor_B for part in parts])}
    for name, filler in _PADDING.items():
        arrays = [getattr(part, name) for part in parts]
        width = max(array.shape[1] for array in arrays)
        values[name] = np.concatenate(
            [np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=filler) for a in arrays]
        )
    return LoggedLists(inputs=inputs, **values)


def _refuse(name: str, good_BK: NDArray[np.bool_], values_BK: NDArray[Any], wanted: str) -> None:
    if good_BK.all():
        return
    b, k = np.argwhere(~good_BK)[0]
    raise ValueError(f"{name} of list {b}, place {k} is {values_BK[b, k]}, wanted {wanted}")
