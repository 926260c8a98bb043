"""Stand-ins of what the request path is made of, small enough to compute by hand.

Shapes: B histories, N titles (column j is catalogue code j + 1), C candidates, F features, G genres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import Intent
from foretaste.models.intent import IntentPrediction
from foretaste.models.ranker_inputs import RankerInputs
from foretaste.signals.views import MemberView, TitleView, Vocabulary
from foretaste.testing.builders import titles_table

FAKE_ACTIONS = ("discover", "continue_series", "return_after_gap")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MIDNIGHT = datetime(2026, 1, 2, tzinfo=UTC)


class FakeClock:
    """A clock that stands until it is moved; also a timer, in seconds, of its own."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now
        self.seconds = 0.0

    def __call__(self) -> datetime:
        """Tell the time."""
        return self.now

    def move(self, **by: float) -> None:
        """Move on, e.g. minutes=5."""
        self.now += timedelta(**by)

    def timer(self) -> float:
        """Tell the timer's seconds."""
        return self.seconds


def two_genre_titles(count: int = 40) -> pa.Table:
    """Titles t00, t01, ...: even ones are comedies, odd ones dramas, every fifth is a show."""
    return titles_table(
        [
            {
                "title_id": f"t{number:02d}",
                "name": f"Title {number}",
                "kind": "movie" if number % 5 else "show",
                "genres": ["drama" if number % 2 else "comedy"],
            }
            for number in range(count)
        ]
    )


class FakeIntent:
    """Expects the genres of the newest three titles again; within a genre, titles by their code.

    With `failure` set it raises that, with `spoiled` its scores are NaN.
    """

    steady = False

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.failure: Exception | None = None
        self.spoiled = False
        self.num_asked = 0

    def predict(self, histories: Histories, asof_B: NDArray[np.int64]) -> IntentPrediction:
        """Predict B members."""
        self.num_asked += 1
        if self.failure is not None:
            raise self.failure
        share_BG = np.stack([self._genres(histories, b) for b in range(len(histories))]).astype(np.float32)
        action_BC = np.tile(np.array([0.5, 0.3, 0.2], dtype=np.float32), (len(histories), 1))
        likes_BN = share_BG @ self.catalogue.genres_N1G[1:].T - 1e-4 * np.arange(len(self.catalogue))
        scores_BN = likes_BN - np.log(np.exp(likes_BN).sum(axis=1, keepdims=True))
        heads = (Intent.ACTION.value, Intent.GENRE.value)
        return IntentPrediction(
            scores_BN=np.full_like(scores_BN, np.nan, dtype=np.float32)
            if self.spoiled
            else scores_BN.astype(np.float32),
            intents={Intent.ACTION.value: action_BC, Intent.GENRE.value: share_BG},
            classes={Intent.ACTION.value: FAKE_ACTIONS, Intent.GENRE.value: self.catalogue.genres},
            attention_BI=np.tile(np.array([0.25, 0.75], dtype=np.float32), (len(histories), 1)),
            heads=heads,
            z_BD=share_BG,
            item_BD=share_BG,
        )

    @property
    def title_N1D(self) -> NDArray[np.float32]:
        """Title vectors: their genres."""
        return self.catalogue.genres_N1G

    def _genres(self, histories: Histories, b: int) -> NDArray[np.float32]:
        title_T = histories.title_T[histories.offsets_B1[b] : histories.offsets_B1[b + 1]][-3:]
        seen_G = self.catalogue.genres_N1G[title_T].sum(axis=0) * 3 + 1.0
        share_G: NDArray[np.float32] = seen_G / seen_G.sum()
        return share_G


class FakeRanker:
    """Prefers the candidates in the reverse of the pool's order, so that its work can be told from the pool's."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.last: RankerInputs | None = None
        self.recent = 5

    def scores(self, inputs: RankerInputs) -> NDArray[np.float64]:
        """Score the candidates of B requests."""
        if self.failure is not None:
            raise self.failure
        self.last = inputs
        size = inputs.code_BC.shape[1]
        return np.tile((1.0 + np.arange(size)) / (1.0 + size), (len(inputs), 1))


class FakeViews:
    """Slow views of midnight before `NOW`: title t(N-1) was played most, members liked every genre alike."""

    generation = "made by hand"

    def __init__(self, catalogue: Catalogue, asof: datetime = MIDNIGHT) -> None:
        self.asof_ms = int(asof.timestamp() * 1000)
        self.failure: Exception | None = None
        self.mismatch: str | None = None
        self.forgotten: list[str] = []
        self._catalogue = catalogue

    def check(self, catalogue: Catalogue, contract: Mapping[str, Any] | None = None) -> None:
        """Raise ValueError where told to."""
        if self.mismatch is not None:
            raise ValueError(self.mismatch)

    def members(self, ids: Sequence[str | None], at: int) -> MemberView:
        """Members with plain values; guests and ids that begin with «new» are absent."""
        if self.failure is not None:
            raise self.failure
        genres = self._catalogue.genres
        view = Vocabulary(genres, self._catalogue.kinds).absent(len(ids))
        for number, member_id in enumerate(ids):
            if member_id is not None and not member_id.startswith("new"):
                view.genre_affinity_BG[number] = 1.0 / max(1, len(genres))
                view.count_7d_B[number] = 3
                view.asof_ms_B[number] = self.asof_ms
        return view

    def titles(self, catalogue: Catalogue, at: int) -> TitleView:
        """Titles whose plays are their code."""
        if self.failure is not None:
            raise self.failure
        view = TitleView.absent(catalogue)
        for times, array in enumerate((view.plays_1d, view.plays_7d, view.plays_30d, view.plays_all)):
            array += times * np.arange(len(array))
        view.completion_rate[:] = 0.5
        view.asof_ms[:] = self.asof_ms
        return view

    def forget(self, member_id: str) -> int:
        """Take note of who was to be forgotten."""
        if self.failure is not None:
            raise self.failure
        self.forgotten.append(member_id)
        return 1
