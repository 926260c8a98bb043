"""The questions of an evaluation: at this instant, with this history, what was chosen next?

Shapes: T interactions of all actors, B cases, N titles of the catalogue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.columns import INTERACTIONS, conform
from foretaste.contracts.histories import Histories
from foretaste.signals.histories import pack

Split = Literal["time", "last"]
Which = Literal["test", "validation"]
Targets = Literal["all", "first"]


@dataclass(frozen=True)
class Cases:
    """B questions over one timeline; case b sees `timeline[start_B[b]:stop_B[b]]` and nothing else."""

    timeline: Histories  # every interaction of every actor, one history an actor
    actor_ids: tuple[str, ...]  # of the timeline's histories
    start_B: NDArray[np.int64]
    stop_B: NDArray[np.int64]
    asof_B: NDArray[np.int64]  # microseconds since 1970: when the target was chosen
    target_B: NDArray[np.int32]  # catalogue code, never 0
    actor_B: NDArray[np.int64]  # number of the actor in `actor_ids`
    depth_B: NDArray[np.int64]  # interactions before the target in its session
    popularity_N: NDArray[np.int64]  # choices of each title in the training part of the split
    catalogue_fingerprint: str
    split: Split
    which: Which
    targets: Targets
    num_unknown: int  # targets left out because the catalogue does not have their title

    def __len__(self) -> int:
        return len(self.asof_B)

    @property
    def actors(self) -> list[str]:
        """Actor of each case."""
        return [self.actor_ids[number] for number in self.actor_B]

    @property
    def num_actors(self) -> int:
        """Number of actors with at least one case."""
        return len(np.unique(self.actor_B))

    @property
    def num_titles(self) -> int:
        """Number of titles of the catalogue."""
        return len(self.popularity_N)

    @property
    def share_never_chosen(self) -> float:
        """Share of targets whose title is no choice of the training part: nothing that counts or learns knows them."""
        return float((self.popularity_N[self.target_B - 1] == 0).mean())

    @property
    def lengths_B(self) -> NDArray[np.int64]:
        """Interactions that each case sees."""
        return self.stop_B - self.start_B

    @property
    def histories(self) -> Histories:
        """All histories at once; where cases are many and long, take `batch` by `batch` instead."""
        return self.batch(0, len(self))

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with any case, its history or the catalogue."""
        digest = hashlib.blake2b("\n".join((self.catalogue_fingerprint, *self.actors)).encode(), digest_size=6)
        for array in (self.start_B, self.stop_B, self.asof_B, self.target_B, self.timeline.title_T, self.timeline.at_T):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def batch(self, first: int, last: int, *, session: bool = True) -> Histories:
        """Histories of the cases `first:last`; without `session` they end where the target's own session begins."""
        stop_B = self.stop_B[first:last]
        return self.timeline.take(self.start_B[first:last], stop_B if session else stop_B - self.depth_B[first:last])


def cases(
    interactions: pa.Table,
    catalogue: Catalogue,
    *,
    split: Split,
    target_actions: Collection[str],
    targets: Targets = "all",
    limit: int | None = None,
    which: Which = "test",
    seed: int = 0,
) -> Cases:
    """Ask for every choice of the held-out part of a split, with all of the actor's earlier interactions.

    `interactions` is an INTERACTIONS table sorted by (actor_id, position). A target is a row that the split
    ("time": global time split, "last": leave-one-out) marks `which`, whose action is in `target_actions`;
    "first" keeps the earliest of each actor. Its history is every row of the actor with a lower position, so
    under "time" the history grows as it would live. Targets with titles that the catalogue does not have are
    left out and counted. `limit` keeps that many actors, drawn with `seed`.
    Raises ValueError where rows are not sorted or no target is left.
    """
    interactions = conform(interactions, INTERACTIONS, what="interactions")
    timeline, actor_ids = pack(interactions, catalogue)
    first_of_T = np.repeat(timeline.offsets_B1[:-1], timeline.lengths_B)
    _check_order(np.asarray(interactions["position"]), timeline)
    marks = interactions["split_time" if split == "time" else "split_last"]
    choice_T = _is_in(interactions["action"], target_actions)
    held_T = choice_T & _is_in(marks, [which])
    known_T = timeline.title_T > 0
    trained = timeline.title_T[choice_T & known_T & _is_in(marks, ["train"])]
    rows = np.flatnonzero(held_T & known_T)
    actor_B = np.searchsorted(timeline.offsets_B1, rows, side="right") - 1
    if targets == "first":
        actor_B, first = np.unique(actor_B, return_index=True)
        rows = rows[first]
    if limit is not None and len(rows):
        drawn = _draw(np.unique(actor_B), limit, seed)
        keep = np.isin(actor_B, drawn)
        actor_B, rows = actor_B[keep], rows[keep]
    if not len(rows):
        raise ValueError(
            f"cases: no row is marked {which!r} by split {split!r} with an action of {sorted(target_actions)} "
            f"and a title of the catalogue ({int(held_T.sum())} such rows have unknown titles)"
        )
    return Cases(
        timeline=timeline,
        actor_ids=tuple(actor_ids),
        start_B=first_of_T[rows],
        stop_B=rows,
        asof_B=timeline.at_T[rows],
        target_B=timeline.title_T[rows],
        actor_B=actor_B,
        depth_B=_depth(timeline)[rows],
        popularity_N=np.bincount(trained, minlength=len(catalogue) + 1)[1:],
        catalogue_fingerprint=catalogue.fingerprint,
        split=split,
        which=which,
        targets=targets,
        num_unknown=int((held_T & ~known_T).sum()),
    )


def _is_in(column: pa.ChunkedArray, values: Collection[str]) -> NDArray[np.bool_]:
    return np.asarray(pc.is_in(column, value_set=pa.array(sorted(values), pa.string())), dtype=np.bool_)


def _draw(actors: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """Draw at most `limit` of the actors, in order of their number."""
    if limit >= len(actors):
        return actors
    return np.sort(np.random.default_rng(seed).choice(actors, size=limit, replace=False))


def _check_order(position_T: NDArray[np.int32], timeline: Histories) -> None:
    """Raise ValueError where positions or times fall within an actor."""
    inside = np.ones(max(len(position_T) - 1, 0), dtype=np.bool_)
    starts = timeline.offsets_B1[1:-1]
    inside[starts - 1] = False
    if (np.diff(position_T)[inside] <= 0).any():
        raise ValueError("interactions: positions of an actor must rise from row to row; sort by (actor_id, position)")
    if (np.diff(timeline.at_T)[inside] < 0).any():
        raise ValueError("interactions: an actor's times fall while positions rise; prepare the log again")


def _depth(timeline: Histories) -> NDArray[np.int64]:
    """Number of interactions before each in its own session: int64[T]."""
    size = len(timeline.title_T)
    opens_T = np.ones(size, dtype=np.bool_)
    opens_T[1:] = np.diff(timeline.session_T) != 0
    starts = timeline.offsets_B1[:-1]
    opens_T[starts[starts < size]] = True
    place_T = np.arange(size)
    return place_T - np.maximum.accumulate(np.where(opens_T, place_T, 0))
