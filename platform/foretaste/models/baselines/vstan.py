"""What followed in the sessions most like this one, near in time and near to what is shared: VSTAN.

Garg et al., STAN, SIGIR 2019; Ludewig et al., UMUAI 2021, who add the match decay and the rarity of V-SkNN.

Shapes: B histories, N titles, S sessions it was fitted on, newest first, T interactions, P (session, title) pairs,
Q titles of all questions, E their postings, X (question, neighbour) pairs, Y titles of those neighbours.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.config import Frozen
from foretaste.contracts.histories import Histories
from foretaste.models.baselines.choices import chosen, shares
from foretaste.models.baselines.popularity import DAY_US
from foretaste.models.baselines.session_knn import postings, sessions_newest_first

_ROWS_AT_ONCE = 32  # bounds the titles of all neighbours of a block
_CELLS_AT_ONCE = 8_000_000  # bounds the B x S block of pairs
_FAR = 14.0  # decays after which a title of a neighbour does not count: less than a millionth of its nearest


class VSTANConfig(Frozen):
    """How neighbours are found and weighed; every decay is exp(-distance / this).

    The defaults were drawn and chosen on validation rows of MovieLens-1M under the time split, never on test rows.
    """

    kind: Literal["vstan"] = "vstan"
    query_length: int = Field(default=5, ge=1, description="newest interactions of the history that are compared")
    sample: int = Field(default=5000, ge=1, description="most recent sessions kept per title, and per question")
    neighbours: int = Field(default=1500, ge=1, description="most similar sessions of the sample that vote")
    question_decay: float = Field(
        default=16.0, gt=0, description="interactions back in the question by which a shared title loses weight"
    )
    age_days: float | None = Field(
        default=320.0,
        gt=0,
        description="days between the question and a session by which it loses weight; null: its age does not count, "
        "and the time of the question is not read",
    )
    neighbour_decay: float | None = Field(
        default=4.0, gt=0, description="places in the session from the last shared title; null: all titles alike"
    )
    match_decay: float | None = Field(
        default=4.0, gt=0, description="interactions back to the newest shared title by which a session loses weight"
    )
    rarity_weight: float = Field(
        default=0.0, ge=0, description="votes are multiplied by 1 + this * log(S / sessions with the title)"
    )
    seen_weight: float = Field(
        default=1.0, ge=0, description="votes for titles of the question itself are multiplied by this; 0: none"
    )
    popularity_weight: float = Field(
        default=1e-4, ge=0, description="weight of popularity beside the votes, whose weights sum to 1"
    )


class VSTAN:
    """Nearest sessions by shared titles, with decays of place and of time."""

    name = "vstan"

    def __init__(
        self,
        titles_SN: Any,
        at_S: NDArray[np.int64],
        rarity_N: NDArray[np.float64],
        share_N: NDArray[np.float64],
        config: VSTANConfig,
    ) -> None:
        """`titles_SN` (CSR) holds, for each title of a session, its last place there, from 1."""
        self.config = config
        length_S = np.diff(titles_SN.indptr)
        self.postings_N1S = postings(titles_SN, np.maximum(length_S, 1) ** -0.5, config.sample)
        self.by_title_SN = titles_SN.tocsc()
        self.by_title_SN.sort_indices()
        session_P = np.repeat(np.arange(len(length_S)), length_S)
        order_P = np.lexsort((titles_SN.data, session_P))
        self.indptr_S1 = titles_SN.indptr
        self.title_P, self.place_P = titles_SN.indices[order_P], titles_SN.data[order_P].astype(np.int64)
        self.reach = 0 if config.neighbour_decay is None else int(np.ceil(_FAR * config.neighbour_decay))
        self.stride = int(self.place_P.max(initial=0)) + 2 * self.reach + 2  # keeps sessions apart in the keys
        self.key_P = session_P * self.stride + self.place_P
        self.at_S = at_S
        self.vote_N = 1.0 + config.rarity_weight * rarity_N
        self.prior_N = (config.popularity_weight * share_N / max(share_N.max(initial=0.0), 1e-12)).astype(np.float32)

    @property
    def time_aware(self) -> bool:
        """Whether the time of the question is read."""
        return self.config.age_days is not None

    @classmethod
    def fit(
        cls,
        histories: Histories,
        catalogue: Catalogue,
        *,
        config: VSTANConfig | None = None,
        actions: Collection[str] | None = None,
    ) -> VSTAN:
        """Index the sessions of `histories` by their known titles chosen (by `actions`, any when None)."""
        config = config or VSTANConfig()
        num_titles = len(catalogue)
        chosen_T = chosen(histories, actions)
        session_T, num_sessions = sessions_newest_first(histories)
        at_S = np.zeros(num_sessions, dtype=np.int64)
        at_S[session_T] = histories.at_T  # the last of a session stays
        session_C, title_C = session_T[chosen_T], histories.title_T[chosen_T].astype(np.int64) - 1
        place_C = _places(session_C)
        key_C = session_C * max(num_titles, 1) + title_C
        key_P, last_P = np.unique(key_C[::-1], return_index=True)
        rows, columns = np.divmod(key_P, max(num_titles, 1))
        place_P = place_C[::-1][last_P].astype(np.float64)
        titles_SN = sparse.csr_array((place_P, (rows, columns)), shape=(num_sessions, num_titles))
        sessions_N = np.bincount(columns, minlength=num_titles)
        rarity_N = np.log(max(len(np.unique(rows)), 1) / np.maximum(sessions_N, 1))
        return cls(titles_SN, at_S, rarity_N, shares(histories.title_T[chosen_T], num_titles), config)

    def scores(self, histories: Histories, asof_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Score the catalogue: votes of the neighbours, with popularity behind; popularity where nothing matches."""
        scores_BN = np.tile(self.prior_N, (len(histories), 1))
        size = max(1, min(_ROWS_AT_ONCE, _CELLS_AT_ONCE // max(len(self.at_S), 1)))
        for first in range(0, len(histories), size):
            rows = slice(first, first + size)
            block = histories.rows(np.arange(first, min(first + size, len(histories))))
            scores_BN[rows] += self._votes(block, asof_B[rows]).astype(np.float32)
        return scores_BN

    def _votes(self, histories: Histories, asof_B: NDArray[np.int64]) -> NDArray[np.float64]:
        shape = (len(histories), len(self.prior_N))
        back_BN1 = self._steps_back(histories)
        weight_BN1 = np.exp(-back_BN1 / self.config.question_decay)
        similar_BS = (sparse.csr_array(weight_BN1.astype(np.float32)) @ self.postings_N1S).tocsr()
        similar_BS.sort_indices()
        row_X, session_X, weight_X = self._nearest(similar_BS, asof_B)
        if not len(row_X):
            return np.zeros(shape)
        shared_X, back_X = self._newest_shared(back_BN1, row_X, session_X)
        if self.config.match_decay is not None:
            weight_X = weight_X * np.exp(-back_X / self.config.match_decay)
        weight_X = weight_X / np.bincount(row_X, weight_X, minlength=len(histories))[row_X]
        pair_Y, index_Y = self._near(session_X, shared_X)
        title_Y = self.title_P[index_Y]
        vote_Y = weight_X[pair_Y] * self.vote_N[title_Y]
        if self.config.neighbour_decay is not None:
            decay = np.exp(-np.arange(self.reach + 1) / self.config.neighbour_decay)
            vote_Y *= decay[np.abs(self.place_P[index_Y] - shared_X[pair_Y])]
        cell_Y = row_X[pair_Y] * shape[1] + title_Y
        votes_BN = np.bincount(cell_Y, vote_Y, minlength=shape[0] * shape[1]).reshape(shape)
        return np.where(np.isfinite(back_BN1[:, 1:]), self.config.seen_weight, 1.0) * votes_BN

    def _near(
        self, session_X: NDArray[np.int64], shared_X: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Titles of each neighbour that are near enough to the shared one to count: its pair, and index into P."""
        first_X, last_X = self.indptr_S1[session_X], self.indptr_S1[session_X + 1]
        if self.config.neighbour_decay is not None:
            key_X = session_X * self.stride + shared_X
            first_X = np.searchsorted(self.key_P, key_X - self.reach, side="left")
            last_X = np.searchsorted(self.key_P, key_X + self.reach, side="right")
        length_X = (last_X - first_X).astype(np.int64)
        pair_Y = np.repeat(np.arange(len(session_X)), length_X)
        return pair_Y, np.arange(len(pair_Y)) - np.repeat(np.cumsum(length_X) - length_X - first_X, length_X)

    def _newest_shared(
        self, back_BN1: NDArray[np.float64], row_X: NDArray[np.int64], session_X: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Of each pair: the last place in the session of a shared title, and how long ago one was in the question."""
        pair_BS = np.full((len(back_BN1), len(self.at_S)), -1, dtype=np.int32)
        pair_BS[row_X, session_X] = np.arange(len(row_X))
        row_Q, code_Q = np.nonzero(np.isfinite(back_BN1))
        first_Q, last_Q = self.by_title_SN.indptr[code_Q - 1], self.by_title_SN.indptr[code_Q]
        length_Q = (last_Q - first_Q).astype(np.int64)
        entry_E = np.repeat(np.arange(len(code_Q)), length_Q)
        index_E = np.arange(len(entry_E)) - np.repeat(np.cumsum(length_Q) - length_Q - first_Q, length_Q)
        pair_E = pair_BS[row_Q[entry_E], self.by_title_SN.indices[index_E]]
        kept_E = pair_E >= 0
        pair_E, entry_E, index_E = pair_E[kept_E], entry_E[kept_E], index_E[kept_E]
        shared_X = np.zeros(len(row_X), dtype=np.int64)
        np.maximum.at(shared_X, pair_E, self.by_title_SN.data[index_E].astype(np.int64))
        back_X = np.full(len(row_X), np.inf)
        np.minimum.at(back_X, pair_E, back_BN1[row_Q[entry_E], code_Q[entry_E]])
        return shared_X, back_X

    def _steps_back(self, histories: Histories) -> NDArray[np.float64]:
        """How many interactions ago each title of the question was; float64[B, N1], infinite for all others."""
        recent = histories.last(self.config.query_length)
        row_Q = np.repeat(np.arange(len(recent)), recent.lengths_B)
        back_Q = recent.offsets_B1[1:][row_Q] - 1 - np.arange(len(row_Q))
        back_BN1 = np.full((len(recent), len(self.prior_N) + 1), np.inf)
        np.minimum.at(back_BN1, (row_Q, recent.title_T), back_Q.astype(np.float64))
        back_BN1[:, 0] = np.inf
        return back_BN1

    def _nearest(
        self, similar_BS: Any, asof_B: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Of each row the most recent `sample` sessions, of them the `neighbours` nearest: row, session, similarity."""
        rows, sessions, values = [], [], []
        for row, (start, stop) in enumerate(zip(similar_BS.indptr[:-1], similar_BS.indptr[1:], strict=True)):
            session = similar_BS.indices[start:stop][: self.config.sample].astype(np.int64)
            value = similar_BS.data[start:stop][: self.config.sample].astype(np.float64)
            if self.config.age_days is not None and len(session):
                age = np.abs(asof_B[row] - self.at_S[session])  # leave-one-out has sessions after the question
                value = value * np.exp((age.min() - age) / (self.config.age_days * DAY_US))
            best = np.argsort(-value, kind="stable")[: self.config.neighbours]
            rows.append(np.full(len(best), row, dtype=np.int64))
            sessions.append(session[best])
            values.append(value[best])
        none = np.zeros(0, dtype=np.int64)
        return np.concatenate([none, *rows]), np.concatenate([none, *sessions]), np.concatenate([none * 1.0, *values])


def _places(session_C: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each row within its session, from 1; rows of a session stand together."""
    place_C = np.arange(len(session_C))
    opens_C = np.diff(session_C, prepend=-1) != 0
    return place_C - np.maximum.accumulate(np.where(opens_C, place_C, 0)) + 1
