"""Intervals cover what they say, add up over blocks, and know that rounds of one actor belong together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from foretaste.evaluation.offpolicy.intervals import (
    Resamples,
    bernstein,
    drawn_times,
    influences,
    skewed,
    student,
    student_of_actors,
)
from foretaste.evaluation.offpolicy.terms import Sums, Terms


def a_ratio(num_rounds: int, rng: np.random.Generator) -> Terms:
    """Weights of mean 1 and rewards of mean 2, self-normalised."""
    mass_R = rng.gamma(2.0, 0.5, size=num_rounds)
    return Terms(num_rounds, gain_R=mass_R * (2.0 + rng.normal(size=num_rounds)), mass_R=mass_R)


def test_student_of_a_mean_is_the_textbook_s() -> None:
    gain_R = np.random.default_rng(0).normal(size=40)
    found = student(Sums.of(Terms(40, gain_R=gain_R)))
    wanted = stats.t.interval(0.95, 39, loc=gain_R.mean(), scale=stats.sem(gain_R))
    assert (found.low, found.high) == pytest.approx(wanted, rel=1e-12)
    assert found.value == pytest.approx(gain_R.mean())


def test_actors_of_one_round_each_are_rounds() -> None:
    terms = a_ratio(300, np.random.default_rng(1))
    of_rounds, of_actors = student(Sums.of(terms)), student_of_actors(terms, np.arange(300))
    assert (of_actors.low, of_actors.high) == pytest.approx((of_rounds.low, of_rounds.high), rel=1e-9)


def test_rounds_said_twice_by_their_actors_make_nothing_surer() -> None:
    terms = a_ratio(300, np.random.default_rng(2))
    assert terms.gain_R is not None
    assert terms.mass_R is not None
    twice = Terms(600, gain_R=np.repeat(terms.gain_R, 2), mass_R=np.repeat(terms.mass_R, 2))
    once = student(Sums.of(terms))
    found = student_of_actors(twice, np.repeat(np.arange(300), 2))
    assert found.half_width == pytest.approx(once.half_width, rel=1e-9)
    assert student(Sums.of(twice)).half_width < 0.75 * once.half_width
    drawn = Resamples.of(twice, np.repeat(np.arange(300), 2), resamples=2_000, seed=0).interval(once.value)
    assert drawn.standard_error == pytest.approx(once.standard_error, rel=0.1)


def test_influences_have_the_mean_0_and_the_standard_error_of_the_sums() -> None:
    terms = a_ratio(200, np.random.default_rng(3))
    influence_R = influences(terms)
    assert influence_R.mean() == pytest.approx(0, abs=1e-12)
    assert influence_R.std(ddof=1) / np.sqrt(200) == pytest.approx(Sums.of(terms).standard_error, rel=1e-9)


def test_resamples_do_not_depend_on_where_blocks_are_cut() -> None:
    terms = a_ratio(500, np.random.default_rng(4))
    unit_R = np.arange(500)
    whole = Resamples.of(terms, unit_R, resamples=50, seed=7)
    assert terms.gain_R is not None
    assert terms.mass_R is not None
    cuts = [slice(0, 123), slice(123, 124), slice(124, 500)]
    parts = [Terms(c.stop - c.start, gain_R=terms.gain_R[c], mass_R=terms.mass_R[c]) for c in cuts]
    first, *others = [Resamples.of(p, unit_R[c], resamples=50, seed=7) for p, c in zip(parts, cuts, strict=True)]
    for other in others:
        first = first + other
    assert first.sums_4B == pytest.approx(whole.sums_4B, rel=1e-12)
    assert Resamples.of(terms, unit_R, resamples=50, seed=8).sums_4B != pytest.approx(whole.sums_4B)


def test_units_are_drawn_as_poisson_says_and_independently() -> None:
    times_RB = drawn_times(np.arange(20_000), resamples=25, seed=3)
    counted = np.bincount(times_RB.astype(int).ravel(), minlength=6)[:6] / times_RB.size
    assert counted == pytest.approx(stats.poisson.pmf(np.arange(6), 1.0), abs=0.003)
    correlations = np.asarray(np.corrcoef(times_RB.T))[np.triu_indices(25, 1)]
    assert abs(correlations).max() < 0.04  # 300 pairs; 5 standard errors are 0.035


def test_bootstrap_and_student_agree_on_a_long_log() -> None:
    terms = a_ratio(4_000, np.random.default_rng(5))
    by_student = student(Sums.of(terms))
    drawn = Resamples.of(terms, np.arange(4_000), resamples=2_000, seed=0).interval(by_student.value)
    assert (drawn.low, drawn.high) == pytest.approx((by_student.low, by_student.high), abs=0.1 * by_student.half_width)


@pytest.mark.parametrize("kind", ["mean", "ratio"])
def test_student_covers_the_truth_as_often_as_it_says(kind: str) -> None:
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(600):
        terms = a_ratio(400, rng)
        if kind == "mean":
            terms = Terms(400, gain_R=terms.gain_R)
        held += student(Sums.of(terms)).holds(2.0)
    assert 0.925 <= held / 600 <= 0.975  # 2.8 standard errors around 0.95


def test_a_tail_turns_the_interval_and_widens_it_and_no_tail_leaves_students() -> None:
    rng = np.random.default_rng(9)
    even = Terms(3_000, gain_R=rng.normal(size=3_000))
    by_student, turned = student(Sums.of(even)), skewed(even)
    assert (turned.low, turned.high) == pytest.approx((by_student.low, by_student.high), abs=0.03 * turned.half_width)
    tailed = Terms(300, gain_R=rng.lognormal(0.0, 1.5, size=300))
    by_student, turned = student(Sums.of(tailed)), skewed(tailed)
    assert turned.high - turned.value > 1.2 * (by_student.high - by_student.value)
    assert turned.value - turned.low < turned.high - turned.value
    twice = Terms(600, gain_R=np.repeat(tailed.added_R, 2))
    of_actors = skewed(twice, np.repeat(np.arange(300), 2))
    assert (of_actors.low, of_actors.high) == pytest.approx((turned.low, turned.high), rel=1e-9)
    same = skewed(Terms(5, gain_R=np.ones(5)))
    assert (same.low, same.high) == (1.0, 1.0)


def test_where_students_interval_covers_too_little_the_turned_one_comes_closer() -> None:
    rng = np.random.default_rng(10)
    held = {"student": 0, "skewed": 0}
    for _ in range(600):
        terms = Terms(100, gain_R=rng.lognormal(-0.72, 1.2, size=100))
        held["student"] += student(Sums.of(terms)).holds(1.0)
        held["skewed"] += skewed(terms).holds(1.0)
    assert held["student"] < held["skewed"] - 12
    assert held["skewed"] / 600 > 0.9


def test_bernstein_is_wider_than_student_and_holds_at_any_length() -> None:
    rng = np.random.default_rng(7)
    for size in (5, 50, 5_000):
        sums = Sums.of(Terms(size, gain_R=rng.binomial(1, 0.3, size=size).astype(np.float64)))
        found = bernstein(sums, low=0.0, high=1.0)
        assert found.holds(0.3)
        assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    assert found.half_width > student(sums).half_width


def test_bernstein_refuses_what_its_theorem_is_not_of() -> None:
    rng = np.random.default_rng(8)
    with pytest.raises(ValueError, match="self-normalised"):
        bernstein(Sums.of(a_ratio(50, rng)), low=-100.0, high=100.0)
    with pytest.raises(ValueError, match=r"wanted rounds in \[0.0, 0.5\]"):
        bernstein(Sums.of(Terms(10, gain_R=np.linspace(0, 1, 10))), low=0.0, high=0.5)


def test_one_round_has_no_interval() -> None:
    sums = Sums.of(Terms(1, gain_R=np.ones(1)))
    with pytest.raises(ValueError, match="at least two rounds"):
        student(sums)
