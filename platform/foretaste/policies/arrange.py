"""The order of a list before anything is explored: unlike titles, and little that jumps. Pure functions of their input.

Shapes: C candidates, best first; G properties that titles may share (genres, kinds); K places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def diversify(has_CG: NDArray[np.bool_], *, weight: float, num: int) -> NDArray[np.int64]:
    """Order candidates so that the first `num` are unlike each other; index[C], the others follow as they were.

    At each place stands the candidate with the largest (1 - weight) * relevance - weight * likeness: relevance is 1 for
    the best candidate and falls evenly to 1 / C, so that a weight means the same whatever the scores are; likeness is
    the largest cosine of its properties with those of a title placed above. Equal ones keep their order; weight 0
    changes nothing. Carbonell and Goldstein, SIGIR 1998 (maximal marginal relevance). O(num * C * G).
    """
    size = len(has_CG)
    if weight <= 0.0 or size < 2:
        return np.arange(size)
    has = has_CG.astype(np.float64)
    norm_C = np.sqrt(np.maximum(has.sum(axis=1), 1.0))
    relevance_C = (1.0 - weight) * (1.0 - np.arange(size) / size)
    like_C, left_C = np.zeros(size), np.ones(size, dtype=np.bool_)
    placed = []
    for _ in range(min(num, size)):
        best = int(np.argmax(np.where(left_C, relevance_C - weight * like_C, -np.inf)))
        placed.append(best)
        left_C[best] = False
        like_C = np.maximum(like_C, (has @ has[best]) / (norm_C * norm_C[best]))
    return np.concatenate([np.array(placed, dtype=np.int64), np.flatnonzero(left_C)])


def hold(wanted: Sequence[int], before: Sequence[int], *, protected: int, max_move: int | None, num: int) -> list[int]:
    """Order `wanted` for `num` places so that the titles of the list `before` move little; the others follow.

    A title that stood at place p keeps it where p < `protected`, else it stays within p - `max_move` and p + `max_move`
    (None: anywhere; p + max_move past the list: it may leave). Titles of `before` that are not in `wanted` bind nobody:
    others move into their places. At each place stands the first of `wanted` that may, with no other kept from where
    it must: places of titles that are due only grow later, so the earliest due first is always possible.
    """
    place_of = {title: place for place, title in enumerate(before)}
    held = sorted((title for title in wanted if title in place_of), key=place_of.__getitem__)
    free = [title for title in wanted if title not in place_of]
    span = {title: _span(place_of[title], protected=protected, max_move=max_move) for title in held}
    rank = {title: number for number, title in enumerate(wanted)}
    num = min(num, len(rank))
    result: list[int] = []
    for place in range(num):
        until = next((s for s, title in enumerate(held) if span[title][1] <= place + s), len(held))
        may = [title for title in held[: until + 1] if span[title][0] <= place]
        if until == len(held) and free:
            may.append(free[0])
        if not may:  # too few are left for all places: who stood behind the list comes forward
            may = free[:1] or [title for title in held if place_of[title] >= num]
        chosen = min(may, key=rank.__getitem__)
        (free if chosen not in place_of else held).remove(chosen)
        result.append(chosen)
    return result + sorted([*held, *free], key=rank.__getitem__)


def kept_places(order: Sequence[int], before: Sequence[int], *, protected: int) -> tuple[int, ...]:
    """Places below `protected` where an order has what stood there before: nothing may be explored there."""
    return tuple(place for place, (a, b) in enumerate(zip(order[:protected], before, strict=False)) if a == b)


def dealt(scores_C: NDArray[np.float64]) -> NDArray[np.float64]:
    """Deal the scores of arranged candidates anew, the largest to the first: what a policy that sorts by scores reads.

    So a policy explores over the arranged order, with the distances that the scores had.
    """
    return -np.sort(-scores_C, kind="stable")


@dataclass(frozen=True, slots=True)
class Steadiness:
    """How much a list has of the one before."""

    kept: int  # titles that are on both
    largest_move: int  # of those, in places; 0 where there is none
    of: int  # titles of the list before


def steadiness(order: Sequence[str], before: Sequence[str]) -> Steadiness:
    """Compare a list with the one before."""
    place_of: Mapping[str, int] = {title: place for place, title in enumerate(before)}
    moves = [abs(place - place_of[title]) for place, title in enumerate(order) if title in place_of]
    return Steadiness(len(moves), max(moves, default=0), len(before))


def _span(place: int, *, protected: int, max_move: int | None) -> tuple[int, int]:
    if place < protected:
        return place, place
    return (0, 1 << 30) if max_move is None else (place - max_move, place + max_move)
