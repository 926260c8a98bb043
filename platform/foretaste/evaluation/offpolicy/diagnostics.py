"""What speaks before the number: whether a log can say what another policy would have earned.

The measures add up over blocks; the checks read the sums. Where the policy that logged is known in full, support and
the weights' second moment are those of the policies, so that a large weight that was never drawn is seen, too.

Shapes: R rounds, A actions, K bins of the propensity.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from operator import add

import numpy as np
from pydantic import Field
from scipy import stats

from foretaste.contracts.config import Frozen
from foretaste.evaluation.offpolicy.rounds import Floats, Rounds
from foretaste.evaluation.offpolicy.stream import cut

_EDGES = np.logspace(-6, 0, 13)
_PROPENSITY_BINS = len(_EDGES) + 1
_CELLS_AT_ONCE = 1_000_000


class DiagnosticsConfig(Frozen):
    """From when on a log is not trusted with an answer."""

    min_rounds: int = Field(100, ge=2, description="rounds that a log must have")
    min_effective_rounds: float = Field(100.0, gt=0, description="rounds of equal weight that it must be worth")
    max_weight_share: float = Field(0.05, gt=0, le=1, description="most that a single round may be of all weights")
    max_weight_share_unknown: float = Field(
        0.02,
        gt=0,
        le=1,
        description="the same where the logging policy is not known in full, so larger ones may be due",
    )
    max_unsupported: float = Field(0.01, ge=0, le=1, description="share of the target's choices never made when logged")
    alarm: float = Field(
        0.001, gt=0, lt=1, description="chance of a false alarm of each test (mean weight, propensities)"
    )
    min_counted: float = Field(10.0, gt=0, description="choices that a propensity test must expect of an action or bin")


class Reason(StrEnum):
    """Why a log cannot answer."""

    TOO_SHORT = "too_short"
    NO_SUPPORT = "no_support"
    FEW_EFFECTIVE_ROUNDS = "few_effective_rounds"
    ONE_ROUND_DECIDES = "one_round_decides"
    WEIGHTS_DO_NOT_AVERAGE_ONE = "weights_do_not_average_one"
    PROPENSITIES_ARE_NOT_FREQUENCIES = "propensities_are_not_frequencies"


@dataclass(frozen=True, slots=True)
class Check:
    """One measure against its bound."""

    reason: Reason
    value: float
    bound: float
    holds: bool
    said: str


@dataclass(frozen=True)
class Measures:
    """Sums over rounds from which all checks follow."""

    num_rounds: int
    weight: float  # sum
    weight_squared: float  # sum
    largest_weight: float
    unsupported: float | None  # sum over rounds of the target's mass on what is never chosen; None: not known
    second_moment: float | None  # sum over rounds of the weight's second moment under the policy that logged
    counted_K: Floats  # choices by bin of propensity, then by action; empty where that policy is not known in full
    expected_K: Floats
    variance_K: Floats

    @classmethod
    def of(cls, rounds: Rounds) -> Measures:
        """Sums over rounds, in the memory of a block."""
        num_actions = 1 if rounds.logging_RA is None else rounds.logging_RA.shape[1]
        parts = [_measures(block) for block in cut(rounds, max(1, _CELLS_AT_ONCE // num_actions))]
        return reduce(add, parts) if parts else _measures(rounds)

    def __add__(self, other: Measures) -> Measures:
        if len(self.counted_K) != len(other.counted_K):
            raise ValueError("wanted the same actions in all blocks, and the logging policy known in all or in none")
        return Measures(
            self.num_rounds + other.num_rounds,
            self.weight + other.weight,
            self.weight_squared + other.weight_squared,
            max(self.largest_weight, other.largest_weight),
            _both(self.unsupported, other.unsupported),
            _both(self.second_moment, other.second_moment),
            self.counted_K + other.counted_K,
            self.expected_K + other.expected_K,
            self.variance_K + other.variance_K,
        )

    @property
    def mean_weight(self) -> float:
        """Mean of the weights; 1 in expectation where everything the target chooses has support."""
        return self.weight / self.num_rounds if self.num_rounds else float("nan")

    @property
    def mean_weight_p(self) -> float:
        """Chance of a mean weight that far from 1 or further, if it is 1. Without spread: 1 or 0; without rounds 1."""
        if not self.num_rounds:
            return 1.0
        spread = self.weight_squared / self.num_rounds - self.mean_weight**2
        error = np.sqrt(max(spread, 0.0) / max(self.num_rounds - 1, 1))
        away = abs(self.mean_weight - 1.0)
        if error <= 1e-12:
            return 1.0 if away < 1e-6 else 0.0
        return float(2.0 * stats.norm.sf(away / error))

    @property
    def effective_rounds(self) -> float:
        """Rounds of equal weight that would be as much (Kish 1965), as drawn or as the policies say, what is less."""
        drawn = self.weight**2 / self.weight_squared if self.weight_squared > 0 else 0.0
        if not self.second_moment:
            return drawn
        return min(drawn, self.num_rounds**2 / self.second_moment)

    @property
    def largest_share(self) -> float:
        """The largest weight over the sum of all."""
        return self.largest_weight / self.weight if self.weight > 0 else 1.0

    @property
    def unsupported_share(self) -> float:
        """Share of the target's choices that are never made when logged; nan where nobody knows."""
        return float("nan") if self.unsupported is None else self.unsupported / max(self.num_rounds, 1)

    def propensity_p(self, min_counted: float) -> float:
        """Chance of counts that far from what propensities say in the worst bin or action, times how many there are.

        Those with fewer expected choices are left out. 1 where the policy that logged is not known in full.
        """
        enough_K = (self.expected_K >= min_counted) & (self.variance_K >= min_counted / 2)
        if not enough_K.any():
            return 1.0
        away_K = np.abs(self.counted_K - self.expected_K)[enough_K] / np.sqrt(self.variance_K[enough_K])
        return float(min(1.0, 2.0 * stats.norm.sf(away_K.max()) * enough_K.sum()))


def checks(measures: Measures, config: DiagnosticsConfig) -> list[Check]:
    """Every measure against its bound, in the order in which they explain each other."""
    m, c = measures, config
    most = c.max_weight_share if m.second_moment is not None else c.max_weight_share_unknown
    propensity_p = m.propensity_p(c.min_counted)
    unsupported, known = m.unsupported_share, m.unsupported is not None
    said = f"{unsupported:.2%} of the target's choices are never made" if known else "support is not known"
    return [
        _least(Reason.TOO_SHORT, m.num_rounds, c.min_rounds, f"{m.num_rounds} rounds"),
        Check(
            Reason.NO_SUPPORT,
            unsupported,
            c.max_unsupported,
            not known or unsupported <= c.max_unsupported,
            f"{said}, wanted {c.max_unsupported:.2%} at most",
        ),
        _least(
            Reason.PROPENSITIES_ARE_NOT_FREQUENCIES,
            propensity_p,
            c.alarm,
            f"counted choices have p = {propensity_p:.2g} under the logged propensities",
        ),
        _least(
            Reason.WEIGHTS_DO_NOT_AVERAGE_ONE,
            m.mean_weight_p,
            c.alarm,
            f"weights average {m.mean_weight:.4g} instead of 1, p = {m.mean_weight_p:.2g}",
        ),
        _least(
            Reason.FEW_EFFECTIVE_ROUNDS,
            m.effective_rounds,
            c.min_effective_rounds,
            f"{m.num_rounds} rounds are worth {m.effective_rounds:.1f} of equal weight",
        ),
        Check(
            Reason.ONE_ROUND_DECIDES,
            m.largest_share,
            most,
            m.largest_share <= most,
            f"the largest weight, {m.largest_weight:.4g}, is {m.largest_share:.1%} of all, wanted {most:.1%} at most",
        ),
    ]


def _least(reason: Reason, value: float, bound: float, said: str) -> Check:
    return Check(reason, float(value), float(bound), bool(value >= bound), f"{said}, wanted {bound:g} at least")


def _both(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _measures(rounds: Rounds) -> Measures:
    weight_R, logging_RA, target_RA = rounds.weight_R, rounds.logging_RA, rounds.target_RA
    unsupported = second_moment = None
    if logging_RA is not None and target_RA is not None:
        never_RA = logging_RA <= 0
        unsupported = float(target_RA[never_RA].sum())
        second_moment = float((target_RA**2 / np.where(never_RA, np.inf, logging_RA)).sum())
    nothing_K = np.zeros(0)
    counted = (nothing_K, nothing_K, nothing_K) if logging_RA is None else _counts(rounds, logging_RA)
    largest = float(weight_R.max(initial=0.0))
    return Measures(
        len(rounds), float(weight_R.sum()), float(weight_R @ weight_R), largest, unsupported, second_moment, *counted
    )


def _counts(rounds: Rounds, logging_RA: Floats) -> tuple[Floats, Floats, Floats]:
    """Counted and expected choices and their variance, by bin of propensity and by action, one after the other."""
    num_rounds, num_actions = logging_RA.shape
    bin_RA = np.searchsorted(_EDGES, logging_RA)
    place_RA = bin_RA + np.arange(num_rounds)[:, None] * _PROPENSITY_BINS
    in_bin_RK = np.bincount(place_RA.ravel(), logging_RA.ravel(), num_rounds * _PROPENSITY_BINS)
    chance_RK = np.hstack([in_bin_RK.reshape(num_rounds, _PROPENSITY_BINS), logging_RA])
    chosen_R = bin_RA[np.arange(num_rounds), rounds.action_R]
    by_bin = np.bincount(chosen_R, minlength=_PROPENSITY_BINS)
    by_action = np.bincount(rounds.action_R, minlength=num_actions)
    variance_K: Floats = (chance_RK * (1.0 - chance_RK)).sum(axis=0)
    return np.append(by_bin, by_action).astype(np.float64), chance_RK.sum(axis=0), variance_K
