"""A worker's examples, all in memory where they fit, else some parts at a time, the next being fetched meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.histories import Histories, concatenate
from foretaste.training.examples import Census, Examples, together

MicroBatch = TypeVar("MicroBatch")
GROUPS_AT_ONCE = 2
"""Groups of parts that are resident: the one that trains and the one that is being fetched."""


class Count(NamedTuple):
    """What a part holds."""

    interactions: int
    train: int
    validation: int

    @classmethod
    def of(cls, counted: Census) -> Count:
        """Of the census of a part."""
        return cls(counted.interactions, counted.train, counted.validation)


class Parts:
    """Parts of examples in their order; at most `limit` interactions are resident, or one part a group."""

    def __init__(self, shard: Sequence[Examples], counts: Sequence[Count], *, limit: int) -> None:
        if len(shard) != len(counts):
            raise ValueError(f"{len(shard)} parts with counts of {len(counts)}")
        self.counts = list(counts)
        self._shard = shard
        self._limit = limit
        fits = sum(count.interactions for count in counts) <= limit
        self.whole = together([shard[n] for n in range(len(shard))]) if fits and counts else None

    @property
    def train(self) -> int:
        """Choices to learn from."""
        return sum(count.train for count in self.counts)

    def groups(self, rng: np.random.Generator) -> Iterator[tuple[Examples, int]]:
        """All examples once, in groups of parts of an order that is drawn, with their choices to learn from.

        Where all fit they are one group, in their own order, and nothing is drawn.
        """
        if self.whole is not None:
            yield self.whole, self.train
            return
        groups = self._divide(rng.permutation(len(self.counts)))
        with ThreadPoolExecutor(1) as pool:
            ahead: Future[Examples] | None = pool.submit(self._fetch, groups[0]) if groups else None
            for number, group in enumerate(groups):
                assert ahead is not None
                examples = ahead.result()
                following = groups[number + 1 : number + 2]
                ahead = pool.submit(self._fetch, following[0]) if following else None
                yield examples, sum(self.counts[n].train for n in group)
                del examples

    def _divide(self, order: NDArray[np.int64]) -> list[list[int]]:
        groups: list[list[int]] = []
        room = 0
        for n in order.tolist():
            size = self.counts[n].interactions
            if not groups or size > room:
                groups.append([])
                room = self._limit // GROUPS_AT_ONCE
            groups[-1].append(n)
            room -= size
        return groups

    def _fetch(self, group: list[int]) -> Examples:
        return together([self._shard[n] for n in group])

    def cases(self, chosen_V: NDArray[np.int64]) -> tuple[Histories, NDArray[np.int64], NDArray[np.int64]]:
        """Choices to validate with, by their number: histories cut before them, their instants and their titles.

        All parts are opened once, one after the other, unless they are resident.
        """
        if self.whole is not None:
            return _cases(self.whole, chosen_V)
        found: list[tuple[Histories, NDArray[np.int64], NDArray[np.int64]]] = []
        ends = np.cumsum([count.validation for count in self.counts])
        for n, (end, count) in enumerate(zip(ends, self.counts, strict=True)):
            begin = end - count.validation
            mine_V = chosen_V[(chosen_V >= begin) & (chosen_V < end)] - begin
            if len(mine_V) or (n == len(self.counts) - 1 and not found):
                found.append(_cases(self._shard[n], mine_V))
        histories, at, title = zip(*found, strict=True)
        return concatenate(histories), np.concatenate(at), np.concatenate(title)


def _cases(
    examples: Examples, chosen_V: NDArray[np.int64]
) -> tuple[Histories, NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    histories = examples.histories
    index = np.flatnonzero(examples.validation_T)[chosen_V]
    begin = histories.offsets_B1[np.searchsorted(histories.offsets_B1, index, side="right") - 1]
    return histories.take(begin, index), histories.at_T[index], histories.title_T[index].astype(np.int64) - 1


def in_steps(
    groups: Iterator[tuple[Examples, int]],
    divide: Callable[[Examples, int], Iterator[Iterator[MicroBatch]]],
    *,
    total: int,
    num_steps: int,
) -> Iterator[Iterator[MicroBatch]]:
    """Give groups their share of exactly `num_steps` steps, in proportion to their choices to learn from.

    `divide` makes so many steps of micro-batches of a group. A group too small for a step of its own is learned from
    in the first step of the next.
    """
    given, seen = 0, 0
    held: list[Iterator[MicroBatch]] = []
    for examples, train in groups:
        seen += train
        share = seen * num_steps // max(1, total) - given
        given += share
        if share == 0:
            held += list(divide(examples, 1)) if train else []
            continue
        for step in divide(examples, share):
            yield itertools.chain(*held, step)
            held = []
    yield from (iter(()) for _ in range(num_steps - given))
