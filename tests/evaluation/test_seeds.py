"""Means over training runs and how sure they are."""

from __future__ import annotations

import numpy as np
import pytest

from foretaste.evaluation.seeds import over_both, over_seeds, paired, paired_ratio


def test_the_interval_over_seeds_is_student_s() -> None:
    found = over_seeds([0.1, 0.2, 0.3])  # mean 0.2, standard error 0.1 / sqrt 3, t(2) at 97.5% 4.3027
    assert found.n == 3
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.2 - 4.3027 * 0.1 / np.sqrt(3), abs=1e-4)
    assert found.high == pytest.approx(0.2 + 4.3027 * 0.1 / np.sqrt(3), abs=1e-4)


def test_one_run_has_no_interval_and_none_is_refused() -> None:
    assert over_seeds([0.5]).low is None
    assert over_seeds([0.5]).n == 1
    with pytest.raises(ValueError, match="no values"):
        over_seeds([])


def test_the_interval_over_seeds_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    intervals = [over_seeds(rng.normal(1.0, 0.2, size=5)) for _ in range(2000)]
    assert np.mean([one.low < 1.0 < one.high for one in intervals]) == pytest.approx(0.95, abs=0.015)  # type: ignore[operator]


def test_pairing_takes_out_what_the_seeds_have_in_common() -> None:
    luck = np.array([0.0, 0.1, -0.1, 0.05, 0.2])
    better, base = 0.5 + luck + 0.01, 0.5 + luck
    gap = paired(better, base)
    assert gap.low is not None
    assert gap.low > 0.009
    assert over_seeds(better).low < over_seeds(base).high  # type: ignore[operator]
    assert paired_ratio([0.105, 0.21], [0.1, 0.2]).value == pytest.approx(0.05)
    with pytest.raises(ValueError, match="2 seeds of one model, 3 of the other"):
        paired([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="value of 0"):
        paired_ratio([1, 2], [0, 1])


def test_both_kinds_of_chance_together_are_wider_than_either() -> None:
    rng = np.random.default_rng(1)
    actor_B = np.repeat(np.arange(60), 5)
    values_SB = rng.normal(size=300)[None, :] * 0.3 + rng.normal(0, 0.05, size=(4, 1)) + 0.5
    both, seeds = over_both(values_SB, actor_B), over_seeds(values_SB.mean(axis=1))
    actors = over_both(values_SB.mean(axis=0, keepdims=True), actor_B)
    widths = [one.high - one.low for one in (both, seeds, actors)]  # type: ignore[operator]
    assert widths[0] == pytest.approx(np.hypot(widths[1], widths[2]), rel=1e-6)
    assert both.n == 4
    assert over_both(values_SB, np.zeros(300, dtype=np.int64)).low == pytest.approx(seeds.low)
