"""Ranks and metrics: by hand, against a slow twin, and with ties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from foretaste.contracts.histories import concatenate
from foretaste.evaluation.metrics import best_titles, exclude_seen, hit, ndcg, per_case, reciprocal, target_ranks
from foretaste.testing.contract_recommender import one_history

SCORES_BN = np.array([[0.1, 0.9, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0], [4.0, 3.0, 2.0, 1.0]], dtype=np.float32)


def slow_order(scores: list[float]) -> list[int]:
    """Catalogue codes, best first, equal scores in order of code."""
    return sorted(range(1, len(scores) + 1), key=lambda code: (-scores[code - 1], code))


@st.composite
def blocks(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Scores with many ties, and a target for each row."""
    num_cases, num_titles = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    cell = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0])
    rows = draw(
        st.lists(st.lists(cell, min_size=num_titles, max_size=num_titles), min_size=num_cases, max_size=num_cases)
    )
    targets = draw(st.lists(st.integers(1, num_titles), min_size=num_cases, max_size=num_cases))
    return np.array(rows, dtype=np.float32), np.array(targets, dtype=np.int32)


def test_the_rank_is_the_number_of_titles_placed_before_the_target() -> None:
    ranks = [target_ranks(SCORES_BN, np.full(3, code, dtype=np.int32)).tolist() for code in (1, 2, 3, 4)]
    assert ranks == [[3, 0, 0], [0, 1, 1], [1, 2, 2], [2, 3, 3]]


def test_metrics_of_known_ranks() -> None:
    rank_B = np.array([0, 1, 4, 5, 100])
    np.testing.assert_array_equal(hit(rank_B, 5), [1, 1, 1, 0, 0])
    np.testing.assert_allclose(ndcg(rank_B, 5), [1, 1 / math.log2(3), 1 / math.log2(6), 0, 0])
    np.testing.assert_allclose(reciprocal(rank_B, 5), [1, 1 / 2, 1 / 5, 0, 0])
    assert list(per_case(rank_B, (1, 5))) == ["hr@1", "hr@5", "ndcg@1", "ndcg@5", "mrr@1", "mrr@5"]


@settings(deadline=None)
@given(blocks())
def test_ranks_and_best_titles_agree_with_sorting(block: tuple[NDArray[np.float32], NDArray[np.int32]]) -> None:
    scores_BN, target_B = block
    rank_B = target_ranks(scores_BN, target_B)
    for k in (1, 3, 20):
        best_BK = best_titles(scores_BN, k)
        for b, scores in enumerate(scores_BN.tolist()):
            order = slow_order(scores)
            assert best_BK[b].tolist() == order[:k]
            assert rank_B[b] == order.index(int(target_B[b]))
            assert (rank_B[b] < k) == (target_B[b] in best_BK[b])


def test_shuffled_ties_put_the_target_anywhere_among_its_equals_and_nowhere_else() -> None:
    target_B = np.array([3, 2, 2], dtype=np.int32)
    rng = np.random.default_rng(0)
    drawn = np.stack([target_ranks(SCORES_BN, target_B, ties=rng) for _ in range(400)])
    assert set(drawn[:, 0]) == {1, 2}
    assert set(drawn[:, 1]) == {0, 1, 2, 3}
    assert set(drawn[:, 2]) == {1}
    assert drawn[:, 1].mean() == pytest.approx(1.5, abs=0.25)


def test_without_ties_shuffling_changes_nothing() -> None:
    scores_BN = np.random.default_rng(0).permuted(np.tile(np.arange(50, dtype=np.float32), (20, 1)), axis=1)
    target_B = np.arange(1, 21, dtype=np.int32)
    shuffled = target_ranks(scores_BN, target_B, ties=np.random.default_rng(1))
    np.testing.assert_array_equal(shuffled, target_ranks(scores_BN, target_B))


def test_seen_titles_are_excluded_but_never_the_target() -> None:
    histories = concatenate([one_history([2, 3]), one_history([]), one_history([1, 0, 2])])
    target_B = np.array([3, 1, 4], dtype=np.int32)
    before = SCORES_BN.copy()
    open_BN = exclude_seen(SCORES_BN, histories, target_B)
    np.testing.assert_array_equal(SCORES_BN, before)
    assert np.isneginf(open_BN).tolist() == [
        [False, True, False, False],
        [False, False, False, False],
        [True, True, False, False],
    ]
    assert target_ranks(open_BN, target_B).tolist() == [0, 0, 1]


def test_fewer_titles_than_k_give_all_of_them() -> None:
    assert best_titles(SCORES_BN, 9).shape == (3, 4)
    assert best_titles(SCORES_BN[:0], 2).shape == (0, 2)


def test_a_target_among_equals_is_last_where_ties_count_against_it_and_never_first() -> None:
    flat_BN = np.zeros((3, 4), dtype=np.float32)
    target_B = np.array([1, 2, 4], dtype=np.int32)
    assert target_ranks(flat_BN, target_B, ties="last").tolist() == [3, 3, 3]
    assert target_ranks(flat_BN, target_B).tolist() == [0, 1, 3]
