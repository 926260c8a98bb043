"""Estimates from a log of any length: summed block by block, in the memory of one block.

Sums of blocks add up in any order and for any size of block: workers sum what they read, and one adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from numpy.typing import NDArray

from foretaste.evaluation.offpolicy.rounds import Rounds
from foretaste.evaluation.offpolicy.terms import Estimates, Sums

ROUNDS_AT_ONCE = 16_384
"""A few columns of them stay in a core's cache."""

Block = TypeVar("Block")


@dataclass(frozen=True, slots=True)
class Summary:
    """Sums of several estimators over the same rounds, by name."""

    sums: Mapping[str, Sums] = field(default_factory=dict)

    def __add__(self, other: Summary) -> Summary:
        """Sums of both; an empty one adds nothing. Raises ValueError where they are of other estimators."""
        if not self.sums or not other.sums:
            return self if self.sums else other
        if self.sums.keys() != other.sums.keys():
            raise ValueError(f"wanted sums of {sorted(self.sums)}, found {sorted(other.sums)}")
        return Summary({name: sums + other.sums[name] for name, sums in self.sums.items()})

    def __getitem__(self, name: str) -> Sums:
        return self.sums[name]

    @property
    def values(self) -> dict[str, float]:
        """The estimates; raises ValueError naming the first that cannot be made."""
        found = {}
        for name, sums in self.sums.items():
            try:
                found[name] = sums.value
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        return found


def summarise(blocks: Iterable[Block], estimators: Sequence[Estimates[Block]]) -> Summary:
    """Sum what the estimators make of each block, and forget the block."""
    summary = Summary({estimator.name: Sums.zero() for estimator in estimators})
    for block in blocks:
        summary += Summary({estimator.name: Sums.of(estimator(block)) for estimator in estimators})
    return summary


def cut(rounds: Rounds, size: int = ROUNDS_AT_ONCE) -> Iterator[Rounds]:
    """Rounds in blocks of `size`, which share their memory."""
    for first in range(0, len(rounds), size):
        yield rounds.take(slice(first, first + size))


def laid_out(*, size: int = ROUNDS_AT_ONCE, **arrays: NDArray[Any] | None) -> Iterator[Rounds]:
    """Arrays of a whole log, as `Rounds.of` takes them, checked and laid out a block at a time.

    Raises ValueError as `Rounds.of` does, saying where the block begins.
    """
    num_rounds = max((len(array) for array in arrays.values() if array is not None), default=0)
    for first in range(0, num_rounds, size):
        rows = slice(first, first + size)
        given: dict[str, Any] = {name: None if array is None else array[rows] for name, array in arrays.items()}
        try:
            block = Rounds.of(**given)
        except ValueError as error:
            raise ValueError(f"rounds from {first} on: {error}") from error
        yield block


def estimate(rounds: Rounds, estimators: Sequence[Estimates[Rounds]]) -> Summary:
    """Sum what the estimators make of rounds in memory."""
    return summarise(cut(rounds), estimators)
