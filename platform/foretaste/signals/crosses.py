"""How what is known of a request meets its candidates: arithmetic of `candidates`, a function a kind of cross.

Shapes: B requests, C candidates each, N titles, G genres, K kinds, X classes of one intent, P places of words.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.intents import DISCOVERIES, RELATIONS, Intent

LEAST_LOGPROB = -30.0
LONGEST_HOURS = 24.0 * 365
HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000

CHOOSING: tuple[tuple[str, ...], ...] = tuple(
    (relation, *DISCOVERIES) if relation == "discover" else (relation,) for relation in RELATIONS
)
"""For each relation, the action classes that choosing such a title can have: how a discovery goes is not yet known."""


def regrouped(
    intents: Mapping[str, NDArray[np.float32]],
    classes: Mapping[str, tuple[str, ...]],
    intent: Intent,
    groups: tuple[tuple[str, ...], ...],
) -> NDArray[np.float64] | None:
    """Probability of each group of classes, 0 for classes that the head does not have: float64[B, X]."""
    chance_BX = intents.get(intent)
    if chance_BX is None:
        return None
    sums_BX = np.zeros((len(chance_BX), len(groups)))
    for group, names in enumerate(groups):
        for name in names:
            if name in classes[intent]:
                sums_BX[:, group] += chance_BX[:, classes[intent].index(name)]
    return sums_BX


def genre_parts(catalogue: Catalogue, codes: NDArray[np.int32]) -> NDArray[np.float64]:
    """Divide each title's weight of 1 between its genres: float64[..., G]."""
    parts: NDArray[np.float64] = catalogue.genres_N1G[codes].astype(np.float64)
    parts /= np.maximum(parts.sum(axis=-1, keepdims=True), 1.0)
    return parts


def kind_parts(catalogue: Catalogue, codes: NDArray[np.int32]) -> NDArray[np.float64]:
    """Give each title's weight of 1 to its kind: float64[..., K]."""
    return np.asarray(catalogue.kind_N1[codes][..., None] == np.arange(len(catalogue.kinds)), dtype=np.float64)


def logprobs(scores_BN: NDArray[np.float32], candidates_BC: NDArray[np.int32]) -> NDArray[np.float64]:
    """Log-probabilities of candidates, never below LEAST_LOGPROB; of padding, those of the first title."""
    found_BC = scores_BN[np.arange(len(scores_BN))[:, None], np.maximum(candidates_BC - 1, 0)]
    finite_BC = np.where(np.isnan(found_BC), LEAST_LOGPROB, found_BC).astype(np.float64)
    return np.asarray(np.clip(finite_BC, LEAST_LOGPROB, -LEAST_LOGPROB))


def ranks(scores_BC: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of candidates of the pool that score higher than each."""
    order_BC = np.argsort(-scores_BC, axis=1, kind="stable")
    sorted_BC = np.take_along_axis(scores_BC, order_BC, axis=1)
    new_BC = np.ones(scores_BC.shape, dtype=np.bool_)
    new_BC[:, 1:] = sorted_BC[:, 1:] != sorted_BC[:, :-1]
    higher_BC = np.maximum.accumulate(np.where(new_BC, np.arange(scores_BC.shape[1]), 0), axis=1)
    ranks_BC = np.empty_like(higher_BC)
    np.put_along_axis(ranks_BC, order_BC, higher_BC, axis=1)
    return ranks_BC


def standing(logprob_BC: NDArray[np.float64], real_BC: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance from the pool's mean in standard deviations, 0 where all score alike."""
    count_B1 = np.maximum(real_BC.sum(axis=1, keepdims=True), 1)
    mean_B1 = np.where(real_BC, logprob_BC, 0.0).sum(axis=1, keepdims=True) / count_B1
    off_BC = np.where(real_BC, logprob_BC - mean_B1, 0.0)
    deviation_B1 = np.sqrt((off_BC * off_BC).sum(axis=1, keepdims=True) / count_B1)
    standing_BC: NDArray[np.float64] = off_BC / np.where(deviation_B1 > 1e-9, deviation_B1, np.inf)
    return standing_BC


def expected(
    parts_BCG: NDArray[np.float64], share_BG: NDArray[np.float32] | NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Sum over genres of the title's part and the share. Not a matrix product: that depends on the batch's size."""
    if share_BG is None:
        return np.zeros(parts_BCG.shape[:2])
    total_BC: NDArray[np.float64] = (parts_BCG * share_BG[:, None, :]).sum(axis=2)
    return total_BC


def chance(
    chance_BK: NDArray[np.float32] | NDArray[np.float64] | None, class_BC: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Look up the chance of each class, 0 for class -1."""
    if chance_BK is None or chance_BK.shape[1] == 0:
        return np.zeros(class_BC.shape)
    found_BC = chance_BK[np.arange(len(chance_BK))[:, None], np.maximum(class_BC, 0)]
    return np.where(class_BC >= 0, found_BC, 0.0)


def asked_for(word_BP: NDArray[np.int64], words_BCP: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of a query's words, by place, that the title's name or genres have; 0 without a query."""
    asked_BP = word_BP > 0
    found_BC = (words_BCP & asked_BP[:, None, :]).sum(axis=2)
    return np.asarray(found_BC / np.maximum(asked_BP.sum(axis=1), 1)[:, None])


def log_hours(at_X: NDArray[np.int64], asof_X: NDArray[np.int64], known_X: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Logarithm of 1 + hours since an instant, at most LONGEST_HOURS, which also stands for never."""
    hours_X = np.clip((asof_X - np.where(known_X, at_X, 0)) / HOUR_US, 0.0, LONGEST_HOURS)
    return np.log1p(np.where(known_X, hours_X, LONGEST_HOURS))
