"""The service whose feedback comes late: seeded, causal, and of no family of delays."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.worlds.delays import SIGNALS, DelayWorld, DelayWorldConfig, Journeys, _busyness, _when

SIZE = 4_000


@pytest.fixture(scope="module")
def world() -> DelayWorld:
    return DelayWorld(DelayWorldConfig(num_members=400, days=20), 3)


def lived(world: DelayWorld, seed: int) -> tuple[np.ndarray, np.ndarray, Journeys]:
    rng = np.random.default_rng(seed)
    member_N, at_N, title_NC = world.requests(10, SIZE, 1, rng)
    return member_N, title_NC[:, 0], world.journeys(member_N, title_NC[:, 0], at_N, rng)


def test_a_seed_makes_the_same_journeys_again(world: DelayWorld) -> None:
    again = DelayWorld(world.config, 3)
    one, two = lived(world, 5)[2], lived(again, 5)[2]
    assert np.array_equal(one.finished_N, two.finished_N)
    assert np.array_equal(one.signals(np.full(SIZE, 2.0)), two.signals(np.full(SIZE, 2.0)))
    assert not np.array_equal(one.finished_N, lived(DelayWorld(world.config, 4), 5)[2].finished_N)


def test_signals_hang_on_nothing_that_comes_later(world: DelayWorld) -> None:
    journeys = lived(world, 6)[2]
    age_N = np.full(SIZE, 3.0)
    later_NV = journeys.viewed_NV >= 3.0
    cut = Journeys(
        np.where(journeys.visit_NV >= 3.0, 99.0, journeys.visit_NV),
        np.where(later_NV, np.inf, journeys.viewed_NV),
        np.where(later_NV, 0.123, journeys.fraction_NV),
        np.where(journeys.thumb_at_N >= 3.0, np.inf, journeys.thumb_at_N),
        journeys.thumb_N,
        journeys.finished_N,
        journeys.hours_N,
    )
    assert np.array_equal(journeys.signals(age_N), cut.signals(age_N))
    assert not journeys.signals(np.zeros(SIZE)).any()


def test_who_has_finished_has_watched_all_and_who_watched_more_finishes_more(world: DelayWorld) -> None:
    journeys = lived(world, 7)[2]
    done_N = journeys.finished_N < 5.0
    fraction_N = journeys.signals(np.full(SIZE, 5.0))[:, SIGNALS.index("fraction")]
    assert np.array_equal(fraction_N >= 1.0, done_N)
    open_N, final_N = ~done_N, world.final(journeys)
    much_N = open_N & (fraction_N > 0.5)
    assert final_N[much_N].mean() > 2 * final_N[open_N & ~much_N].mean()


def test_delays_hang_on_the_title_and_the_member(world: DelayWorld) -> None:
    member_N, title_N, journeys = lived(world, 8)
    final_N = world.final(journeys)
    show_N = world.show_J[title_N]
    assert 0.15 < final_N.mean() < 0.6
    assert np.median(journeys.finished_N[final_N & show_N]) > 1.5 * np.median(journeys.finished_N[final_N & ~show_N])
    slow_N = world.log_rate_M[member_N] < np.median(world.log_rate_M)
    assert np.median(journeys.finished_N[final_N & slow_N]) > np.median(journeys.finished_N[final_N & ~slow_N])
    assert (np.isfinite(journeys.finished_N) & ~final_N).any(), "some finish too late to count"


def test_the_truth_is_the_share_of_journeys_that_end_well(world: DelayWorld) -> None:
    rng = np.random.default_rng(9)
    member_N, at_N, title_NC = world.requests(10, 1_000, 1, rng)
    chance_N = world.chances(member_N, title_NC[:, 0], at_N, rng, repeats=16)
    final_N = world.final(world.journeys(member_N, title_NC[:, 0], at_N, rng))
    assert abs(chance_N.mean() - final_N.mean()) < 4 * np.sqrt(0.25 / 1_000)
    assert final_N[chance_N > 0.6].mean() > final_N[chance_N < 0.2].mean() + 0.4


def test_only_titles_that_are_out_and_not_old_are_shown(world: DelayWorld) -> None:
    _, _, title_NC = world.requests(10, 500, 8, np.random.default_rng(10))
    launched = world.launch_J[title_NC]
    assert launched.max() <= 10
    assert launched.min() > 10 - world.config.shown_days
    assert all(len(set(row)) == 8 for row in title_NC.tolist())


def test_the_week_counts_seven_days_and_is_warped_back() -> None:
    at = np.linspace(0.0, 30.0, 301)
    assert np.allclose(_when(_busyness(at)), at)
    assert _busyness(np.array([7.0, 14.0])).tolist() == [7.0, 14.0]
