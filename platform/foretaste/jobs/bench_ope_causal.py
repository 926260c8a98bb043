"""`foretaste bench ope --part causal`: instruments and uplift beside their oracles, a confounder, and a real test.

- oracle: two-stage least squares and its tests beside linearmodels, Qini and AUUC beside scikit-uplift.
- confounder: sessions whose mood the log does not hold (worlds/moods.py). What playing a title does to returning, by
  least squares, by inverse propensities (fitted, as plays are nobody's dice), doubly robust, and by instrument; and the
  same where mood does not reach returning, the control in which all should be right.
- stochastic: instruments with many controls, by gradients beside the exact solution on the same rows.
- hillstrom: lifts, then uplift learners by cross-fitting.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from foretaste.datasets import hillstrom
from foretaste.evaluation.causal.absorbing import absorbed
from foretaste.evaluation.causal.instruments import least_squares, recentred, two_stage
from foretaste.evaluation.causal.instruments_sgd import StochasticInstruments
from foretaste.evaluation.causal.lifts import MISMATCH_BELOW, lift, sample_ratio
from foretaste.evaluation.causal.moments import Moments, moments, total
from foretaste.evaluation.causal.strength import anderson_rubin, first_stage, sargan, wu_hausman
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
from foretaste.evaluation.intervals import Figure
from foretaste.evaluation.seeds import over_seeds
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings
from foretaste.ops.telemetry import say
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.moods import MoodConfig, MoodSessions, mood_sessions

Floats = NDArray[np.float64]
Found = tuple[dict[str, Any], dict[str, Any], dict[str, str]]
"""Figures, bars, and what was skipped."""

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-oracles" / "bin" / "python"
PROGRAM = ROOT / "deployments" / "references" / "causal_program.py"
HILLSTROM = ROOT / ".." / "shared" / "data" / "hillstrom"

SEEDS, QUICK_SEEDS = 20, 3
SESSIONS, QUICK_SESSIONS = 1_500_000, 100_000
BLOCKS = 8
WANTED_LIFTS = {"Mens E-Mail": 0.0766, "Womens E-Mail": 0.0452}


def causal(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Measure all four; `--seeds` is the number of worlds, `--from` the folder of hillstrom.csv."""
    source = options.source or HILLSTROM
    parts: dict[str, Callable[[], Found]] = {
        "oracle": lambda: oracle_part(quick=options.quick),
        "confounder": lambda: confounder_part(
            options.seeds or (QUICK_SEEDS if options.quick else SEEDS), options.quick
        ),
        "stochastic": lambda: stochastic_part(quick=options.quick),
        "hillstrom": lambda: hillstrom_part(source, quick=options.quick),
    }
    figures, bars, skipped = {}, {}, {}
    for name, part in parts.items():
        started = time.perf_counter()
        figures[name], more, missing = part()
        bars |= more
        skipped |= missing
        say(f"{name}: {time.perf_counter() - started:.1f} s")
    return {"figures": figures, "bars": bars, "skipped": skipped}


def oracle_part(*, quick: bool) -> Found:
    """The largest relative difference to linearmodels and scikit-uplift on drawn rows."""
    if not PYTHON.is_file():
        return {}, {}, {"oracle": "the oracle libraries are not installed: `make oracles`"}
    given = _oracle_rows(500 if quick else 5_000)
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "in.json", Path(folder) / "out.json"
        asked.write_text(json.dumps({what: {k: v.tolist() for k, v in rows.items()} for what, rows in given.items()}))
        subprocess.run([PYTHON, PROGRAM, asked, answered], check=True, timeout=300)
        found = json.loads(answered.read_text())
    rows, theirs = given["instruments"], found["instruments"]
    parts = [rows[key] for key in ("outcome", "exposures", "controls", "instruments")]
    sums, clustered = moments(*parts), moments(*parts, cluster_N=rows["clusters"])
    ours = {
        "coefficients": two_stage(sums).fit.coefficient_J,
        "robust": two_stage(sums).fit.covariance_JJ,
        "robust_small": two_stage(sums, small_sample=True).fit.covariance_JJ,
        "plain": two_stage(sums, robust=False).fit.covariance_JJ,
        "clustered": two_stage(clustered).fit.covariance_JJ,
        "robust_wald": np.array([first_stage(sums, place).robust_wald for place in range(2)]),
        "wu_hausman": np.array(wu_hausman(sums, robust=False).statistic),
        "wooldridge": np.array(wu_hausman(sums).statistic),
        "sargan": np.array(sargan(sums).statistic),
    }
    theirs |= theirs["covariances"]
    off = {name: _furthest(value, np.asarray(theirs[name])) for name, value in ours.items()}
    one = ranked(*(given["uplift"][key] for key in ("outcome", "score", "treated")), resamples=0)
    curves = {
        name: _furthest(np.array(value), np.asarray(found["uplift"][name]))
        for name, value in (("qini", one.qini.value), ("auuc", one.auuc.value))
    }
    bars = {
        "2SLS beside linearmodels, largest relative difference": _at_most(max(off.values()), 1e-8),
        "Qini and AUUC beside scikit-uplift, largest relative difference": _at_most(max(curves.values()), 1e-9),
    }
    return {"relative_differences": off | curves, "versions": found["versions"]}, bars, {}


def _oracle_rows(num: int) -> dict[str, dict[str, NDArray[Any]]]:
    rng = np.random.default_rng(11)
    member_N = rng.integers(0, num // 5, num)
    mood_N = rng.normal(size=num // 5)[member_N] + rng.normal(size=num)
    control_N3 = np.column_stack([np.ones(num), rng.normal(size=(num, 2))])
    instrument_N4 = rng.normal(size=(num, 4))
    exposure_N2 = instrument_N4 @ rng.normal(0.6, 0.3, (4, 2)) + np.outer(mood_N, [1.0, 0.6])
    exposure_N2 += control_N3 @ rng.normal(size=(3, 2)) + rng.normal(size=(num, 2))
    noise_N = rng.normal(size=num) * (1.0 + np.abs(instrument_N4[:, 0]))
    outcome_N = exposure_N2 @ [0.5, -0.3] + control_N3 @ [1.0, 0.4, -0.2] + 1.5 * mood_N + noise_N
    score_N, treated_N = np.round(rng.normal(size=num), 2), rng.integers(0, 2, num)
    won_N = (rng.random(num) < 0.3 + 0.1 * treated_N * (score_N > 0)).astype(np.int64)
    return {
        "instruments": {"outcome": outcome_N, "exposures": exposure_N2, "controls": control_N3,
                        "instruments": instrument_N4, "clusters": member_N},
        "uplift": {"outcome": won_N, "score": score_N, "treated": treated_N},
    }  # fmt: skip


def confounder_part(num_seeds: int, quick: bool) -> Found:
    """Relative errors of each way to tell what playing does to returning, over worlds."""
    sessions = QUICK_SESSIONS if quick else SESSIONS
    confounded = [_one_world(MoodConfig(num_sessions=sessions), seed) for seed in range(num_seeds)]
    without = MoodConfig(num_sessions=sessions, returns_if_good=0.0)
    control = [_one_world(without, seed) for seed in range(min(num_seeds, 5))]
    errors = {way: [one["errors"][way] for one in confounded] for way in confounded[0]["errors"]}
    worst = {way: float(min(np.abs(one["errors"][way]) for one in confounded)) for way in errors}
    instrument = over_seeds(errors["instrument"])
    ends = [abs(end) for end in (instrument.low, instrument.high, instrument.value) if end is not None]
    figures = {
        "sessions": sessions,
        "seeds": num_seeds,
        "true_effect": _over([one["truth"] for one in confounded]),
        "relative_error": {way: _over(values) for way, values in errors.items()},
        "relative_error_without_confounder": {way: _over([o["errors"][way] for o in control]) for way in errors},
        "instrument_furthest_seed": float(np.abs(errors["instrument"]).max()),
        "instrument_intervals_that_hold_the_truth": float(np.mean([one["covered"] for one in confounded])),
        "first_world": confounded[0]["facts"],
    }
    bars = {
        "instrument, mean relative error, further end of its interval": _at_most(max(ends), 0.05),
        "least squares, least relative error of any seed": _at_least(worst["least_squares"], 0.3),
        "IPS, least relative error of any seed": _at_least(min(worst["ips"], worst["snips"]), 0.3),
    }
    if not quick:
        bars["instrument, relative error of the furthest seed"] = _at_most(figures["instrument_furthest_seed"], 0.05)
    return figures, bars, {}


def _one_world(config: MoodConfig, seed: int) -> dict[str, Any]:
    drawn = mood_sessions(WorldConfig(num_members=1_250), config, seed=seed)
    truth, all_ = drawn.effect_on_compliers, drawn.effect_on_all
    sums = _summed(drawn)
    instrument, plain = two_stage(sums).effect(), least_squares(sums).effect()
    assert instrument.low is not None
    assert instrument.high is not None
    first = first_stage(sums)
    told = {"least_squares": plain.value} | _by_propensity(drawn)
    errors = {name: min(((value - one) / one for one in (truth, all_)), key=abs) for name, value in told.items()}
    facts = {
        "instrument": [instrument.value, instrument.low, instrument.high],
        "anderson_rubin": anderson_rubin(sums),
        "effective_f": [first.effective_f, first.effective_f_wanted],
        "wu_hausman_p": wu_hausman(sums).p,
        "effect_on_all": all_,
        "played": float(drawn.played_S.mean()),
        "compliers": float((drawn.plays_if_shown_S & ~drawn.plays_if_not_S).mean()),
    }
    covered = bool(instrument.low <= truth <= instrument.high)
    return {
        "truth": truth,
        "errors": {"instrument": (instrument.value - truth) / truth} | errors,
        "covered": covered,
        "facts": facts,
    }


def _summed(drawn: MoodSessions) -> Moments:
    """As a stream would: a block is the sessions of some members."""
    instrument_S = recentred(drawn.shown_S, drawn.propensity_S)
    control_SD = np.column_stack([np.ones(len(instrument_S)), drawn.control_SD])
    blocks = []
    for block in range(BLOCKS):
        rows = np.flatnonzero(drawn.member_S % BLOCKS == block)
        parts = (drawn.returned_S[rows], drawn.played_S[rows], control_SD[rows], instrument_S[rows])
        blocks.append(moments(*parts, cluster_N=drawn.member_S[rows]))
    return total(blocks)


def _by_propensity(drawn: MoodSessions) -> dict[str, float]:
    """What weighing by propensities of playing says, fitted on all that the log holds; and by those of being shown."""
    played, returned = drawn.played_S, drawn.returned_S.astype(np.float64)
    model = LogisticRegression(C=1e6).fit(drawn.control_SD, played)
    e = model.predict_proba(drawn.control_SD)[:, 1]
    up, down = played / e, ~played / (1.0 - e)
    lines = [LinearRegression().fit(drawn.control_SD[rows], returned[rows]) for rows in (played, ~played)]
    if_played, if_not = (line.predict(drawn.control_SD) for line in lines)
    robust = if_played - if_not + up * (returned - if_played) - down * (returned - if_not)
    return {
        "ips": float((returned * (up - down)).mean()),
        "snips": float((returned * up).sum() / up.sum() - (returned * down).sum() / down.sum()),
        "doubly_robust": float(robust.mean()),
        "ips_of_being_shown": float((returned * recentred(drawn.shown_S, drawn.propensity_S)).mean()),
    }


def stochastic_part(*, quick: bool) -> Found:
    """The effect by gradients beside the exact one, in standard errors, where controls move the instrument, too."""
    rows, controls, seeds = (30_000, 50, 2) if quick else (200_000, 200, 5)
    warm_up = rows // 10
    off, ratio, memory = [], [], []
    for seed in range(seeds):
        outcome, exposure, control, instrument = _many_controls(rows, controls, seed)
        late = slice(warm_up, None)
        started = time.perf_counter()
        exact = two_stage(absorbed(outcome[late], exposure[late], control[late], instrument[late]))
        between = time.perf_counter()
        stream = StochasticInstruments(controls, warm_up=warm_up)
        stream.update(outcome, exposure, control, instrument)
        ratio.append((time.perf_counter() - between) / (between - started))
        error = float(exact.fit.error_J[0])
        off.append(abs(stream.fit().effect().value - exact.effect().value) / error)
        memory.append(2 * controls * 3 / controls**2)
    figures = {
        "rows": rows, "controls": controls, "seeds": seeds,
        "difference_in_standard_errors": _over(off), "furthest": max(off),
        "time_over_exact": _over(ratio), "numbers_kept_over_those_of_a_matrix_of_controls": memory[0],
    }  # fmt: skip
    return figures, {"instruments by gradients, difference to 2SLS in standard errors": _at_most(max(off), 0.5)}, {}


def _many_controls(rows: int, controls: int, seed: int) -> tuple[Floats, Floats, Floats, Floats]:
    rng = np.random.default_rng(seed)
    control = rng.normal(size=(rows, controls)) * (1.0 + np.arange(controls)) ** -0.5
    control += 0.3 * control @ rng.normal(size=(controls, controls)) / np.sqrt(controls)
    control[:, 0] = 1.0
    mood = rng.normal(size=rows)
    told = control @ rng.normal(size=(controls, 3))
    instrument = 0.5 * told[:, 0] + rng.normal(size=rows)
    exposure = 0.5 * instrument + mood + told[:, 1] + rng.normal(size=rows)
    outcome = 0.4 * exposure + 2.0 * mood + told[:, 2] + rng.normal(size=rows)
    return outcome, exposure, control, instrument


def hillstrom_part(source: Path, *, quick: bool) -> Found:
    """The test's arms, their lifts in visits, and how well learners rank who would visit for an e-mail."""
    if not source.exists():
        return {}, {}, {"hillstrom": f"the data are not here: {source.name}"}
    test = hillstrom.load(source)
    counts = np.bincount(test.arm_N, minlength=len(hillstrom.ARMS))
    ratio = sample_ratio(counts, np.full(len(counts), 1 / len(counts)))
    figures: dict[str, Any] = {"rows": len(test), "arms": dict(zip(hillstrom.ARMS, counts.tolist(), strict=True))}
    figures["sample_ratio_p"] = ratio
    bars: dict[str, Any] = {"hillstrom, p of the sample ratio": _at_least(ratio, MISMATCH_BELOW)}
    if ratio < MISMATCH_BELOW:
        return figures, bars, {"hillstrom": "the arms have other sizes than assigned: no figure of this test holds"}
    for arm, name in enumerate(hillstrom.ARMS[1:], start=1):
        told = {
            outcome: lift(values[test.arm_N == arm], values[test.arm_N == 0])
            for outcome, values in test.outcomes.items()
        }
        figures[name] = {"lifts": {outcome: _listed(one) for outcome, one in told.items()}}
        off = abs(told["visit"].value - WANTED_LIFTS[name])
        bars[f"hillstrom, {name}, lift in visits, distance from {WANTED_LIFTS[name]}"] = _at_most(off, 5e-5)
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
            "qini": _listed(one.qini),
            "auuc": _listed(one.auuc),
            "visits_gained_a_customer_at_30_50_100_percent": [_listed(gain) for gain in curve.gain],
            "area_above_random": _listed(curve.area),
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


def _furthest(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Largest difference, relative to the number or, of a matrix, to its diagonal."""
    scale = np.sqrt(np.outer(np.diag(theirs), np.diag(theirs))) if theirs.ndim == 2 else np.abs(theirs)
    return float((np.abs(ours - theirs) / scale).max())


def _over(values: list[float]) -> dict[str, Any]:
    one = over_seeds(values)
    return {"value": one.value, "low": one.low, "high": one.high}


def _listed(one: Figure) -> list[float | None]:
    return [one.value, one.low, one.high]


def _at_most(value: float, limit: float) -> dict[str, Any]:
    return {"value": value, "want": f"<= {limit:g}", "holds": bool(value <= limit)}


def _at_least(value: float, limit: float) -> dict[str, Any]:
    return {"value": value, "want": f">= {limit:g}", "holds": bool(value >= limit)}
