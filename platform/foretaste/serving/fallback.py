"""The lists for when the intent model gives no scores: the most similar sessions, else what is popular.

Shapes: N titles (column j is catalogue code j + 1), N1 rows by catalogue code, G genres.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.decisions import Level
from foretaste.contracts.histories import Histories
from foretaste.contracts.sessions import SessionRule
from foretaste.serving.budget import Guard, LateError
from foretaste.serving.models import Neighbours
from foretaste.signals.session import current_session
from foretaste.signals.views import TitleView

NUM_GENRES = 2

_log = logging.getLogger(__name__)


def popularity(titles: TitleView, catalogue: Catalogue) -> NDArray[np.float32]:
    """Rank all titles by plays of the last 7 days, then of all time, then release; 1 for the first down to above 0.

    Equal ones keep the order of the catalogue. Where no plays are known the newest come first. Returns float32[N].
    """
    keys = (catalogue.released_N1[1:], titles.plays_all[1:], titles.plays_7d[1:])
    order_N = np.lexsort([np.arange(len(catalogue)), *(-key.astype(np.float64) for key in keys)])
    scores_N = np.empty(len(catalogue), dtype=np.float32)
    scores_N[order_N] = 1.0 - np.arange(len(catalogue)) / max(1, len(catalogue))
    return scores_N


def without_intent(
    history: Histories,
    asof_B: NDArray[np.int64],
    *,
    neighbours: Neighbours | None,
    guard: Guard,
    elapsed_ms: float,
    titles: TitleView,
    catalogue: Catalogue,
    shares: Sequence[NDArray[np.float32] | None],
) -> tuple[Level, NDArray[np.float32]]:
    """Score the catalogue for one history by what there is: the level, and float32[N].

    `shares` are float32[G] of what is wanted, what counts most first: the first that prefers a genre is followed.
    """
    near_N = None if neighbours is None else _near(history, asof_B, neighbours, guard, elapsed_ms)
    if near_N is not None:
        return Level.SESSION_KNN, near_N
    popular_N = popularity(titles, catalogue)
    for share_G in shares:
        genres = preferred(share_G)
        if len(genres):
            return Level.POPULAR_IN_GENRES, popular_N + (catalogue.genres_N1G[1:, genres] > 0).any(axis=1)
    return Level.POPULAR, popular_N


def nearest(history: Histories, asof_B: NDArray[np.int64], neighbours: Neighbours) -> NDArray[np.float32] | None:
    """Score the catalogue by the sessions most like one history, float32[N]; None where there is none like it."""
    if not (history.title_T > 0).any():
        return None
    scores_N: NDArray[np.float32] = neighbours.scores(history, asof_B)[0]
    if not np.isfinite(scores_N).all():
        raise ValueError("scores of the nearest sessions are not finite")
    return scores_N if (scores_N != neighbours.prior_N).any() else None


def preferred(share_G: NDArray[np.float32] | None) -> NDArray[np.int64]:
    """Give up to two genres of more than an even share, the largest first."""
    if share_G is None or len(share_G) == 0 or not np.isfinite(share_G).all():
        return np.zeros(0, dtype=np.int64)
    best = np.argsort(-share_G, kind="stable")[:NUM_GENRES]
    return best[share_G[best] > 1.0 / len(share_G)]


def session_genres(
    history: Histories, asof_B: NDArray[np.int64], catalogue: Catalogue, rule: SessionRule
) -> NDArray[np.float32] | None:
    """Share of each genre in the session that is going on, float32[G]; None where none is, or of no known title."""
    first = int(current_session(history, asof_B, rule=rule)[0])
    sum_G = catalogue.genres_N1G[history.title_T[first:]].sum(axis=0)
    total = float(sum_G.sum())
    return (sum_G / total).astype(np.float32) if total else None


def _near(
    history: Histories, asof_B: NDArray[np.int64], neighbours: Neighbours, guard: Guard, elapsed_ms: float
) -> NDArray[np.float32] | None:
    try:
        return guard.run(elapsed_ms, lambda: nearest(history, asof_B, neighbours))
    except LateError as why:
        _log.warning("%s; answering by popularity", why)
    except Exception:  # whatever it is, the member still gets a list
        _log.exception("the nearest sessions failed; answering by popularity")
    return None
