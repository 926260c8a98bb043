"""The best titles of a catalogue that is too large to score each: by cells of like titles, then by their own logits.

The titles' columns lie in cells of an inverted file (FAISS, `IndexIVFFlat`); a query looks into the nearest cells,
among the titles that may be shown alone. For each class of recency the best are taken by what does not change with time
and the member; all of these, those of the history and those that the sources brought get their exact logits. So a title
that the pool lacks is one whose cell was not looked into. Where little may be shown everything of it is scored.

A score is the title's exact logit less an estimate of the logarithm of the sum over all titles: what was scored, and a
fixed sample of the rest (Mussmann and Ermon, ICML 2016). Differences of two scores are exact, their level is not quite.

Shapes: N titles (column j is catalogue code j + 1), N1 rows by catalogue code, K columns of a title, R classes of
recency, X titles that are scored.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.models.title_query import TitleQuery, TitleTable
from foretaste.serving.nearest import NearestConfig

SEED = 0
SAMPLE = 2_048
"""Titles by which the sum over those that are not scored is estimated."""
UNSCORED = np.float32(-1e30)
TRAINED_A_CELL = 50
"""Titles of each cell by which the cells are found."""
MARGIN = 64
"""Titles more than are wanted that are looked for, as some may not be shown."""
ROUNDS = 10
"""Of k-means, by which the cells are found."""
VERSION = 1


class TitleIndex:
    """An index of one intent model's titles; every method may be called from any thread."""

    def __init__(self, titles: TitleTable, config: NearestConfig) -> None:
        """Build it, in this thread and from a fixed seed: the same titles give the same index."""
        import faiss

        faiss.omp_set_num_threads(1)
        self._faiss = faiss
        self._titles = titles
        self._config = config
        self.num_cells = max(1, round(4 * math.sqrt(len(titles))))
        about = {"version": VERSION, "faiss": faiss.__version__, "cells": self.num_cells}
        self.name = json.dumps(config.model_dump(mode="json") | about, sort_keys=True)
        """What a decision says of it; by this and the model it is made again."""
        column_NK = np.concatenate([titles.column_NK.numpy(), titles.bias_N.numpy()[:, None]], axis=1)
        column_NK = np.ascontiguousarray(column_NK - column_NK.mean(axis=0))  # changes no order
        width = column_NK.shape[1]
        self._index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(width), width, self.num_cells, faiss.METRIC_INNER_PRODUCT
        )  # fmt: skip
        self._index.cp.seed, self._index.cp.niter, self._index.cp.min_points_per_centroid = SEED, ROUNDS, 1
        dice = np.random.default_rng(SEED)
        some = dice.permutation(len(titles))[: TRAINED_A_CELL * self.num_cells]
        self._index.train(column_NK[np.sort(some)])
        self._index.add(column_NK)
        self._sample = np.sort(dice.permutation(len(titles))[:SAMPLE]).astype(np.int64)

    def scores(
        self,
        query: TitleQuery,
        *,
        blocked_N1: NDArray[np.bool_],
        brought: NDArray[np.int32],
        size: int,
        boosted: bool,
    ) -> NDArray[np.float32]:
        """Score the `size` best titles that are not blocked, those of the history, those that were `brought`, and more.

        float32[N], `UNSCORED` for all others. Of a `boosted` request, whose factors may lift any title, and where no
        more than `exact_up_to_titles` may be shown, all that may be shown are scored. `query` is of one prediction.
        """
        allowed_N = ~blocked_N1[1:]
        class_N = self._titles.classes(int(query.now_B[0]))
        whole = boosted or int(allowed_N.sum()) <= self._config.exact_up_to_titles
        found = [np.flatnonzero(allowed_N)] if whole else []
        for one in np.flatnonzero(np.bincount(class_N)):
            found += self._of_class(query, class_N == one, allowed_N, size=size, whole=whole)
        found += [query.column_E, brought[brought > 0].astype(np.int64) - 1]
        column_X = np.unique(np.concatenate(found))
        logits_X = self._titles.logits(query, 0, column_X, class_N)
        scores_N = np.full(len(self._titles), UNSCORED, dtype=np.float32)
        scores_N[column_X] = logits_X - self._log_sum(query, column_X, logits_X, class_N)
        return scores_N

    def _of_class(
        self,
        query: TitleQuery,
        of_class_N: NDArray[np.bool_],
        allowed_N: NDArray[np.bool_],
        *,
        size: int,
        whole: bool,
    ) -> list[NDArray[np.int64]]:
        """The best of a class of recency, also those that may not be shown: they count in the sum over all titles.

        `whole`: those that may be are there already.
        """
        best_X = self._best(query, of_class_N, size=size + MARGIN, probes=self._probes(1.0))
        allowed_of_class_N = of_class_N & allowed_N
        if whole or int(allowed_N[best_X].sum()) >= min(size, int(allowed_of_class_N.sum())):
            return [best_X]
        probes = self._probes(float(allowed_N.mean()))
        return [best_X, self._best(query, allowed_of_class_N, size=size, probes=probes)]

    def _probes(self, allowed_share: float) -> int:
        """Cells to look into: the fewer titles may be shown, the more, so that as many of these are looked at."""
        share = min(1.0, self._config.searched_share / allowed_share)
        return max(1, round(share * self.num_cells))

    def _best(self, query: TitleQuery, allowed_N: NDArray[np.bool_], *, size: int, probes: int) -> NDArray[np.int64]:
        """The best of some titles by what does not change with time; in more cells where there are too few of them."""
        enough = min(size, int(allowed_N.sum()))
        if not enough:
            return np.zeros(0, dtype=np.int64)
        self._faiss.omp_set_num_threads(1)
        bits = np.packbits(allowed_N, bitorder="little")
        among = self._faiss.IDSelectorBitmap(bits)
        state_1K = np.concatenate([query.state_BK[:1], np.ones((1, 1), np.float32)], axis=1)
        while True:
            how = self._faiss.SearchParametersIVF(sel=among, nprobe=probes)
            _, found = self._index.search(state_1K, enough, params=how)
            best: NDArray[np.int64] = found[0][found[0] >= 0]
            if len(best) >= enough or probes == self.num_cells:
                return best
            probes = min(self.num_cells, 4 * probes)

    def _log_sum(
        self, query: TitleQuery, column_X: NDArray[np.int64], logits_X: NDArray[np.float32], class_N: NDArray[np.int8]
    ) -> np.float32:
        """Logarithm of the sum over all titles: of what was scored, and by a fixed sample of the rest."""
        sums = [_log_sum_exp(logits_X)]
        rest = self._sample[~np.isin(self._sample, column_X)]
        if len(rest):
            of_rest = _log_sum_exp(self._titles.logits(query, 0, rest, class_N))
            sums.append(of_rest + math.log((len(self._titles) - len(column_X)) / len(rest)))
        return np.float32(_log_sum_exp(np.array(sums)))


def _log_sum_exp(logits_X: NDArray[Any]) -> float:
    if not len(logits_X):
        return -math.inf
    top = float(logits_X.max())
    return top + math.log(float(np.exp(logits_X.astype(np.float64) - top).sum()))
