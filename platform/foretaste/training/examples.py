"""Prepared interactions as packed examples: read in parts, so that workers share them out and none is cut.

Shapes: B histories, T interactions of all of them together, N1 catalogue codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.events import ACTION_CODES
from foretaste.contracts.histories import Histories, concatenate
from foretaste.contracts.intents import Intent, LabelConfig, specifications
from foretaste.ops.tables import prepared_buckets, read_prepared
from foretaste.sessions.label import Labels, intent_labels, queries_of
from foretaste.signals.histories import pack

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLIT_COLUMN = {"time": "split_time", "last": "split_last"}


class Part(NamedTuple):
    """One share of the actors of one bucket; an actor is in one part whole."""

    prepared: str
    bucket: str
    number: int
    of: int


@dataclass(frozen=True, slots=True)
class Examples:
    """Histories with what is to be predicted of them; rows after the validation window are left out."""

    histories: Histories
    train_T: NDArray[np.bool_]  # a choice to learn from
    validation_T: NDArray[np.bool_]  # a choice to validate with
    newest_T: NDArray[np.bool_]  # rows that training may see: a prefix of each history
    labels: dict[str, NDArray[np.int32]]  # [T] of each single-label intent: code of its class, -1 without

    def rows(self, index_B: NDArray[np.int64]) -> Examples:
        """Pick whole histories by their number."""
        offsets_B1 = self.histories.offsets_B1
        length_B = self.histories.lengths_B[index_B]
        ends = np.cumsum(length_B)
        index_T = np.arange(int(length_B.sum())) + np.repeat(offsets_B1[index_B] - ends + length_B, length_B)
        labels = {name: label_T[index_T] for name, label_T in self.labels.items()}
        train_T, validation_T, newest_T = (a[index_T] for a in (self.train_T, self.validation_T, self.newest_T))
        return Examples(self.histories.rows(index_B), train_T, validation_T, newest_T, labels)


def together(parts: list[Examples]) -> Examples:
    """Put the histories of several parts after each other."""
    names = ("train_T", "validation_T", "newest_T")
    train_T, validation_T, newest_T = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
    labels = {name: np.concatenate([part.labels[name] for part in parts]) for name in parts[0].labels}
    return Examples(concatenate([part.histories for part in parts]), train_T, validation_T, newest_T, labels)


def parts(prepared: Path, at_least: int) -> list[Part]:
    """List the interactions of a prepared folder in at least `at_least` parts.

    Raises FileNotFoundError where nothing was prepared.
    """
    buckets = prepared_buckets(prepared)
    of = -(-at_least // len(buckets))
    return [Part(str(prepared), bucket, number, of) for bucket in buckets for number in range(of)]


COLUMNS = [
    "actor_id", "session_index", "position", "at", "title_id", "action", "dwell_seconds", "played_fraction", "entry",
    "query",
]  # fmt: skip


def read_part(
    part: Part,
    catalogue: Catalogue,
    *,
    split: str,
    refit: bool,
    target_actions: frozenset[str],
    labels: LabelConfig | None = None,
) -> Examples:
    """Read one part and mark what is learned from and what is validated with.

    A choice is an interaction whose action is in `target_actions` with a title of the catalogue. With `refit`
    validation rows are learned from too and nothing is validated with. `labels` says what the intents are.
    """
    labels = labels or LabelConfig().following(target_actions)
    column = SPLIT_COLUMN[split]
    table = read_prepared(Path(part.prepared), "interactions", columns=[*COLUMNS, column], bucket=part.bucket)
    if part.of > 1:
        actors = table["actor_id"].combine_chunks().dictionary_encode().indices
        table = table.filter(pa.array(np.asarray(actors) % part.of == part.number))
    table = table.filter(pc.not_equal(table[column], TEST))
    if table.num_rows == 0:
        return _none(labels, catalogue)
    histories, _ = pack(table, catalogue)
    train_T = np.asarray(pc.equal(table[column], TRAIN).combine_chunks(), dtype=np.bool_)
    wanted = np.array([ACTION_CODES[action] for action in sorted(target_actions)], dtype=np.int32)
    choice_T = np.isin(histories.action_T, wanted) & (histories.title_T > 0)
    seen_T = np.ones_like(train_T) if refit else train_T
    return Examples(
        histories=histories,
        train_T=choice_T & seen_T,
        validation_T=choice_T & ~seen_T,
        newest_T=seen_T,
        labels=_single(intent_labels(histories, catalogue, labels, queries_of(table))),
    )


def _single(labels: Labels) -> dict[str, NDArray[np.int32]]:
    return {name: label_T.astype(np.int32) for name, label_T in labels.items() if label_T.ndim == 1}


def _none(labels: LabelConfig, catalogue: Catalogue) -> Examples:
    ints = np.zeros(0, dtype=np.int32)
    floats = np.zeros(0, dtype=np.float32)
    none = Histories(np.zeros(1, dtype=np.int64), ints, ints, ints.astype(np.int64), ints, floats, floats)
    off = np.zeros(0, dtype=np.bool_)
    names = (spec.name.value for spec in specifications(labels, catalogue) if spec.kind == "single")
    return Examples(none, off, off, off, dict.fromkeys(names, ints))


@dataclass(frozen=True, slots=True)
class Census:
    """What the examples of one part or of all hold."""

    histories: int
    interactions: int
    train: int  # choices to learn from
    validation: int
    chosen_N1: NDArray[np.int64]  # times each title is a choice to learn from
    classes: dict[str, NDArray[np.int64]]  # times each class of a head stands among them
    newest_us: int  # of what is learned from

    def __add__(self, other: Census) -> Census:
        """Count two parts together."""
        return Census(
            self.histories + other.histories,
            self.interactions + other.interactions,
            self.train + other.train,
            self.validation + other.validation,
            self.chosen_N1 + other.chosen_N1,
            {head: counts + other.classes[head] for head, counts in self.classes.items()},
            max(self.newest_us, other.newest_us),
        )


def census(examples: Examples, catalogue: Catalogue, labels: LabelConfig | None = None) -> Census:
    """Count what is to be learned, by the classes of the intents that `labels` declares."""
    titles = examples.histories.title_T[examples.train_T]
    chosen_N1 = np.bincount(titles, minlength=len(catalogue) + 1)
    seen_at = examples.histories.at_T[examples.newest_T]
    single = {name: label_T[examples.train_T] for name, label_T in examples.labels.items()}
    classes = {
        spec.name.value: np.bincount(one[one >= 0], minlength=len(spec.classes)).astype(np.int64)
        for spec in specifications(labels or LabelConfig(), catalogue)
        if (one := single.get(spec.name.value)) is not None
    }

    return Census(
        histories=len(examples.histories),
        interactions=len(examples.histories.title_T),
        train=len(titles),
        validation=int(examples.validation_T.sum()),
        chosen_N1=chosen_N1.astype(np.int64),
        classes=classes | {Intent.GENRE.value: (chosen_N1 @ catalogue.genres_N1G).astype(np.int64)},
        newest_us=int(seen_at.max(initial=0)),
    )
