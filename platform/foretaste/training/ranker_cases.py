"""What the ranker learns from: choices that the intent model has not seen, among the candidates it would name.

A choice outside the candidates stays outside: adding it would teach that the worst score is the right one. Its case
counts all the same, for the probability (nothing here was chosen) and as a miss in every figure.

Shapes: B cases, C candidates, F features, N titles.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.events import ACTION_CODES, GUEST
from foretaste.contracts.histories import Histories
from foretaste.contracts.sessions import SessionRule
from foretaste.models.intent import IntentRecommender
from foretaste.ops.tables import read_prepared
from foretaste.signals.candidates import candidate_features
from foretaste.signals.histories import pack
from foretaste.signals.views import MemberView, TitleView
from foretaste.training.examples import COLUMNS, SPLIT_COLUMN, TEST, VALIDATION

CASES_AT_ONCE = 256
FOLDS = 5
LEARN, SELECT, REPORT = 0, 1, 2
"""Roles of actors: three of `FOLDS` to learn from, one to choose the epoch by, one for the figures."""


class SlowViews(Protocol):
    """Where slow views of the past come from: signals.store.FeatureStore."""

    def contract(self, service: str) -> dict[str, Any]:
        """What a model that reads a feature service depends on; filed with it."""
        ...

    def historical_members(self, ids: Sequence[str | None], at_B: NDArray[np.int64]) -> MemberView:
        """Read members as they were seen at instants of the past (microseconds)."""
        ...

    def historical_titles_of(
        self, catalogue: Catalogue, at_B: NDArray[np.int64]
    ) -> tuple[list[TitleView], NDArray[np.int64]]:
        """Read all titles as they were seen at instants of the past; the views, and the number of each instant's."""
        ...


@dataclass(frozen=True, slots=True)
class RankerCases:
    """B cases; the candidates stand in the order of the intent model, best first."""

    features_BCF: NDArray[np.float32]
    chosen_BC: NDArray[np.float32]  # 1 for the choice, where it is among the candidates
    real_BC: NDArray[np.bool_]  # False for padding
    role_B: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.role_B)

    def rows(self, index_B: NDArray[np.int64]) -> RankerCases:
        """Pick cases by their number."""
        return RankerCases(
            self.features_BCF[index_B], self.chosen_BC[index_B], self.real_BC[index_B], self.role_B[index_B]
        )


def join(parts: Sequence[RankerCases]) -> RankerCases:
    """Put cases after each other."""
    names = ("features_BCF", "chosen_BC", "real_BC", "role_B")
    features_BCF, chosen_BC, real_BC, role_B = (np.concatenate([getattr(p, name) for p in parts]) for name in names)
    return RankerCases(features_BCF, chosen_BC, real_BC, role_B)


@dataclass(frozen=True, slots=True)
class Questions:
    """B validation choices with their histories, not yet answered."""

    timeline: Histories
    start_B: NDArray[np.int64]
    stop_B: NDArray[np.int64]  # of the history; the choice stands here
    actors: list[str]

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
    return Questions(timeline, timeline.offsets_B1[:-1][actor_B], stop_B, [actor_ids[a] for a in actor_B])


def answer(
    asked: Questions,
    model: IntentRecommender,
    known: Catalogue,
    views: SlowViews,
    *,
    num_candidates: int,
    repeats: bool,
    rule: SessionRule,
) -> RankerCases:
    """Name the candidates of every question with the intent model and compute their features.

    Where titles are not chosen again (`repeats` false), those of the history are no candidates.
    """
    at_B = asked.timeline.at_T[asked.stop_B]
    ids = [None if actor.startswith(GUEST) else actor for actor in asked.actors]
    members = views.historical_members(ids, at_B)
    titles_D, day_B = views.historical_titles_of(known, at_B)
    size = min(num_candidates, len(known))
    parts, order = [], []
    for day, titles in enumerate(titles_D):
        of_day = np.flatnonzero(day_B == day)
        for first in range(0, len(of_day), CASES_AT_ONCE):
            rows = of_day[first : first + CASES_AT_ONCE]
            histories = asked.timeline.take(asked.start_B[rows], asked.stop_B[rows])
            target_B = asked.timeline.title_T[asked.stop_B[rows]]
            member_rows = members.rows(rows)
            parts.append(
                _cases(histories, at_B[rows], target_B, model, known, member_rows, titles, size, repeats, rule)
            )
            order.append(rows)
    roles_B = np.array([_role(actor) for actor in asked.actors], dtype=np.int8)
    done, rows = join(parts), np.concatenate(order)
    return RankerCases(done.features_BCF, done.chosen_BC, done.real_BC, roles_B[rows]).rows(np.argsort(rows))


def _cases(
    histories: Histories, at_B: NDArray[np.int64], target_B: NDArray[np.int32], model: IntentRecommender,
    known: Catalogue, members: MemberView, titles: TitleView, size: int, repeats: bool,
    rule: SessionRule,
) -> RankerCases:  # fmt: skip
    predicted = model.predict(histories, at_B)
    candidates_BC = best_unseen(predicted.scores_BN, histories, size, repeats=repeats)
    features_BCF = candidate_features(
        histories, at_B, candidates_BC, predicted.scores_BN, predicted.intents, known, members, titles, rule=rule,
        labels=predicted.labels, classes=predicted.classes,
    )  # fmt: skip
    chosen_BC = (candidates_BC == target_B[:, None]).astype(np.float32)
    return RankerCases(features_BCF, chosen_BC, candidates_BC > 0, np.zeros(len(histories), dtype=np.int8))


def best_unseen(scores_BN: NDArray[np.float32], histories: Histories, size: int, *, repeats: bool) -> NDArray[np.int32]:
    """Catalogue codes of the best `size` titles, best first, without those seen unless `repeats`; 0 fills up."""
    open_BN = scores_BN.copy()
    if not repeats:
        row_T = np.repeat(np.arange(len(histories)), histories.lengths_B)
        known_T = histories.title_T > 0
        open_BN[row_T[known_T], histories.title_T[known_T] - 1] = -np.inf
    order_BC = np.argsort(-open_BN, axis=1, kind="stable")[:, :size]
    real_BC = np.isfinite(np.take_along_axis(open_BN, order_BC, axis=1))
    codes_BC: NDArray[np.int32] = np.where(real_BC, order_BC + 1, 0).astype(np.int32)
    return codes_BC


def _role(actor: str) -> int:
    fold = zlib.crc32(actor.encode()) % FOLDS
    return (REPORT, SELECT)[fold] if fold < 2 else LEARN
