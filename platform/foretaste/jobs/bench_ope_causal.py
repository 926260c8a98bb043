"""`foretaste bench ope --part causal`: instruments and uplift beside their oracles, a confounder, and a real test.

- oracle: two-stage least squares and its tests beside linearmodels, Qini and AUUC beside scikit-uplift.
- confounder (bench_ope_confounder.py): what playing a title does to returning, by least squares, by inverse
  propensities (fitted, as plays are nobody's dice), doubly robust, and by instrument; and the same where mood does not
  reach returning, the control in which all should be right.
- stochastic: instruments with many controls, by gradients beside the exact solution on the same rows.
- hillstrom (bench_ope_hillstrom.py): lifts, then uplift learners by cross-fitting.
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
from scipy import sparse

from foretaste.evaluation.causal.absorbing import absorbed
from foretaste.evaluation.causal.instruments import least_squares, recentred, two_stage
from foretaste.evaluation.causal.instruments_sgd import StochasticInstruments
from foretaste.evaluation.causal.moments import moments
from foretaste.evaluation.causal.strength import first_stage, sargan, wu_hausman
from foretaste.evaluation.causal.uplift_curves import ranked
from foretaste.jobs.bench_ope_causal_bars import Found, at_most, over
from foretaste.jobs.bench_ope_confounder import confounder_part
from foretaste.jobs.bench_ope_hillstrom import HILLSTROM, hillstrom_part
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings
from foretaste.ops.telemetry import say

Floats = NDArray[np.float64]

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-oracles" / "bin" / "python"
PROGRAM = ROOT / "deployments" / "references" / "causal_program.py"
SEEDS, QUICK_SEEDS = 20, 3
WORDS = 20
"""Hashed controls of a row that are not 0."""


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
    figures: dict[str, Any] = {}
    bars: dict[str, Any] = {}
    skipped: dict[str, str] = {}
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
        "2SLS beside linearmodels, largest relative difference": at_most(max(off.values()), 1e-8),
        "Qini and AUUC beside scikit-uplift, largest relative difference": at_most(max(curves.values()), 1e-9),
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


def stochastic_part(*, quick: bool) -> Found:
    """The effect by gradients beside the exact one, in standard errors, where controls move the instrument, too."""
    rows, controls, seeds = (30_000, 50, 2) if quick else (200_000, 200, 5)
    warm_up = rows // 10
    off, ratio = [], []
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
    wide = 2**12 if quick else 2**16
    hashed = [_hashed(rows, wide, seed) for seed in range(seeds)]
    figures = {
        "rows": rows,
        "seeds": seeds,
        f"{controls} dense controls": {"off_in_standard_errors": over(off), "time_over_exact": over(ratio)},
        f"{wide:,} hashed controls": {name: over([one[name] for one in hashed]) for name in hashed[0]}
        | {"mib_of_weights": 2 * 3 * 8 * wide / 2**20, "mib_of_a_matrix_of_controls": 8 * wide**2 / 2**20},
    }
    bars = {
        "instruments by gradients, difference to 2SLS in standard errors": at_most(max(off), 0.5),
        "instruments by gradients, hashed controls, mean distance from the truth in standard errors": at_most(
            float(np.mean([one["off_in_standard_errors"] for one in hashed])), 2.0
        ),
    }
    return figures, bars, {}


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


def _hashed(rows: int, controls: int, seed: int) -> dict[str, float]:
    """Sparse hashed controls, dice as instrument: how far from the planted 0.4, and at what cost."""
    rng = np.random.default_rng(seed)
    place = rng.integers(0, controls, size=(rows, WORDS))
    values = np.full(rows * WORDS, WORDS**-0.5)
    control = sparse.csr_array((values, place.ravel(), np.arange(0, rows * WORDS + 1, WORDS)), shape=(rows, controls))
    mood, told = rng.normal(size=rows), control @ rng.normal(size=(controls, 2))
    shown = rng.random(rows) < 0.5
    exposure = (0.8 * shown + mood + told[:, 0] + rng.normal(size=rows) > 0.5).astype(np.float64)
    outcome = 0.4 * exposure + mood + told[:, 1] + 0.5 * told[:, 0] + rng.normal(size=rows)
    stream = StochasticInstruments(controls, warm_up=rows // 10)
    started = time.perf_counter()
    stream.update(outcome, exposure, control, recentred(shown, np.full(rows, 0.5)))
    seconds = time.perf_counter() - started
    fitted = stream.fit()
    assert stream.sums is not None
    return {
        "off_in_standard_errors": abs(fitted.effect().value - 0.4) / float(fitted.fit.error_J[0]),
        "least_squares_relative_error": (least_squares(stream.sums).effect().value - 0.4) / 0.4,
        "rows_a_second": rows / seconds,
    }


def _furthest(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Largest difference, relative to the number or, of a matrix, to its diagonal."""
    scale = np.sqrt(np.outer(np.diag(theirs), np.diag(theirs))) if theirs.ndim == 2 else np.abs(theirs)
    return float((np.abs(ours - theirs) / scale).max())
