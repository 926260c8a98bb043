"""The planted mood misleads who compares players with others, and not who reads the dice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from foretaste.evaluation.causal.instruments import least_squares, recentred, two_stage
from foretaste.evaluation.causal.moments import Moments, moments
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.moods import MoodConfig, MoodSessions, mood_sessions

WORLD = WorldConfig(num_members=600)


@pytest.fixture(scope="module")
def drawn() -> MoodSessions:
    return mood_sessions(WORLD, MoodConfig(num_sessions=120_000), seed=3)


def _sums(drawn: MoodSessions) -> Moments:
    control_SD = np.column_stack([np.ones(len(drawn.member_S)), drawn.control_SD])
    instrument_S = recentred(drawn.shown_S, drawn.propensity_S)
    return moments(drawn.returned_S, drawn.played_S, control_SD, instrument_S, cluster_N=drawn.member_S)


def test_what_is_seen_is_the_answer_to_what_was_done(drawn: MoodSessions) -> None:
    played_S = np.where(drawn.shown_S, drawn.plays_if_shown_S, drawn.plays_if_not_S)
    np.testing.assert_array_equal(drawn.played_S, played_S)
    np.testing.assert_array_equal(
        drawn.returned_S, np.where(played_S, drawn.returns_if_played_S, drawn.returns_if_not_S)
    )
    assert not (drawn.plays_if_not_S & ~drawn.plays_if_shown_S).any()


def test_the_dice_show_as_often_as_is_logged_and_know_nothing_of_the_mood(drawn: MoodSessions) -> None:
    for low in np.arange(0.3, 0.7, 0.1):
        rows = (drawn.propensity_S >= low) & (drawn.propensity_S < low + 0.1)
        expected = drawn.propensity_S[rows].sum()
        assert stats.binomtest(int(drawn.shown_S[rows].sum()), int(rows.sum()), expected / rows.sum()).pvalue > 1e-4
    centred_S = drawn.shown_S - drawn.propensity_S
    assert stats.pearsonr(centred_S, drawn.mood_S).pvalue > 1e-4
    assert np.corrcoef(drawn.played_S, drawn.mood_S)[0, 1] > 0.2


def test_the_instrument_holds_the_truth_where_least_squares_is_off_by_more_than_30_percent(drawn: MoodSessions) -> None:
    effect, naive = two_stage(_sums(drawn)).effect(), least_squares(_sums(drawn)).effect()
    assert effect.low is not None
    assert effect.high is not None
    assert effect.low < drawn.effect_on_compliers < effect.high
    assert naive.value > 1.3 * max(drawn.effect_on_compliers, drawn.effect_on_all)


def test_without_a_mood_that_reaches_returning_least_squares_is_right_too() -> None:
    drawn = mood_sessions(WORLD, MoodConfig(num_sessions=120_000, returns_if_good=0.0), seed=3)
    assert least_squares(_sums(drawn)).effect().value == pytest.approx(drawn.effect_on_all, rel=0.1)


def test_a_seed_gives_the_same_sessions_and_another_seed_others(drawn: MoodSessions) -> None:
    again, other = (mood_sessions(WORLD, MoodConfig(num_sessions=120_000), seed=seed) for seed in (3, 4))
    np.testing.assert_array_equal(again.returned_S, drawn.returned_S)
    assert (other.returned_S != drawn.returned_S).any()
