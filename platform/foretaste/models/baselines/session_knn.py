"""What was chosen in the sessions most like this one: V-SkNN, on the index of VMIS-kNN.

Ludewig and Jannach, UMUAI 2018; Kersbergen, Sprangers and Schelter (Serenade), SIGMOD 2022. Of Serenade's VMIS-kNN it
has the index (the newest sessions of each title), the newest sessions of all that match, linear weights of the places
of the question, the votes weighed by similarity and by rarity. It differs where validation said so: similarities are
divided by a power of the session's length (a cosine, as in V-SkNN) and rarity has a power; the match weight, by which
a session counts less the longer ago its newest shared title was, is left to VSTAN (`vstan.py`), whose decay it is.

Shapes: B histories, N titles, N1 = N + 1 catalogue codes, S sessions it was fitted on, newest first,
T interactions, P postings.
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

_ROWS_AT_ONCE = 128  # bounds the B x S block of similarities


class SessionKNNConfig(Frozen):
    """How neighbours are found and weighed."""

    kind: Literal["session_knn"] = "session_knn"
    query_length: int = Field(default=10, ge=1, description="newest interactions of the history that are compared")
    sample: int = Field(default=5000, ge=1, description="most recent sessions kept per title, and per question")
    neighbours: int = Field(default=100, ge=1, description="most similar sessions of the sample that vote")
    length_power: float = Field(
        default=0.5, ge=0, description="similarity is divided by (titles of the session) ** this"
    )
    rarity_power: float = Field(
        default=0.5, ge=0, description="votes are multiplied by log(S / sessions with the title) ** this"
    )
    seen_weight: float = Field(
        default=1.0, ge=0, description="votes for titles of the question itself are multiplied by this; 0: none"
    )
    popularity_weight: float = Field(
        default=1e-4, ge=0, description="weight of popularity beside the votes, which sum to about 1"
    )


class SessionKNN:
    """Nearest sessions by shared titles, newer titles of the history weighing more."""

    name = "session_knn"
    time_aware = False

    def __init__(
        self, titles_SN: Any, rarity_N: NDArray[np.float32], share_N: NDArray[np.float64], config: SessionKNNConfig
    ) -> None:
        self.config = config
        length_S = np.diff(titles_SN.indptr).astype(np.float64)
        self.postings_N1S = postings(titles_SN, np.maximum(length_S, 1) ** -config.length_power, config.sample)
        votes_SN = titles_SN.copy()
        votes_SN.data = rarity_N[votes_SN.indices]
        self.votes_SN = votes_SN
        self.prior_N = (config.popularity_weight * share_N / max(share_N.max(initial=0.0), 1e-12)).astype(np.float32)

    @classmethod
    def fit(
        cls,
        histories: Histories,
        catalogue: Catalogue,
        *,
        config: SessionKNNConfig | None = None,
        actions: Collection[str] | None = None,
    ) -> SessionKNN:
        """Index the sessions of `histories` by their known titles chosen (by `actions`, any when None)."""
        config = config or SessionKNNConfig()
        num_titles = len(catalogue)
        chosen_T = chosen(histories, actions)
        session_T, num_sessions = sessions_newest_first(histories)
        key = np.unique(session_T[chosen_T] * num_titles + histories.title_T[chosen_T] - 1)
        rows, columns = np.divmod(key, max(num_titles, 1))
        shape = (num_sessions, num_titles)
        titles_SN = sparse.csr_array((np.ones(len(key), dtype=np.float32), (rows, columns)), shape=shape)
        sessions_N = np.bincount(columns, minlength=num_titles)
        rarity_N = np.log(max(len(np.unique(rows)), 1) / np.maximum(sessions_N, 1)) ** config.rarity_power
        return cls(titles_SN, rarity_N.astype(np.float32), shares(histories.title_T[chosen_T], num_titles), config)

    def scores(self, histories: Histories, asof_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Score the catalogue: votes of the neighbours, with popularity behind; popularity where nothing matches."""
        query_BN1 = self._query(histories)
        scores_BN = np.tile(self.prior_N, (len(histories), 1))
        for first in range(0, len(histories), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            similar_BS = (query_BN1[rows] @ self.postings_N1S).tocsr()
            similar_BS.sort_indices()
            votes_BN = (self._nearest(similar_BS) @ self.votes_SN).toarray()
            if self.config.seen_weight != 1:
                place = query_BN1[rows].tocoo()
                known = place.col > 0
                votes_BN[place.row[known], place.col[known] - 1] *= np.float32(self.config.seen_weight)
            scores_BN[rows] += votes_BN
        return scores_BN

    def _query(self, histories: Histories) -> Any:
        """Weight of each title of each history: 1 for the newest, falling linearly, the newest of equals counts."""
        recent = histories.last(self.config.query_length)
        lengths_B = recent.lengths_B
        row_T = np.repeat(np.arange(len(recent)), lengths_B)
        place_T = np.arange(len(row_T)) - recent.offsets_B1[:-1][row_T]
        weight_T = ((place_T + 1) / lengths_B[row_T]).astype(np.float32)
        num_codes = self.postings_N1S.shape[0]
        key_T = row_T * num_codes + recent.title_T
        _, newest = np.unique(key_T[::-1], return_index=True)
        keep = len(key_T) - 1 - newest
        place = (row_T[keep], recent.title_T[keep])
        return sparse.csr_array((weight_T[keep], place), shape=(len(recent), num_codes))

    def _nearest(self, similar_BS: Any) -> Any:
        """Of each row keep the most recent `sample` sessions, of them the `neighbours` most similar; rows sum to 1."""
        sizes, columns, values = [], [], []
        for start, stop in zip(similar_BS.indptr[:-1], similar_BS.indptr[1:], strict=True):
            session = similar_BS.indices[start:stop][: self.config.sample]
            value = similar_BS.data[start:stop][: self.config.sample]
            best = np.argsort(-value, kind="stable")[: self.config.neighbours]
            sizes.append(len(best))
            columns.append(session[best])
            values.append(value[best] / max(value[best].sum(), np.float32(1e-12)))
        indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        none = [np.zeros(0, dtype=np.float32)]
        parts = (np.concatenate(values or none), np.concatenate(columns or none).astype(np.int64), indptr)
        return sparse.csr_array(parts, shape=similar_BS.shape)


def sessions_newest_first(histories: Histories) -> tuple[NDArray[np.int64], int]:
    """Number the sessions by the time of their last interaction, 0 the newest: int64[T] and their count."""
    size = len(histories.title_T)
    opens_T = np.zeros(size, dtype=np.bool_)
    opens_T[1:] = np.diff(histories.session_T) != 0
    starts = histories.offsets_B1[:-1]
    opens_T[starts[starts < size]] = True
    session_T = np.cumsum(opens_T) - 1
    last_S = np.append(np.flatnonzero(opens_T)[1:], size) - 1 if size else np.zeros(0, dtype=np.int64)
    order = np.argsort(-histories.at_T[last_S], kind="stable")
    rank_S = np.empty(len(order), dtype=np.int64)
    rank_S[order] = np.arange(len(order))
    return rank_S[session_T], len(order)


def postings(titles_SN: Any, weight_S: NDArray[np.float64], sample: int) -> Any:
    """Sessions of each title, the `sample` newest, with the weight of the session; row 0 (unknown) is empty."""
    by_title = titles_SN.tocsc()
    by_title.sort_indices()
    lengths_N = np.diff(by_title.indptr)
    place_P = np.arange(len(by_title.indices)) - np.repeat(by_title.indptr[:-1], lengths_N)
    keep_P = place_P < sample
    indptr = np.concatenate([[0, 0], np.cumsum(np.minimum(lengths_N, sample))])
    session_P = by_title.indices[keep_P]
    values = weight_S[session_P].astype(np.float32)
    return sparse.csr_array((values, session_P, indptr), shape=(titles_SN.shape[1] + 1, titles_SN.shape[0]))
