"""Whether intervals hold the truth as often as they say, and whether a log that cannot answer is refused.

Shapes: L logs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from foretaste.evaluation.offpolicy import estimators as known
from foretaste.evaluation.offpolicy.answer import Answer, AnswerConfig, answer
from foretaste.evaluation.offpolicy.intervals import Resamples, bernstein
from foretaste.evaluation.offpolicy.synthetic_logs import FAULTS, Fault, KnownLog, LogConfig, known_log
from foretaste.evaluation.offpolicy.terms import Sums
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings
from foretaste.ops.telemetry import say

NUM_LOGS, NUM_FAULTY = 1_000, 100
QUICK_LOGS, QUICK_FAULTY = 60, 8
LOW, HIGH, REFUSED = 0.93, 0.97, 0.95
RESAMPLES = 300
Asked = tuple[LogConfig, KnownLog, Answer]


def coverage(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Coverage of answered logs, estimators' errors on them, and the share of faulty logs refused; figures and bars."""
    num_logs, num_faulty = (QUICK_LOGS, QUICK_FAULTY) if options.quick else (options.size or NUM_LOGS, NUM_FAULTY)
    rng = np.random.default_rng(settings.evaluation.seed)
    asked: list[Asked] = []
    answered: list[Asked] = []
    while len(answered) < num_logs:
        asked.append(_asked(rng, None, settings.off_policy))
        if asked[-1][2].recommended is not None:
            answered.append(asked[-1])
    say(f"{len(asked)} logs asked, {len(answered)} answered")
    figures: dict[str, Any] = {
        "logs asked": len(asked),
        "logs answered": len(answered),
        "refused for": _reasons(asked),
        "recommended": dict(Counter(found.recommended for _, _, found in answered)),
        "estimators": {name: _row(answered, name) for name in answered[0][2].estimates},
        "recommended estimator": _row(answered, None),
        "whom SLOPE takes": {"root mean squared error": _root([_slope_error(one) for one in answered])},
        "the best in hindsight": {"root mean squared error": _root([_least_error(one) for one in answered])},
        "bootstrap": _share([_bootstrap_holds(one) for one in answered]),
        "bernstein of ips, binary rewards": _share([_bernstein_holds(o) for o in answered if o[0].reward == "binary"]),
        "by rounds": _split(answered, lambda config: config.num_rounds),
        "by actions": _split(answered, lambda config: config.num_actions),
        "by reward": _split(answered, lambda config: config.reward),
    }
    share = figures["recommended estimator"]["coverage"]
    bars = {"coverage of the recommended estimator's 95% interval": _bar(share["value"], LOW, HIGH, share["interval"])}
    for fault in FAULTS:
        faulty = [_asked(rng, fault, settings.off_policy) for _ in range(num_faulty)]
        refused = _share([found.recommended is None for _, _, found in faulty])
        figures[f"fault: {fault}"] = {
            "refused": refused,
            "for": _reasons(faulty),
            "sndr would have covered": _row(faulty, known.SNDR.name)["coverage"],
        }
        bars[f"refused, {fault}"] = _bar(refused["value"], REFUSED, 1.0, refused["interval"])
        say(f"{fault}: refused {refused['value']:.2f}")
    return {"figures": figures, "bars": bars, "skipped": {}}


def _asked(rng: np.random.Generator, fault: Fault | None, asking: AnswerConfig) -> Asked:
    config = LogConfig.drawn(rng, fault=fault)
    log = known_log(config, rng)
    return config, log, answer(log.rounds, asking)


def _row(asked: list[Asked], name: str | None) -> dict[str, Any]:
    """Coverage, error and width of one estimator, or of the recommended one."""
    chosen = [(log.truth, found.estimates[name or found.recommended or ""]) for _, log, found in asked]
    return {
        "coverage": _share([interval.holds(truth) for truth, interval in chosen]),
        "root mean squared error": _root([interval.value - truth for truth, interval in chosen]),
        "half width": round(float(np.mean([interval.half_width for _, interval in chosen])), 4),
    }


def _slope_error(one: Asked) -> float:
    _, log, found = one
    return found.estimates[found.least_error or ""].value - log.truth


def _least_error(one: Asked) -> float:
    _, log, found = one
    return min((interval.value - log.truth for interval in found.estimates.values()), key=abs)


def _bootstrap_holds(one: Asked) -> bool:
    _, log, found = one
    estimator = next(e for e in known.EVERY if e.name == found.recommended)
    terms, unit_R = estimator(log.rounds), np.arange(len(log.rounds))
    drawn = Resamples.of(terms, unit_R, resamples=RESAMPLES, seed=0)
    return drawn.interval(Sums.of(terms).value).holds(log.truth)


def _bernstein_holds(one: Asked) -> bool:
    """With the largest weight that the policies allow as the bound."""
    _, log, _ = one
    target_RA, logging_RA = log.rounds.target_RA, log.rounds.logging_RA
    if target_RA is None or logging_RA is None:
        raise ValueError("bernstein: wanted both policies in full")
    high = float((target_RA / logging_RA).max())
    bare = replace(log.rounds, predicted_R=None, expected_R=None, predicted_RA=None)
    return bernstein(Sums.of(known.IPS(bare)), low=0.0, high=high).holds(log.truth)


def _split(asked: list[Asked], key: Callable[[LogConfig], Any]) -> dict[str, Any]:
    values = sorted({key(config) for config, _, _ in asked})
    return {str(value): _row([one for one in asked if key(one[0]) == value], None)["coverage"] for value in values}


def _reasons(asked: list[Asked]) -> dict[str, int]:
    return dict(Counter(reason.value for _, _, found in asked for reason in found.refusals))


def _share(held: list[bool]) -> dict[str, Any]:
    """A share with Wilson's interval."""
    if not held:
        return {"value": float("nan"), "interval": None, "logs": 0}
    ends = stats.binomtest(int(sum(held)), len(held)).proportion_ci(0.95, method="wilson")
    return {"value": round(float(np.mean(held)), 4), "interval": [round(float(e), 4) for e in ends], "logs": len(held)}


def _root(errors: list[float]) -> float:
    return round(float(np.sqrt(np.mean(np.square(errors)))), 5)


def _bar(value: float, low: float, high: float, interval: list[float] | None) -> dict[str, Any]:
    wanted = f"{low} to {high}" if high < 1 else f">= {low}"
    return {"value": value, "interval": interval, "want": wanted, "holds": low <= value <= high}
