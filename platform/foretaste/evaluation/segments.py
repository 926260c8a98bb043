"""Segments of members by intent: K-means++ on the intent embedding, and how sure one can be of them.

Arthur and Vassilvitskii, k-means++, SODA 2007; IntentRec, arXiv 2408.05353, section 5.3.

Shapes: B members, K segments, D width of the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.segments import nearest
from foretaste.evaluation.segment_config import SegmentConfig

STABILITY_RESTARTS = 3


def fit_centres(z_BD: NDArray[np.floating[Any]], config: SegmentConfig) -> NDArray[np.float64]:
    """Centres of `config.num` segments, the largest first; float64[K, D].

    Raises ValueError where fewer than that many embeddings differ.
    """
    centre_KD = _fit(z_BD, config.num, restarts=config.restarts, seed=config.seed)
    size_K = np.bincount(nearest(z_BD, centre_KD)[0], minlength=config.num)
    return centre_KD[np.argsort(-size_K, kind="stable")]


def stability(
    z_BD: NDArray[np.floating[Any]], centre_KD: NDArray[np.float64], config: SegmentConfig
) -> dict[str, dict[str, float]]:
    """How alike the segments come out again: adjusted Rand index, 1 for the same and 0 by chance; mean and least.

    `seeds`: other first centres against the given ones; `halves`: centres of one random half of the members against
    those of the other, both assigning all. `halves_shuffled` is what halves give where every column was shuffled for
    itself, so that nothing is left to find: what K-means agrees on anyhow.
    """
    from sklearn.metrics import adjusted_rand_score

    rng, num = np.random.default_rng(config.seed), len(centre_KD)
    own_B = nearest(z_BD, centre_KD)[0]

    def again(part_BD: NDArray[np.floating[Any]], seed: int) -> NDArray[np.float64]:
        return _fit(part_BD, num, restarts=STABILITY_RESTARTS, seed=seed)

    def of_halves(all_BD: NDArray[np.floating[Any]], seed: int) -> float:
        side_B = rng.permutation(len(all_BD)) % 2 == 0
        one_B, other_B = (nearest(all_BD, again(all_BD[part_B], seed))[0] for part_B in (side_B, ~side_B))
        return float(adjusted_rand_score(one_B, other_B))

    seeds = range(config.seed + 1, config.seed + 1 + config.repeats)
    shuffled_BD = np.stack([rng.permutation(column_B) for column_B in z_BD.T], axis=1)
    values = {
        "seeds": [float(adjusted_rand_score(own_B, nearest(z_BD, again(z_BD, seed))[0])) for seed in seeds],
        "halves": [of_halves(z_BD, seed) for seed in seeds],
        "halves_shuffled": [of_halves(shuffled_BD, seed) for seed in seeds],
    }
    return {name: {"mean": float(np.mean(found)), "least": min(found)} for name, found in values.items()}


def explained(
    z_BD: NDArray[np.floating[Any]], centre_KD: NDArray[np.float64], config: SegmentConfig
) -> dict[str, float]:
    """Share of the embedding's variance that lies between segments; beside it, of columns shuffled for themselves.

    Of many members K-means divides even a cloud without groups in the same way again: only a share above that of
    `shuffled` says that the columns go together.
    """
    rng = np.random.default_rng(config.seed)
    shuffled_BD = np.stack([rng.permutation(column_B) for column_B in z_BD.T], axis=1)
    nothing_KD = _fit(shuffled_BD, len(centre_KD), restarts=STABILITY_RESTARTS, seed=config.seed)
    total = float(np.square(z_BD - z_BD.mean(axis=0, dtype=np.float64)).sum())
    own, nothing = (
        1.0 - float(np.square(nearest(all_BD, some_KD)[1]).sum()) / total
        for all_BD, some_KD in ((z_BD, centre_KD), (shuffled_BD, nothing_KD))
    )
    return {"segments": own, "shuffled": nothing}


def plane(z_BD: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The first two principal components: their mean float64[D], directions [D, 2] and shares of the variance [2]."""
    mean_D = z_BD.mean(axis=0, dtype=np.float64)
    variance_D, direction_DD = np.linalg.eigh(np.cov((z_BD - mean_D).T, ddof=0).reshape(z_BD.shape[1], -1))
    first = np.argsort(-variance_D)[:2]
    direction_D2 = direction_DD[:, first]
    direction_D2 = direction_D2 * np.sign(direction_D2[np.abs(direction_D2).argmax(axis=0), np.arange(len(first))])
    return mean_D, direction_D2, variance_D[first] / max(float(variance_D.sum()), 1e-300)


def agreement(segment_B: NDArray[np.int32], planted: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Adjusted mutual information of segments with what was planted, by its name: 1 for the same, 0 by chance."""
    from sklearn.metrics import adjusted_mutual_info_score

    return {name: float(adjusted_mutual_info_score(list(value), segment_B)) for name, value in planted.items()}


def _fit(z_BD: NDArray[np.floating[Any]], num: int, *, restarts: int, seed: int) -> NDArray[np.float64]:
    from sklearn.cluster import KMeans

    z_BD = np.asarray(z_BD, dtype=np.float64)
    distinct = len(np.unique(z_BD, axis=0))
    if distinct < num:
        raise ValueError(f"segments.num is {num}, but only {distinct} of {len(z_BD)} members' intents differ")
    found = KMeans(num, init="k-means++", n_init=restarts, random_state=seed).fit(z_BD)
    return np.asarray(found.cluster_centers_, dtype=np.float64)
