"""How well a ranking of the whole catalogue places the title that was chosen.

Ranks are 0-based and count every title of the catalogue that is not excluded. Titles with equal scores stand
in order of their catalogue code; `target_ranks` can put the target last among them, or draw the order, instead, to show
that ties do not decide. It never puts the target first: a model that scores everything alike would be perfect.

Shapes: B cases, N titles (column j is catalogue code j + 1), K best titles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.histories import Histories


def exclude_seen(
    scores_BN: NDArray[np.float32], histories: Histories, target_B: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Put the titles of each history at minus infinity, but never the target; gives a new array."""
    open_BN = scores_BN.copy()
    row_T = np.repeat(np.arange(len(histories)), histories.lengths_B)
    known_T = histories.title_T > 0
    open_BN[row_T[known_T], histories.title_T[known_T] - 1] = -np.inf
    rows_B = np.arange(len(target_B))
    open_BN[rows_B, target_B - 1] = scores_BN[rows_B, target_B - 1]
    return open_BN


def target_ranks(
    scores_BN: NDArray[np.float32],
    target_B: NDArray[np.int32],
    *,
    ties: Literal["code", "last"] | np.random.Generator = "code",
) -> NDArray[np.int64]:
    """Number of titles placed before the target: int64[B], 0 is the first place.

    Equal scores stand in order of catalogue code ("code"), with the target last ("last": what a model is sure to
    have), or in an order drawn for each case by a generator.
    """
    index_B1 = target_B[:, None] - 1
    own_B1 = np.take_along_axis(scores_BN, index_B1, axis=1)
    above_B = (scores_BN > own_B1).sum(axis=1)
    equal_BN = scores_BN == own_B1
    if isinstance(ties, np.random.Generator):
        before_B = ties.integers(0, equal_BN.sum(axis=1))
    elif ties == "last":
        before_B = equal_BN.sum(axis=1) - 1
    else:
        before_B = (equal_BN & (np.arange(scores_BN.shape[1])[None, :] < index_B1)).sum(axis=1)
    ranks: NDArray[np.int64] = above_B + before_B
    return ranks


def best_titles(scores_BN: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    """Catalogue codes of the K = min(k, N) best titles of each case, best first, ties in order of code: int32[B, K]."""
    num_cases, num_titles = scores_BN.shape
    k = min(k, num_titles)
    if k == 0 or num_cases == 0:
        return np.zeros((num_cases, k), dtype=np.int32)
    bar_B1 = -np.partition(-scores_BN, k - 1, axis=1)[:, k - 1 : k]
    row_P, column_P = np.nonzero(scores_BN >= bar_B1)
    order_P = np.lexsort((column_P, -scores_BN[row_P, column_P], row_P))
    first_B = np.searchsorted(row_P, np.arange(num_cases))  # row_P is sorted, and stays so
    picked_BK = order_P[first_B[:, None] + np.arange(k)]
    best_BK: NDArray[np.int32] = (column_P[picked_BK] + 1).astype(np.int32)
    return best_BK


def hit(rank_B: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """1 where the target is among the first k."""
    return (rank_B < k).astype(np.float64)


def ndcg(rank_B: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """1 / log2(rank + 2) where the target is among the first k; with one target the ideal gain is 1."""
    return np.where(rank_B < k, 1.0 / np.log2(rank_B + 2.0), 0.0)


def reciprocal(rank_B: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """1 / (rank + 1) where the target is among the first k; its mean is the MRR."""
    return np.where(rank_B < k, 1.0 / (rank_B + 1.0), 0.0)


METRICS: dict[str, Callable[[NDArray[np.int64], int], NDArray[np.float64]]] = {
    "hr": hit,
    "ndcg": ndcg,
    "mrr": reciprocal,
}


def per_case(rank_B: NDArray[np.int64], ks: tuple[int, ...]) -> dict[str, NDArray[np.float64]]:
    """Every metric at every k, one value a case, by names such as "ndcg@10"."""
    return {f"{name}@{k}": metric(rank_B, k) for name, metric in METRICS.items() for k in ks}
