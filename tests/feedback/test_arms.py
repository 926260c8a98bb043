"""A split that is not what its shares say is noticed, and one that is is left alone."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.feedback.arms import Split, in_words, sample_ratio, split_in
from foretaste.feedback.decision_log import DecisionLog
from foretaste.testing.decisions import NOW_US, decision
from foretaste.testing.fakes import FakeClock

SHARES = {"canary": 0.1, "main": 0.9}


def split(canary: int, main: int, crossed: int = 0) -> Split:
    return Split({"canary": canary, "main": main}, crossed)


def test_units_are_counted_once_in_the_arm_they_were_first_seen_in(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"member_id": "m1", "experiment_arm": "main", "at": NOW_US - 1},  # before
        {"member_id": "m1", "experiment_arm": "canary", "at": NOW_US},
        {"member_id": "m1", "experiment_arm": "canary", "at": NOW_US + 1},
        {"member_id": None, "session_id": "s9", "experiment_arm": "main", "at": NOW_US},
        {"member_id": "m2", "experiment_arm": "main", "at": NOW_US + 5},
        {"member_id": "m3", "experiment_arm": None, "at": NOW_US + 5},
    ]
    with closing(DecisionLog(tmp_path, clock=FakeClock())) as log:
        for number, row in enumerate(rows):
            log.append(decision(f"d{number}", **row))
        log.roll()
        log.append(decision("d8", member_id="m2", experiment_arm="canary", at=NOW_US + 2))  # not rolled, and earlier
        found = split_in(tmp_path, since_us=NOW_US)
    assert (dict(found.counts), found.crossed) == ({"canary": 2, "main": 1}, 1)
    assert split_in(tmp_path, since_us=NOW_US + 10).counts == {}


def test_the_p_value_is_pearsons() -> None:
    stats = pytest.importorskip("scipy.stats")
    for counts in ([120, 880], [95, 905], [300, 700]):
        wanted = stats.chisquare(counts, [100, 900]).pvalue
        assert sample_ratio(split(*counts), SHARES).p_value == pytest.approx(wanted, rel=1e-9)
    three = sample_ratio(Split({"a": 310, "b": 290, "main": 400}, 0), {"a": 0.3, "b": 0.3, "main": 0.4})
    assert three.p_value == pytest.approx(stats.chisquare([310, 290, 400], [300, 300, 400]).pvalue, rel=1e-9)


def test_a_right_split_is_left_alone_however_often_it_is_looked_at() -> None:
    dice, alarms = np.random.default_rng(5), 0
    for _ in range(200):
        canary_N = np.cumsum(dice.random(5_000) < 0.1)
        looks = [
            sample_ratio(split(int(canary_N[n - 1]), n - int(canary_N[n - 1])), SHARES) for n in range(100, 5_001, 100)
        ]
        alarms += any(look.broken for look in looks)
    assert alarms <= 2


def test_a_broken_split_is_noticed() -> None:
    dice = np.random.default_rng(6)
    for _ in range(50):
        lost = int((dice.random(1_000) < 0.7).sum())  # three in ten of the arm are not logged as such
        assert sample_ratio(split(lost, 9_000 + 1_000 - lost), SHARES).broken
    found = sample_ratio(split(0, 500), SHARES)
    assert found.broken
    assert "canary 0 of 50.0 expected, main 500 of 450.0 expected" in in_words(found)


def test_members_in_two_arms_break_a_split_that_counts_right() -> None:
    assert not sample_ratio(split(100, 900, crossed=10), SHARES).broken
    assert sample_ratio(split(100, 900, crossed=11), SHARES).broken


def test_too_few_say_nothing_and_an_arm_without_a_share_says_much() -> None:
    assert sample_ratio(split(20, 20), SHARES).p_value == 1.0
    assert sample_ratio(Split({}, 0), SHARES).p_value == 1.0
    assert sample_ratio(Split({"a": 60, "b": 60, "main": 9}, 0), {"a": 0.5, "b": 0.5, "main": 0.0}).broken
