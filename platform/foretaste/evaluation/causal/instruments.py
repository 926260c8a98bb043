"""p(outcome | controls, do(exposure)): two-stage least squares with randomised exposure as instrument, robust errors.

What a member plays depends on what the log does not hold (a mood), and so does what they do later: comparing those who
played with those who did not answers another question. That the dice put a title before a member depends on nothing,
moves what is played, and reaches the outcome through that alone: an instrument.

Angrist and Pischke 2009, chapter 4; White, Econometrica 1980 (errors); Wooldridge 2010, sections 5.2 and 6.3.

Shapes: N rows, K exposures, D controls, L instruments, P columns of the moments, J = K + D coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, stats

from foretaste.evaluation.causal.moments import Floats, Moments, Roles
from foretaste.evaluation.intervals import LEVEL, Figure

_LEAST_PIVOT = 1e-7
"""Of a column of length 1: what the columns before it must leave of it."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients with their covariance, and the residual as a combination of the columns."""

    coefficient_J: Floats
    covariance_JJ: Floats
    residual_P: Floats

    @property
    def error_J(self) -> Floats:
        """Standard errors."""
        return np.asarray(np.sqrt(np.diag(self.covariance_JJ)))


@dataclass(frozen=True, slots=True)
class TwoStage:
    """What exposures cause, given controls: coefficients of the exposures first, then of the controls."""

    roles: Roles
    num_rows: int
    fit: Fit

    def effect(self, exposure: int = 0) -> Figure:
        """What one more of an exposure does to the outcome, with its 95% interval."""
        unit = np.zeros(len(self.fit.coefficient_J))
        unit[exposure] = 1.0
        return _figure(self.fit, unit)

    def under(self, exposure_K: ArrayLike, control_D: ArrayLike = ()) -> Figure:
        """Mean outcome of those with the controls, had they been exposed so: E[y | x, do(r)].

        Only the exposures are interventions; coefficients of controls are associations, as in any regression.
        """
        at_J = np.concatenate([np.atleast_1d(exposure_K), np.atleast_1d(control_D)]).astype(np.float64)
        if at_J.shape != self.fit.coefficient_J.shape:
            raise ValueError(
                f"under: wanted {self.roles.num_exposures} exposures and {self.roles.num_controls} controls, "
                f"got {np.size(exposure_K)} and {np.size(control_D)}"
            )
        return _figure(self.fit, at_J)


def two_stage(sums: Moments, *, robust: bool = True, small_sample: bool = False) -> TwoStage:
    """Fit by two-stage least squares.

    Robust errors are HC0, clustered where the moments are; plain ones assume independent rows of equal variance.
    `small_sample` multiplies the covariance by N / (N - J).
    Raises ValueError where columns are collinear, or instruments do not reach as many directions as exposures.
    """
    unit = np.eye(sums.roles.num_columns)
    roles = sums.roles
    inside = unit[roles.exposures + roles.controls]
    outside = unit[roles.controls + roles.instruments]
    fit = solve(sums, unit[roles.outcome], inside, outside, robust=robust, small_sample=small_sample)
    return TwoStage(roles, sums.num_rows, fit)


def least_squares(sums: Moments, *, robust: bool = True, small_sample: bool = False) -> TwoStage:
    """Fit the same columns as if exposures were exogenous: the comparator that a confounder misleads."""
    unit = np.eye(sums.roles.num_columns)
    inside = unit[sums.roles.exposures + sums.roles.controls]
    fit = solve(sums, unit[sums.roles.outcome], inside, inside, robust=robust, small_sample=small_sample)
    return TwoStage(sums.roles, sums.num_rows, fit)


def recentred(shown_N: NDArray[np.bool_], propensity_N: Floats) -> Floats:
    """Randomised exposure as instrument: (shown - p) / (p (1 - p)), of mean 0 whatever else is known of the row.

    `propensity_N` is the logged probability of being shown, within (0, 1). With it the estimand is the mean effect
    over all who play because they were shown (compliers), whatever the propensities; plain `shown` would weigh them by
    p (1 - p), and be confounded where p depends on what the controls do not hold. Borusyak and Hull, Econometrica 2023.
    Raises ValueError where a row was certain to be shown or not.
    """
    certain_N = ~((propensity_N > 0.0) & (propensity_N < 1.0))
    if certain_N.any():
        row = int(np.argmax(certain_N))
        raise ValueError(f"recentred: the propensity of row {row} is {propensity_N[row]}, wanted within (0, 1)")
    return np.asarray((shown_N - propensity_N) / (propensity_N * (1.0 - propensity_N)))


def solve(
    sums: Moments,
    outcome_P: Floats,
    inside_JP: Floats,
    outside_CP: Floats,
    *,
    robust: bool = True,
    small_sample: bool = False,
) -> Fit:
    """Regress a combination of columns on J others, instrumented by C; without other instruments least squares.

    Every regression of this package is one of these: first stages, reduced forms, tests. Raises ValueError as
    `two_stage` does.
    """
    within_CC = sums.cross(outside_CP, outside_CP)
    across_CJ = sums.cross(outside_CP, inside_JP)
    first_CJ = _solved(within_CC, across_CJ, sums.roles, outside_CP, "instruments and controls")
    bread_JJ = across_CJ.T @ first_CJ
    inverse_JJ = _solved(bread_JJ, np.eye(len(inside_JP)), sums.roles, inside_JP, "what instruments tell of exposures")
    coefficient_J = inverse_JJ @ (first_CJ.T @ sums.cross(outside_CP, outcome_P[None, :])[:, 0])
    residual_P = outcome_P - coefficient_J @ inside_JP
    if robust:
        covariance_JJ = inverse_JJ @ sums.scores(residual_P, first_CJ.T @ outside_CP) @ inverse_JJ
    else:
        covariance_JJ = inverse_JJ * (residual_P @ sums.second_PP @ residual_P) / sums.num_rows
    if small_sample:
        covariance_JJ = covariance_JJ * sums.num_rows / (sums.num_rows - len(inside_JP) - sums.num_absorbed)
    return Fit(coefficient_J, covariance_JJ, residual_P)


def _solved(matrix_JJ: Floats, right: Floats, roles: Roles, column_JP: Floats, what: str) -> Floats:
    """Solve a positive definite system, columns scaled to 1, or say which column the others make up."""
    scale_J = np.sqrt(np.maximum(np.diag(matrix_JJ), 0.0))
    if len(zero := np.flatnonzero(scale_J == 0)):
        raise ValueError(f"instruments: {what}: {_named(column_JP[zero[0]], roles)} is 0 everywhere")
    scaled_JJ = matrix_JJ / np.outer(scale_J, scale_J)
    try:
        factor, lower = linalg.cho_factor(scaled_JJ, lower=True)
        pivot_J = np.diag(factor)
    except linalg.LinAlgError:
        pivot_J = np.zeros(len(scale_J))
    if pivot_J.min() < _LEAST_PIVOT:
        left_J = np.abs(np.diag(np.linalg.qr(scaled_JJ)[1]))
        column = _named(column_JP[int(np.argmin(left_J))], roles)
        raise ValueError(f"instruments: {what} are collinear: the other columns make up {column}")
    divisor = scale_J if right.ndim == 1 else scale_J[:, None]
    return np.asarray(linalg.cho_solve((factor, lower), right / divisor) / divisor)


def _named(combination_P: Floats, roles: Roles) -> str:
    return roles.name(int(np.argmax(np.abs(combination_P))))


def _figure(fit: Fit, at_J: Floats) -> Figure:
    value = float(at_J @ fit.coefficient_J)
    half = float(stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(at_J @ fit.covariance_JJ @ at_J))
    return Figure(value, value - half, value + half)
