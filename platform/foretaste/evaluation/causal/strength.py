"""Whether the instruments are strong enough to be believed, and what may be said where they are not.

F of the first stage, plain (Stock and Yogo 2005) and effective, which holds under any heteroskedasticity (Montiel Olea
and Pflueger, JBES 2013; Andrews, Stock and Sun 2019); Anderson and Rubin's interval (1949), which is right however weak
the instruments; Wu-Hausman and Sargan.

Shapes: K exposures, L instruments, P columns of the moments.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import linalg, stats

from foretaste.evaluation.causal.instruments import Fit, solve, two_stage
from foretaste.evaluation.causal.moments import Floats, Moments
from foretaste.evaluation.intervals import LEVEL

STOCK_YOGO = (16.38, 19.93, 22.30, 24.58, 26.87, 29.18, 31.50, 33.84, 36.19, 38.54)
"""Plain F of 1 to 10 instruments for one exposure above which a 5% test is wrong at most 10% of the time."""
MOST_BIAS = 0.1
"""Share of the worst bias that the effective F is to exclude."""


@dataclass(frozen=True, slots=True)
class FirstStage:
    """How much the instruments move one exposure, given the controls."""

    coefficient_L: Floats
    partial_r_squared: float
    plain_f: float  # F(L, N - D - L) under equal variances
    robust_wald: float  # chi-square with L degrees of freedom under no effect
    robust_f: float  # robust_wald / L
    effective_f: float
    effective_f_wanted: float  # above it the bias is below MOST_BIAS of the worst, at 95%
    stock_yogo_wanted: float | None  # for the plain F; None past ten instruments

    @property
    def strong(self) -> bool:
        """Whether the effective F says that the usual interval may be believed."""
        return self.effective_f > self.effective_f_wanted


@dataclass(frozen=True, slots=True)
class Test:
    """A statistic and how likely one as large is under the null hypothesis."""

    statistic: float
    p: float


def first_stage(sums: Moments, exposure: int = 0) -> FirstStage:
    """Test what the instruments do to an exposure. With several exposures each may be strong and all together weak."""
    roles, unit = sums.roles, np.eye(sums.roles.num_columns)
    outside_CP = unit[roles.controls + roles.instruments]
    exposure_P = unit[roles.exposures[exposure]]
    robust, plain = (
        solve(sums, exposure_P, outside_CP, outside_CP, robust=kind, small_sample=not kind) for kind in (True, False)
    )
    first, num = roles.num_controls, roles.num_instruments
    coefficient_L = robust.coefficient_J[first:]
    variance_LL = robust.covariance_JJ[first:, first:]
    within_LL = _partialled(sums)
    explained = float(coefficient_L @ within_LL @ coefficient_L)
    left = float(robust.residual_P @ sums.second_PP @ robust.residual_P)
    wald = _wald(coefficient_L, variance_LL)
    effective, wanted = _effective(coefficient_L, variance_LL, within_LL)
    return FirstStage(
        coefficient_L=coefficient_L,
        partial_r_squared=explained / (explained + left),
        plain_f=_wald(plain.coefficient_J[first:], plain.covariance_JJ[first:, first:]) / num,
        robust_wald=wald,
        robust_f=wald / num,
        effective_f=effective,
        effective_f_wanted=wanted,
        stock_yogo_wanted=STOCK_YOGO[num - 1] if num <= len(STOCK_YOGO) else None,
    )


def anderson_rubin(sums: Moments, *, robust: bool = True) -> tuple[tuple[float, float], ...]:
    """All effects of the one exposure that the data do not reject at 5%, as intervals in order.

    It holds 95% of the time however weak the instruments. Weak ones make it unbounded (ends at infinity, possibly two
    rays or the whole line); instruments that contradict each other may leave nothing, an empty tuple.
    Raises ValueError for more than one exposure.
    """
    roles, unit = sums.roles, np.eye(sums.roles.num_columns)
    if roles.num_exposures != 1:
        raise ValueError(f"anderson_rubin: wanted one exposure, got {roles.num_exposures}")
    outside_CP = unit[roles.controls + roles.instruments]
    outcome, exposure = (
        solve(sums, unit[place], outside_CP, outside_CP, robust=False) for place in (0, roles.exposures[0])
    )
    first = roles.num_controls
    bend_L, slope_L = outcome.coefficient_J[first:], exposure.coefficient_J[first:]
    v_0, v_1, v_2 = _variances(sums, outcome, exposure, outside_CP, robust)
    limit = float(stats.chi2.ppf(LEVEL, roles.num_instruments))
    # the statistic is at most the limit where limit V(b) - g(b) g(b)' has no negative eigenvalue, g = bend - b slope
    c_0 = limit * v_0 - np.outer(bend_L, bend_L)
    c_1 = limit * v_1 + np.outer(bend_L, slope_L) + np.outer(slope_L, bend_L)
    c_2 = limit * v_2 - np.outer(slope_L, slope_L)

    def held(effect: float) -> bool:
        off_L = bend_L - effect * slope_L
        return _wald(off_L, v_0 + effect * v_1 + effect**2 * v_2) <= limit

    return _where(held, _real_roots(c_0, c_1, c_2))


def wu_hausman(sums: Moments, *, robust: bool = True) -> Test:
    """Test whether exposures are exogenous, by adding the first stage's residuals to the regression.

    The robust form is Wooldridge's (2010, section 6.3.1; chi-square, K degrees), the plain one Wu's F(K, N - J - K).
    """
    roles, unit = sums.roles, np.eye(sums.roles.num_columns)
    outside_CP = unit[roles.controls + roles.instruments]
    inside_JP = unit[roles.exposures + roles.controls]
    left_KP = np.stack([
        solve(sums, unit[place], outside_CP, outside_CP, robust=False).residual_P for place in roles.exposures
    ])  # fmt: skip
    both = np.concatenate([inside_JP, left_KP])
    fit = solve(sums, unit[roles.outcome], both, both, robust=robust, small_sample=not robust)
    first, num = len(inside_JP), roles.num_exposures
    wald = _wald(fit.coefficient_J[first:], fit.covariance_JJ[first:, first:])
    if robust:
        return Test(wald, float(stats.chi2.sf(wald, num)))
    rest = sums.num_rows - len(both) - sums.num_absorbed
    return Test(wald / num, float(stats.f.sf(wald / num, num, rest)))


def sargan(sums: Moments) -> Test:
    """Test whether several instruments agree, under equal variances: chi-square with L - K degrees.

    Raises ValueError where there are no more instruments than exposures: then nothing can contradict.
    """
    roles, unit = sums.roles, np.eye(sums.roles.num_columns)
    spare = roles.num_instruments - roles.num_exposures
    if spare < 1:
        raise ValueError("sargan: wanted more instruments than exposures")
    residual_P = two_stage(sums, robust=False).fit.residual_P
    outside_CP = unit[roles.controls + roles.instruments]
    told = residual_P - solve(sums, residual_P, outside_CP, outside_CP, robust=False).residual_P
    share = (told @ sums.second_PP @ told) / (residual_P @ sums.second_PP @ residual_P)
    return Test(float(sums.num_rows * share), float(stats.chi2.sf(sums.num_rows * share, spare)))


def _effective(coefficient_L: Floats, variance_LL: Floats, within_LL: Floats) -> tuple[float, float]:
    """The effective F and the value that it is to exceed."""
    root_LL = np.linalg.cholesky(within_LL)
    spread_LL = root_LL.T @ variance_LL @ root_LL  # of the coefficients of orthonormal instruments
    trace = float(np.trace(spread_LL))
    bias = 1.0 / MOST_BIAS
    largest = float(np.linalg.eigvalsh(spread_LL)[-1])
    degrees = trace**2 * (1 + 2 * bias) / (float(np.sum(spread_LL**2)) + 2 * bias * trace * largest)
    wanted = float(stats.ncx2.ppf(LEVEL, degrees, bias * degrees)) / degrees
    return float(coefficient_L @ within_LL @ coefficient_L) / trace, wanted


def _partialled(sums: Moments) -> Floats:
    """Sums of products of the instruments, controls partialled out: float64[L, L]."""
    controls, instruments = sums.roles.controls, sums.roles.instruments
    within_LL = sums.second_PP[np.ix_(instruments, instruments)]
    if not controls:
        return within_LL
    across_DL = sums.second_PP[np.ix_(controls, instruments)]
    return within_LL - across_DL.T @ np.linalg.solve(sums.second_PP[np.ix_(controls, controls)], across_DL)


def _variances(
    sums: Moments, outcome: Fit, exposure: Fit, outside_CP: Floats, robust: bool
) -> tuple[Floats, Floats, Floats]:
    """The covariance of the instruments' coefficients on outcome - b exposure, by powers of b: three [L, L]."""
    bread = np.linalg.inv(sums.cross(outside_CP, outside_CP))
    y_P, x_P = outcome.residual_P, exposure.residual_P
    keep = slice(sums.roles.num_controls, None)

    def between(one_P: Floats, other_P: Floats) -> Floats:
        if robust:
            return (bread @ sums.scores(one_P, outside_CP, other_P) @ bread)[keep, keep]
        rest = sums.num_rows - len(outside_CP) - sums.num_absorbed
        return bread[keep, keep] * float(one_P @ sums.second_PP @ other_P) / rest

    across = between(y_P, x_P)
    return between(y_P, y_P), -(across + across.T), between(x_P, x_P)


def _real_roots(c_0: Floats, c_1: Floats, c_2: Floats) -> Floats:
    """Real b at which c_0 + b c_1 + b^2 c_2 is singular, in order: a quadratic eigenvalue problem."""
    size = len(c_0)
    scale = max(float(np.abs(c_0).max() / max(np.abs(c_2).max(), 1e-300)) ** 0.5, 1e-12)  # of b: both ends weigh alike
    zero, one = np.zeros((size, size)), np.eye(size)
    left = np.block([[zero, one], [-c_0, -scale * c_1]])
    right = np.block([[one, zero], [zero, scale**2 * c_2]])
    found = np.asarray(linalg.eig(left, right, right=False))
    found = found[np.isfinite(found)]
    real = found[np.abs(found.imag) <= 1e-7 * np.maximum(np.abs(found), 1e-12)].real
    return np.asarray(np.sort(real) * scale, dtype=np.float64)


def _where(held: Callable[[float], bool], root_R: Floats) -> tuple[tuple[float, float], ...]:
    """The stretches between roots that are held, neighbours joined."""
    edges = [-np.inf, *root_R.tolist(), np.inf]
    reach = max(1.0, float(np.abs(root_R).max(initial=0.0)))
    found: list[tuple[float, float]] = []
    for low, high in itertools.pairwise(edges):
        inner = 0.5 * (max(low, -3 * reach) + min(high, 3 * reach))
        if not held(inner):
            continue
        if found and found[-1][1] == low:
            found[-1] = (found[-1][0], float(high))
        else:
            found.append((float(low), float(high)))
    return tuple(found)


def _wald(coefficient_L: Floats, variance_LL: Floats) -> float:
    return float(coefficient_L @ np.linalg.solve(variance_LL, coefficient_L))
