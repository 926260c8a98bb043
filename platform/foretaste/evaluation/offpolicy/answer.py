"""What another policy would have earned: diagnostics first, then one estimate with its interval, or why there is none.

The recommended estimator is the first of SNDR, DR, SNIPS and IPS than which none is clearly surer. Their bias vanishes,
while an interval of a shrunk one does not know its bias, and whoever takes the surest of many takes what only looks so.
Shrunk ones are tuned and listed; SLOPE names whom it would take for the least error.

Shapes: R rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from foretaste.contracts.config import Frozen
from foretaste.evaluation.offpolicy import estimators as known
from foretaste.evaluation.offpolicy.diagnostics import Check, DiagnosticsConfig, Measures, Reason, checks
from foretaste.evaluation.offpolicy.estimators import Estimator
from foretaste.evaluation.offpolicy.intervals import Interval, Resamples, skewed, student, student_of_actors
from foretaste.evaluation.offpolicy.rounds import Rounds
from foretaste.evaluation.offpolicy.selection import Candidate, least_error, slope, strengths, tunings
from foretaste.evaluation.offpolicy.terms import Sums, Terms

CONSISTENT = (known.SNDR, known.DR, known.SNIPS, known.IPS)
"""Those whose bias vanishes with the length of the log."""

SHRUNK = (known.CLIPPED_IPS, known.SWITCH_DR, known.DROS)
"""Those that trade bias for variance, with a strength to be found from the log."""


class AnswerConfig(Frozen):
    """How a log is asked."""

    diagnostics: DiagnosticsConfig = Field(DiagnosticsConfig(), description="from when on a log is not trusted")
    level: float = Field(0.95, gt=0, lt=1, description="share of logs in which the interval is to hold the truth")
    interval: Literal["skewed", "student", "bootstrap"] = Field("skewed", description="method of the intervals")
    surer_by: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="share by which the standard error must be less for another than the first estimator",
    )
    resamples: int = Field(1_000, ge=100, description="resamples of the bootstrap")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")
    bias_bound: bool = Field(
        True, description="whether strengths are tuned by a bound of the bias, or by the bias itself"
    )


@dataclass(frozen=True)
class Answer:
    """What the log says, or why it says nothing."""

    checks: tuple[Check, ...]
    refusals: tuple[Reason, ...]
    recommended: str | None  # name of the estimator; None where the log cannot answer
    interval: Interval | None
    estimates: dict[str, Interval]  # of every estimator that could be made, refused or not: to look at, not to act on
    tuned: dict[str, float]  # strengths found, by estimator
    least_error: str | None  # whom SLOPE takes
    logged: Interval | None = None  # what the policy that logged earned
    difference: Interval | None = None  # by how much the target policy would have earned more, by the same rounds

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the log cannot answer, a sentence each."""
        return tuple(check.said for check in self.checks if not check.holds)

    def record(self) -> dict[str, Any]:
        """All of it as JSON."""
        rows = {name: _row(interval) for name, interval in self.estimates.items()}
        return {
            "answers": self.recommended is not None,
            "refusals": [reason.value for reason in self.refusals],
            "reasons": list(self.reasons),
            "checks": {check.reason.value: {"holds": check.holds, "said": check.said} for check in self.checks},
            "recommended": self.recommended,
            "interval": None if self.interval is None else _row(self.interval),
            "logged": None if self.logged is None else _row(self.logged),
            "difference": None if self.difference is None else _row(self.difference),
            "least_error": self.least_error,
            "estimates": rows,
            "tuned": {name: strength if np.isfinite(strength) else None for name, strength in self.tuned.items()},
        }


def answer(
    rounds: Rounds,
    config: AnswerConfig,
    *,
    consistent: Sequence[Estimator] = CONSISTENT,
    measures: Measures | None = None,
) -> Answer:
    """Ask a log what the target policy would have earned a round in the mean.

    Predictions must come from a model that did not learn from the rounds themselves (cross-fitting), or the interval is
    too narrow. Where rounds have actors, the interval is of actors. `measures` are what is checked where rounds are
    not what was drawn: of whole lists where rounds are their places.
    """
    found = tuple(checks(Measures.of(rounds) if measures is None else measures, config.diagnostics))
    refusals = tuple(check.reason for check in found if not check.holds)
    if not len(rounds) or not rounds.weight_R.any():
        return Answer(found, refusals, None, None, {}, {}, None)
    logged = interval_of(Terms(len(rounds), rounds.reward_R), rounds, config)
    modelled = rounds.expected_R is not None and rounds.predicted_R is not None
    terms = {e.name: e(rounds) for e in (*consistent, known.DM) if modelled or not e.modelled}
    tuned = {}
    for estimator in SHRUNK:
        if modelled or not estimator.modelled:
            options = tunings(rounds, estimator, strengths(estimator, rounds), bias_bound=config.bias_bound)
            best = least_error(options)
            terms[estimator.name], tuned[estimator.name] = best.terms, float(best.estimator.tuning or 0.0)
    estimates = {name: interval_of(made, rounds, config) for name, made in terms.items()}
    trusted = [e.name for e in consistent if e.name in estimates]
    # The direct method's interval is of the contexts alone, far too narrow for SLOPE to see its bias.
    candidates = [Candidate.of(name, Sums.of(made)) for name, made in terms.items() if name != known.DM.name]
    least = min(estimates[name].standard_error for name in trusted)
    surest = next(name for name in trusted if estimates[name].standard_error * (1 - config.surer_by) <= least)
    return Answer(
        checks=found,
        refusals=refusals,
        recommended=None if refusals else surest,
        interval=None if refusals else estimates[surest],
        estimates=estimates,
        tuned=tuned,
        least_error=candidates[slope(candidates)].name,
        logged=logged,
        difference=None if refusals else interval_of(_beyond(terms[surest], rounds), rounds, config),
    )


def _beyond(terms: Terms, rounds: Rounds) -> Terms:
    """The terms of an estimate less what was earned: paired, for both are of the same rounds."""
    base_R = -rounds.reward_R if terms.base_R is None else terms.base_R - rounds.reward_R
    return replace(terms, base_R=base_R)


def interval_of(terms: Terms, rounds: Rounds, config: AnswerConfig) -> Interval:
    """The interval of an estimate by the configured method, of actors where rounds have them."""
    if config.interval == "bootstrap":
        unit_R = np.arange(len(rounds)) if rounds.actor_R is None else rounds.actor_R
        drawn = Resamples.of(terms, unit_R, resamples=config.resamples, seed=config.seed)
        return drawn.interval(Sums.of(terms).value, level=config.level)
    if config.interval == "skewed":
        return skewed(terms, rounds.actor_R, level=config.level)
    if rounds.actor_R is not None:
        return student_of_actors(terms, rounds.actor_R, level=config.level)
    return student(Sums.of(terms), level=config.level)


def _row(interval: Interval) -> dict[str, Any]:
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "standard_error": interval.standard_error,
        "method": interval.method,
        "level": interval.level,
    }
