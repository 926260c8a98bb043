"""What the ranker would have read of requests of the past, point in time: for training and for evaluation.

Shapes: B requests, C candidates each, P titles shown, N titles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.events import GUEST
from foretaste.contracts.histories import Histories
from foretaste.contracts.sessions import SessionRule
from foretaste.models.intent import IntentPrediction
from foretaste.models.ranker_inputs import RankerInputs
from foretaste.signals.past_acts import PastActs
from foretaste.signals.ranking import ranker_inputs
from foretaste.signals.session import current_session
from foretaste.signals.views import MemberView, TitleView

REQUESTS_AT_ONCE = 256


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


class Predictor(Protocol):
    """The intent model, models.intent.IntentRecommender."""

    def predict(self, histories: Histories, asof_B: NDArray[np.int64]) -> IntentPrediction:
        """Predict what B members are about to do."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """What requests of the past are answered with."""

    model: Predictor
    catalogue: Catalogue
    views: SlowViews
    acts: PastActs
    rule: SessionRule
    repeats: bool  # whether members choose a title again; if not, titles of the history are no candidates
    num_candidates: int
    length: int  # newest interactions that candidates attend to

    def ask(
        self,
        timeline: Histories,
        start_B: NDArray[np.int64],
        stop_B: NDArray[np.int64],
        at_B: NDArray[np.int64],
        actors: Sequence[str],
    ) -> Asked:
        """Read the slow views of B requests; request b sees `timeline[start_B[b]:stop_B[b]]` as of `at_B[b]`."""
        ids = [None if actor.startswith(GUEST) else actor for actor in actors]
        since_B = self.acts.since(actors, at_B)
        start_B = np.array(
            [start + np.searchsorted(timeline.at_T[start:stop], since)
             for start, stop, since in zip(start_B.tolist(), stop_B.tolist(), since_B.tolist(), strict=True)],
            dtype=np.int64,
        )  # fmt: skip
        titles_D, day_B = self.views.historical_titles_of(self.catalogue, at_B)
        members = self.views.historical_members(ids, at_B)
        return Asked(self, timeline, start_B, stop_B, at_B, list(actors), members, titles_D, day_B)


@dataclass(frozen=True, slots=True)
class Asked:
    """B requests of the past with their slow views."""

    reading: Reading
    timeline: Histories
    start_B: NDArray[np.int64]
    stop_B: NDArray[np.int64]
    at_B: NDArray[np.int64]
    actors: list[str]
    members: MemberView
    titles_D: list[TitleView]
    day_B: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.stop_B)

    def answers(
        self,
        rows: NDArray[np.int64],
        *,
        cut: bool = False,
        shown_BP: NDArray[np.int32] | None = None,
    ) -> Iterator[tuple[NDArray[np.int64], IntentPrediction, RankerInputs]]:
        """Answer some requests, part by part: places in `rows`, what the intent model says, what the ranker reads.

        Candidates are the intent model's best. With `cut` nothing of the session that is going on is known. Where
        `shown_BP` are titles that were shown (catalogue codes, one row for each of `rows`), only those are described,
        as they would be in a pool together with the candidates.
        """
        for day, titles in enumerate(self.titles_D):
            of_day = np.flatnonzero(self.day_B[rows] == day)
            for first in range(0, len(of_day), REQUESTS_AT_ONCE):
                places = of_day[first : first + REQUESTS_AT_ONCE]
                shown = None if shown_BP is None else shown_BP[places]
                yield places, *self._answer(rows[places], titles, cut=cut, shown_BP=shown)

    def _answer(
        self, rows: NDArray[np.int64], titles: TitleView, *, cut: bool, shown_BP: NDArray[np.int32] | None
    ) -> tuple[IntentPrediction, RankerInputs]:
        of, at_B = self.reading, self.at_B[rows]
        histories = self.timeline.take(self.start_B[rows], self.stop_B[rows])
        if cut:
            histories = histories.take(histories.offsets_B1[:-1], current_session(histories, at_B, rule=of.rule))
        prediction = of.model.predict(histories, at_B)
        codes_BC = best_unseen(prediction.scores_BN, histories, of.num_candidates, repeats=of.repeats)
        if shown_BP is not None:
            among_BC = (codes_BC[:, :, None] == shown_BP[:, None, :]).any(axis=2)
            codes_BC = np.concatenate([shown_BP, np.where(among_BC, 0, codes_BC)], axis=1)
        inputs = ranker_inputs(
            histories, at_B, codes_BC, prediction, of.acts.signals([self.actors[b] for b in rows], at_B, cut=cut),
            of.catalogue, self.members.rows(rows), titles, length=of.length, rule=of.rule,
        )  # fmt: skip
        if shown_BP is not None:
            inputs = inputs.candidates(np.tile(np.arange(shown_BP.shape[1]), (len(rows), 1)))
        return prediction, inputs


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
