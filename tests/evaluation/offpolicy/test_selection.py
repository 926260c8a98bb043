"""Strengths and estimators are chosen as published, and as sb-obp chooses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.evaluation.offpolicy.estimators import CLIPPED_IPS, DROS, IPS, SNIPS, SWITCH_DR, Estimator
from foretaste.evaluation.offpolicy.rounds import Rounds
from foretaste.evaluation.offpolicy.selection import (
    Candidate,
    by_slope,
    least_error,
    slope,
    strengths,
    tunings,
)
from foretaste.evaluation.offpolicy.terms import Sums
from foretaste.jobs.oracles import OracleConfig, ask

ROOT = Path(__file__).parents[3]
ORACLES = OracleConfig(python=ROOT / ".venv-oracles/bin/python", programs=ROOT / "deployments/references")
GOLDEN = Path(__file__).with_name("obp_tuning_golden.json")
GRIDS = {"clipped_ips": [0.5, 2.0, 8.0, 40.0], "switch_dr": [0.5, 2.0, 8.0, 40.0], "dros": [0.1, 3.0, 50.0, 2_000.0]}
TUNABLE = (CLIPPED_IPS, SWITCH_DR, DROS)
DELTA = 0.1


def arithmetic_rounds(num_rounds: int = 400, num_actions: int = 6) -> dict[str, Any]:
    """Rounds that are the same with every version of every generator, and whose large weights earn more."""

    def unit(*shape: int, step: int) -> Any:
        return (((np.arange(np.prod(shape)) * step) % 1009 + 0.5) / 1009).reshape(shape)

    target_RAP = unit(num_rounds, num_actions, 1, step=7919) ** 3
    target_RAP /= target_RAP.sum(axis=1, keepdims=True)
    action_R = (unit(num_rounds, step=523) * num_actions).astype(np.int64)
    propensity_R = unit(num_rounds, step=389) ** 2 * 0.9 + 0.01
    weight_R = target_RAP[np.arange(num_rounds), action_R, 0] / propensity_R
    return {
        "action_R": action_R,
        "reward_R": unit(num_rounds, step=613) + 0.2 * np.minimum(weight_R, 5.0),
        "propensity_R": propensity_R,
        "target_RAP": target_RAP,
        "predicted_RAP": unit(num_rounds, num_actions, 1, step=887),
    }


def ours(arrays: dict[str, Any]) -> Rounds:
    return Rounds.of(
        action=arrays["action_R"],
        reward=arrays["reward_R"],
        propensity=arrays["propensity_R"],
        target=arrays["target_RAP"],
        predicted=arrays["predicted_RAP"],
    )


def asked() -> dict[str, Any]:
    return {"grids": GRIDS, "delta": DELTA}


def agrees(rounds: Rounds, estimator: Estimator, theirs: dict[str, Any]) -> None:
    """Every estimated error and SLOPE's choice are theirs."""
    grid = GRIDS[estimator.name]
    for key, bound in (("bound", True), ("bias", False)):
        options = tunings(rounds, estimator, grid, bias_bound=bound, delta=DELTA)
        assert [option.squared_error for option in options] == pytest.approx(theirs[key], rel=1e-9)
        assert least_error(options).estimator.tuning == grid[int(np.argmin(theirs[key]))]
        assert by_slope(options, delta=DELTA).estimator.tuning == theirs["slope"]


@pytest.mark.parametrize("estimator", TUNABLE, ids=lambda e: e.name)
def test_strengths_are_judged_as_sb_obp_was_seen_to_judge_them(estimator: Estimator) -> None:
    agrees(ours(arithmetic_rounds()), estimator, json.loads(GOLDEN.read_text())["values"][estimator.name])


@pytest.mark.skipif(not ORACLES.python.is_file(), reason="sb-obp is not installed: `make oracles`")
def test_strengths_are_judged_as_sb_obp_judges_them() -> None:
    rng = np.random.default_rng(0)
    arrays = arithmetic_rounds(900, 12)
    arrays["reward_R"] = rng.random(900) * (1.0 + arrays["action_R"])
    theirs = ask(ORACLES, "obp_tuning_program.py", asked(), arrays).result["values"]
    for estimator in TUNABLE:
        agrees(ours(arrays), estimator, theirs[estimator.name])


def test_slope_takes_the_narrowest_that_agrees_with_all_wider_ones() -> None:
    wide, middle, narrow = Candidate("wide", 1.0, 1.0), Candidate("middle", 1.5, 0.4), Candidate("narrow", 1.6, 0.1)
    assert slope([narrow, wide, middle]) == 0
    biased = Candidate("biased", 3.0, 0.05)
    assert slope([narrow, wide, biased, middle]) == 0  # further from `wide` than 0.05 + (sqrt(6) - 1) 1.0
    assert slope([biased]) == 0
    with pytest.raises(ValueError, match="no candidate"):
        slope([])


def test_slope_takes_the_wide_one_where_all_others_are_biased() -> None:
    assert slope([Candidate("biased", 9.0, 0.1), Candidate("wide", 1.0, 1.0), Candidate("too", 9.1, 0.2)]) == 1


def test_weights_without_a_tail_are_not_shrunk_and_those_with_one_are() -> None:
    """A log that chose almost as the target does, and one whose largest weights are hundreds of mere noise."""
    rng = np.random.default_rng(3)
    even = Rounds.of(
        action=np.zeros(2_000, dtype=np.int64),
        reward=rng.random(2_000),
        propensity=np.full(2_000, 0.5),
        target=rng.uniform(0.45, 0.55, size=2_000),
    )
    options = tunings(even, CLIPPED_IPS, strengths(CLIPPED_IPS, even), bias_bound=False)
    ceiling = least_error(options).estimator.tuning
    assert ceiling is not None
    assert ceiling > 0.95 * even.weight_R.max()
    propensity = np.where(rng.random(2_000) < 0.01, 1e-3, 0.5)
    heavy = Rounds.of(
        action=np.zeros(2_000, dtype=np.int64),
        reward=rng.normal(size=2_000),
        propensity=propensity,
        target=np.full(2_000, 0.5),
    )
    options = tunings(heavy, CLIPPED_IPS, strengths(CLIPPED_IPS, heavy), bias_bound=False)
    best = least_error(options)
    assert best.estimator.tuning is not None
    assert best.estimator.tuning < 10.0
    assert Sums.of(best.terms).standard_error < Sums.of(IPS(heavy)).standard_error / 5


def test_what_has_nothing_to_tune_says_so() -> None:
    with pytest.raises(ValueError, match="snips has nothing to tune"):
        tunings(ours(arithmetic_rounds()), SNIPS, [1.0])


def write_golden() -> None:
    """Ask sb-obp about the golden rounds and keep what it says."""
    kept = {
        "made_by": "python tests/evaluation/offpolicy/test_selection.py",
        "values": ask(ORACLES, "obp_tuning_program.py", asked(), arithmetic_rounds()).result["values"],
    }
    GOLDEN.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    write_golden()
