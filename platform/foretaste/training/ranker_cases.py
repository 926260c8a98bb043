"""What the ranker learns from: choices that the intent model has not seen, among the candidates it would name.

A choice outside the candidates stays outside: adding it would teach that the worst score is the right one. Its case
counts all the same, for the probability (nothing here was chosen) and as a miss in every figure.

Shapes: B cases, C candidates, T interactions of all actors.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.events import ACTION_CODES
from foretaste.contracts.histories import Histories
from foretaste.models.ranker_inputs import RankerInputs, join_inputs
from foretaste.ops.tables import read_prepared
from foretaste.signals.followed import followed
from foretaste.signals.histories import pack
from foretaste.signals.ranked_past import Asked, Reading
from foretaste.training.examples import COLUMNS, SPLIT_COLUMN, TEST, VALIDATION

REPORT = -1
"""Fold of the actors whom nothing is learned from or chosen by."""


@dataclass(frozen=True, slots=True)
class RankerCases:
    """B cases with what followed; NaN where that is not known. Candidates stand in the order they were named in."""

    inputs: RankerInputs
    chosen_BC: NDArray[np.float32]  # 1 for the choice, where it is among the candidates
    fraction_BC: NDArray[np.float32]  # played fraction of what was chosen
    thumb_BC: NDArray[np.float32]  # 1 where what was chosen got a thumb up, 0 where not
    listed_BC: NDArray[np.float32]  # 1 where it was put on the list in the rest of the session
    place_BC: NDArray[np.int16]  # on the slate, -1 for what was not shown
    weight_BC: NDArray[np.float32]  # inverse of the propensity with which it was shown, 1 where that is not known
    actor_B: NDArray[np.int64]  # a number an actor
    fold_B: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.fold_B)

    @property
    def real_BC(self) -> NDArray[np.bool_]:
        """False for padding."""
        return self.inputs.code_BC > 0

    def rows(self, index_B: NDArray[np.int64]) -> RankerCases:
        """Pick cases by their number."""
        values = {f.name: getattr(self, f.name)[index_B] for f in fields(self) if f.name != "inputs"}
        return RankerCases(inputs=self.inputs.rows(index_B), **values)


_PADDING = {"chosen_BC": 0, "fraction_BC": np.nan, "thumb_BC": np.nan, "listed_BC": np.nan, "place_BC": -1,
            "weight_BC": 1}  # fmt: skip


def join(parts: Sequence[RankerCases]) -> RankerCases:
    """Put cases after each other, padded to the largest number of candidates."""
    inputs = join_inputs([part.inputs for part in parts])
    size = inputs.code_BC.shape[1]
    values: dict[str, NDArray[Any]] = {}
    for name, filler in _PADDING.items():
        arrays = [getattr(part, name) for part in parts]
        values[name] = np.concatenate(
            [np.pad(a, ((0, 0), (0, size - a.shape[1])), constant_values=filler) for a in arrays]
        )
    for name in ("actor_B", "fold_B"):
        values[name] = np.concatenate([getattr(part, name) for part in parts])
    return RankerCases(inputs=inputs, **values)


@dataclass(frozen=True, slots=True)
class Questions:
    """B validation choices with their histories, not yet answered."""

    timeline: Histories
    start_B: NDArray[np.int64]
    stop_B: NDArray[np.int64]  # of the history; the choice stands here
    actors: list[str]
    names: list[str]  # of the timeline's histories

    def __len__(self) -> int:
        return len(self.stop_B)


def questions(prepared: Path, known: Catalogue, manifest: dict[str, Any], *, limit: int, seed: int) -> Questions:
    """Draw at most `limit` choices of the validation window of the time split. Raises ValueError without any."""
    column = SPLIT_COLUMN["time"]
    table = read_prepared(prepared, "interactions", columns=[*COLUMNS, column])
    table = table.filter(pc.not_equal(table[column], TEST))
    timeline, actor_ids = pack(table, known)
    wanted = np.array([ACTION_CODES[action] for action in manifest["target_actions"]], dtype=np.int32)
    held_T = np.asarray(pc.equal(table[column], VALIDATION).combine_chunks(), dtype=np.bool_)
    stop_B = np.flatnonzero(held_T & np.isin(timeline.action_T, wanted) & (timeline.title_T > 0))
    if not len(stop_B):
        raise ValueError(f"{prepared}: the validation window has no choice by {manifest['target_actions']}")
    if len(stop_B) > limit:
        stop_B = np.sort(np.random.default_rng(seed).choice(stop_B, size=limit, replace=False))
    actor_B = np.searchsorted(timeline.offsets_B1, stop_B, side="right") - 1
    own = [actor_ids[a] for a in actor_B]
    return Questions(timeline, timeline.offsets_B1[:-1][actor_B], stop_B, own, actor_ids)


def choices(asked: Questions, reading: Reading, *, folds: int, cut: bool = True) -> tuple[RankerCases, RankerCases]:
    """Name and describe the candidates of every question: as they were, and with the current session cut off.

    Without `cut` the second is the first.
    """
    at_B = asked.timeline.at_T[asked.stop_B]
    past = reading.ask(asked.timeline, asked.start_B, asked.stop_B, at_B, asked.actors)
    whole = _answered(asked, past, folds=folds, cut=False)
    return whole, _answered(asked, past, folds=folds, cut=True) if cut else whole


def _answered(asked: Questions, past: Asked, *, folds: int, cut: bool) -> RankerCases:
    parts, order = [], []
    for places, _, inputs in past.answers(np.arange(len(asked)), cut=cut):
        parts.append(_labelled(asked, places, inputs, folds))
        order.append(places)
    return join(parts).rows(np.argsort(np.concatenate(order)))


def _labelled(asked: Questions, rows: NDArray[np.int64], inputs: RankerInputs, folds: int) -> RankerCases:
    after = followed(asked.timeline, asked.stop_B[rows], inputs.code_BC)
    actors = [asked.actors[b] for b in rows]
    return RankerCases(
        inputs,
        after.chosen_BC,
        after.fraction_BC,
        after.thumb_BC,
        after.listed_BC,
        np.full(inputs.code_BC.shape, -1, dtype=np.int16),
        np.ones(inputs.code_BC.shape, dtype=np.float32),
        np.array([zlib.crc32(actor.encode()) for actor in actors], dtype=np.int64),
        folds_of(actors, folds),
    )


def folds_of(actors: Sequence[str], folds: int) -> NDArray[np.int8]:
    """Fold of each actor, 0 to `folds` - 1, or REPORT; the same for all their cases."""
    return np.array([zlib.crc32(actor.encode()) % (folds + 1) - 1 for actor in actors], dtype=np.int8)
