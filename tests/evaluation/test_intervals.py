"""Bootstrap intervals: that they cover the truth, that cases of one actor count as one draw, that pairs are paired."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.evaluation.intervals import difference, figure, resampled_means


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    truth, covered, covered_by_cases, runs = 0.4, 0, 0, 250
    for run in range(runs):
        actor_B = np.repeat(np.arange(80), 6)
        taste_A = rng.beta(4 * truth, 4 * (1 - truth), size=80)  # cases of one actor are alike
        hit_B = (rng.random(480) < taste_A[actor_B]).astype(np.float64)[:, None]
        for grouped in (True, False):
            groups = actor_B if grouped else np.arange(480)
            one = figure(hit_B.mean(), resampled_means(hit_B, groups, resamples=300, seed=run)[:, 0], 80)
            assert one.low is not None
            assert one.high is not None
            inside = one.low <= truth <= one.high
            covered += inside and grouped
            covered_by_cases += inside and not grouped
    assert 0.90 <= covered / runs <= 0.99
    assert covered_by_cases / runs < 0.90, "drawing cases instead of actors must be too narrow here"


def test_resampled_means_agree_with_drawing_actors_one_by_one() -> None:
    rng = np.random.default_rng(2)
    actor_B = rng.integers(0, 12, size=60)
    values_BM = rng.random((60, 3))
    fast = resampled_means(values_BM, actor_B, resamples=4000, seed=1)
    slow = []
    actors = np.unique(actor_B)
    for _ in range(4000):
        rows = np.concatenate([np.flatnonzero(actor_B == a) for a in rng.choice(actors, size=len(actors))])
        slow.append(values_BM[rows].mean(axis=0))
    np.testing.assert_allclose(fast.mean(axis=0), np.mean(slow, axis=0), atol=0.005)
    np.testing.assert_allclose(fast.std(axis=0), np.std(slow, axis=0), rtol=0.08)


def test_the_same_seed_gives_the_same_resamples_however_many_are_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    actor_B, values_BM = np.arange(50) // 2, np.random.default_rng(0).random((50, 2))
    whole = resampled_means(values_BM, actor_B, resamples=64, seed=3)
    monkeypatch.setattr("foretaste.evaluation.intervals._DRAWS_AT_ONCE", 100)
    np.testing.assert_array_equal(whole, resampled_means(values_BM, actor_B, resamples=64, seed=3))
    assert not np.array_equal(whole, resampled_means(values_BM, actor_B, resamples=64, seed=4))


def test_a_small_but_steady_gain_is_seen_because_the_difference_is_paired() -> None:
    rng = np.random.default_rng(3)
    base_B = rng.random(300)
    values_BM = np.column_stack([base_B + 0.01 + 0.01 * rng.standard_normal(300), base_B])
    means_RM = resampled_means(values_BM, np.arange(300), resamples=500, seed=0)
    own = figure(values_BM[:, 0].mean(), means_RM[:, 0], 300)
    gap_R = means_RM[:, 0] - means_RM[:, 1]
    gap = difference(float(np.diff(values_BM[:, ::-1].mean(axis=0))[0]), gap_R, 300, against="base")
    assert own.low is not None
    assert own.high is not None
    assert own.high - own.low > 0.05
    assert gap.low is not None
    assert gap.low > 0.005
    assert gap.p_not_better == 0.0


def test_equal_models_differ_by_nothing_and_are_not_called_better() -> None:
    values_BM = np.tile(np.random.default_rng(3).random((40, 1)), (1, 2))
    means_RM = resampled_means(values_BM, np.arange(40), resamples=100, seed=0)
    gap = difference(0.0, means_RM[:, 0] - means_RM[:, 1], 40, against="base")
    assert (gap.low, gap.high, gap.p_not_better) == (0.0, 0.0, 1.0)


def test_one_actor_has_no_interval() -> None:
    means_RM = resampled_means(np.ones((5, 1)), np.zeros(5, dtype=np.int64), resamples=10, seed=0)
    assert figure(1.0, means_RM[:, 0], 1).low is None
    assert difference(0.0, means_RM[:, 0], 1, against="base").p_not_better is None
