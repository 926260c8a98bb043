"""Hillstrom's e-mail test: its lifts, and how well uplift learners rank who would visit for an e-mail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from foretaste.datasets import hillstrom
from foretaste.evaluation.causal.lifts import MISMATCH_BELOW, lift
from foretaste.evaluation.causal.uplift import (
    Chance,
    DRLearner,
    Learner,
    SLearner,
    TLearner,
    Trial,
    XLearner,
    cross_fitted,
    doubly_robust,
    fold_ranks,
)
from foretaste.evaluation.causal.uplift_curves import ranked, reward_curve
from foretaste.jobs.bench_ope_causal_bars import Found, at_least, at_most, listed
from foretaste.ops.sample_ratio import sample_ratio_p
from foretaste.ops.telemetry import say

HILLSTROM = Path(__file__).parents[3] / ".." / "shared" / "data" / "hillstrom"
WANTED_LIFTS = {"Mens E-Mail": 0.0766, "Womens E-Mail": 0.0452}


def hillstrom_part(source: Path, *, quick: bool) -> Found:
    """The test's arms, their lifts in visits, and how well learners rank who would visit for an e-mail."""
    if not source.exists():
        return {}, {}, {"hillstrom": f"the data are not here: {source.name}"}
    test = hillstrom.load(source)
    counts = np.bincount(test.arm_N, minlength=len(hillstrom.ARMS))
    ratio = sample_ratio_p(counts, np.full(len(counts), 1 / len(counts)))
    figures: dict[str, Any] = {"rows": len(test), "arms": dict(zip(hillstrom.ARMS, counts.tolist(), strict=True))}
    figures["sample_ratio_p"] = ratio
    bars: dict[str, Any] = {"hillstrom, p of the sample ratio": at_least(ratio, MISMATCH_BELOW)}
    if ratio < MISMATCH_BELOW:
        return figures, bars, {"hillstrom": "the arms have other sizes than assigned: no figure of this test holds"}
    for arm, name in enumerate(hillstrom.ARMS[1:], start=1):
        told = {
            outcome: lift(values[test.arm_N == arm], values[test.arm_N == 0])
            for outcome, values in test.outcomes.items()
        }
        figures[name] = {"lifts": {outcome: listed(one) for outcome, one in told.items()}}
        off = abs(told["visit"].value - WANTED_LIFTS[name])
        bars[f"hillstrom, {name}, lift in visits, distance from {WANTED_LIFTS[name]}"] = at_most(off, 5e-5)
        figures[name]["learners"] = _learners(test, arm, quick=quick)
    return figures, bars, {}


def _learners(test: hillstrom.EmailTest, arm: int, *, quick: bool) -> dict[str, Any]:
    rows = np.flatnonzero((test.arm_N == 0) | (test.arm_N == arm))
    rows = rows[:: 8 if quick else 1]
    treated_N = test.arm_N[rows] == arm
    trial = Trial(test.column_ND[rows], treated_N, test.outcomes["visit"][rows], np.full(len(rows), 0.5))
    folds, resamples = (2, 100) if quick else (5, 500)
    effect_N = doubly_robust(trial, _visits, folds=folds)
    found = {}
    for name, learner in learners().items():
        told_N = fold_ranks(cross_fitted(learner, trial, folds=folds), trial, folds=folds, seed=0)
        one = ranked(trial.outcome_N, told_N, treated_N, resamples=resamples)
        curve = reward_curve(effect_N, told_N, shares=[0.3, 0.5, 1.0], resamples=resamples)
        found[name] = {
            "qini": listed(one.qini),
            "auuc": listed(one.auuc),
            "visits_gained_a_customer_at_30_50_100_percent": [listed(gain) for gain in curve.gain],
            "area_above_random": listed(curve.area),
        }
        say(f"{name:<22} Qini {one.qini.value:.4f}")
    return found


def learners() -> dict[str, Learner]:
    """The four learners over small boosted trees, and two over lines; nothing was tuned on these rows."""
    return {
        "S, trees": SLearner(_visits),
        "T, trees": TLearner(_visits),
        "X, trees": XLearner(_visits, _effects),
        "DR, trees": DRLearner(_visits, _effects),
        "T, logistic": TLearner(_logistic),
        "DR, lines": DRLearner(_logistic, LinearRegression),
    }


def _visits() -> Chance:
    return Chance(HistGradientBoostingClassifier(max_iter=60, learning_rate=0.05, max_leaf_nodes=8, random_state=0))


def _effects() -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(
        max_iter=40, learning_rate=0.05, max_leaf_nodes=6, min_samples_leaf=300, random_state=0
    )


def _logistic() -> Chance:
    return Chance(make_pipeline(StandardScaler(), LogisticRegression()))
