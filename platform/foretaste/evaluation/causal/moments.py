"""Sums over rows from which instruments are fitted, with robust errors, in one pass and any number of blocks.

Robust errors need squared residuals, and residuals need the coefficients. But a residual is a linear combination of
the columns, so the sums of products of four columns hold every squared residual times every two columns in advance.
Rows of one cluster (a member) are summed before they are squared, which makes the errors robust to any dependence
within it; without clusters a row is its own.

Shapes: N rows, P columns (the outcome, K exposures, D controls, L instruments, in that order), Q = P (P + 1) / 2 pairs
of columns, C combinations of columns, M of them tested.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
MOST_COLUMNS = 60
"""The sums of four columns take Q^2 numbers: 27 MiB of 60 columns, 204 of 100."""
_ROWS_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Roles:
    """What the columns are: one outcome, then so many of each."""

    num_exposures: int
    num_controls: int
    num_instruments: int

    def __post_init__(self) -> None:
        if self.num_exposures < 1 or self.num_instruments < self.num_exposures:
            raise ValueError(
                f"instruments: wanted at least one exposure and as many instruments as exposures, "
                f"got {self.num_exposures} exposures and {self.num_instruments} instruments"
            )

    @property
    def num_columns(self) -> int:
        """P."""
        return 1 + self.num_exposures + self.num_controls + self.num_instruments

    @property
    def outcome(self) -> int:
        """Place of the outcome."""
        return 0

    @property
    def exposures(self) -> list[int]:
        """Places of the exposures."""
        return list(range(1, 1 + self.num_exposures))

    @property
    def controls(self) -> list[int]:
        """Places of the controls."""
        return list(range(1 + self.num_exposures, 1 + self.num_exposures + self.num_controls))

    @property
    def instruments(self) -> list[int]:
        """Places of the instruments."""
        return list(range(1 + self.num_exposures + self.num_controls, self.num_columns))

    def name(self, column: int) -> str:
        """What a column is called in an error."""
        for kind in ("exposures", "controls", "instruments"):
            places: list[int] = getattr(self, kind)
            if column in places:
                return f"{kind[:-1]} {column - places[0]}"
        return "the outcome"


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums that add up over blocks of whole clusters; memory does not depend on the number of rows."""

    roles: Roles
    num_rows: int
    num_clusters: int
    num_absorbed: int  # columns that were partialled out of all others before
    second_PP: Floats
    fourth_QQ: Floats

    def __add__(self, other: Self) -> Self:
        if (self.roles, self.num_absorbed) != (other.roles, other.num_absorbed):
            raise ValueError(f"moments: cannot add {other.roles} to {self.roles}")
        kept = {"roles", "num_absorbed"}
        return replace(
            self,
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self) if f.name not in kept},
        )

    def cross(self, left_CP: Floats, right_CP: Floats) -> Floats:
        """Sums of products of combinations of columns: float64[C, C]."""
        return left_CP @ self.second_PP @ right_CP.T

    def scores(self, residual_P: Floats, by_MP: Floats, other_residual_P: Floats | None = None) -> Floats:
        """Sums over clusters of (sum of residual times M columns) times the same of the other residual: [M, M]."""
        left_MQ = _pairs(residual_P, by_MP)
        right_MQ = left_MQ if other_residual_P is None else _pairs(other_residual_P, by_MP)
        return left_MQ @ self.fourth_QQ @ right_MQ.T


def moments(
    outcome_N: ArrayLike,
    exposure_NK: ArrayLike,
    control_ND: ArrayLike | None,
    instrument_NL: ArrayLike,
    *,
    cluster_N: ArrayLike | None = None,
    num_absorbed: int = 0,
) -> Moments:
    """Sum a block of rows. No constant is added: give one as a control.

    Rows of one cluster must all be in one block, as they are where a log is divided by member. Columns should vary
    about 0 where that can be chosen: squares of squares of a large offset leave few digits.
    Raises ValueError where lengths differ, a number is not finite or there are more than MOST_COLUMNS columns.
    """
    outcome = np.asarray(outcome_N, dtype=np.float64)
    parts = [_columns(part, len(outcome), what) for part, what in (
        (outcome, "outcome"), (exposure_NK, "exposure"), (control_ND, "control"), (instrument_NL, "instrument")
    )]  # fmt: skip
    roles = Roles(*(part.shape[1] for part in parts[1:]))
    if roles.num_columns > MOST_COLUMNS:
        raise ValueError(
            f"moments: {roles.num_columns} columns, at most {MOST_COLUMNS} in one pass; partial out the controls first "
            "(evaluation.causal.absorbing in memory, evaluation.causal.instruments_sgd over a stream)"
        )
    value_NP = np.concatenate(parts, axis=1)
    num_clusters, fourth_QQ = _fourth(value_NP, cluster_N)
    return Moments(roles, len(value_NP), num_clusters, num_absorbed, value_NP.T @ value_NP, fourth_QQ)


def total(blocks: list[Moments]) -> Moments:
    """The sums of several blocks. Raises ValueError without any."""
    if not blocks:
        raise ValueError("moments: there are no blocks to add")
    return reduce(lambda one, other: one + other, blocks)


def _columns(values: ArrayLike | None, num_rows: int, what: str) -> Floats:
    if values is None:
        return np.zeros((num_rows, 0))
    array = np.asarray(values, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or len(array) != num_rows:
        raise ValueError(f"moments: {num_rows} outcomes, but {what} has shape {array.shape}")
    if not (finite_N := np.isfinite(array).all(axis=1)).all():
        raise ValueError(f"moments: {what} of row {int(np.argmin(finite_N))} is not finite")
    return array


def _fourth(value_NP: Floats, cluster_N: ArrayLike | None) -> tuple[int, Floats]:
    """Products of all pairs of columns summed within clusters, then theirs over them: number of clusters, [Q, Q]."""
    left_Q, right_Q = np.triu_indices(value_NP.shape[1])
    parts = [value_NP[first : first + _ROWS_AT_ONCE] for first in range(0, len(value_NP), _ROWS_AT_ONCE)]
    if cluster_N is None:
        fourth_QQ = np.zeros((len(left_Q), len(left_Q)))
        for part in parts:
            pair_NQ = part[:, left_Q] * part[:, right_Q]
            fourth_QQ += pair_NQ.T @ pair_NQ
        return len(value_NP), fourth_QQ
    cluster = np.asarray(cluster_N)
    if cluster.shape != (len(value_NP),):
        raise ValueError(f"moments: {len(value_NP)} outcomes, but clusters have shape {cluster.shape}")
    clusters, place_N = np.unique(cluster, return_inverse=True)
    sum_CQ = np.zeros((len(clusters), len(left_Q)))
    for number, part in enumerate(parts):
        place = place_N[number * _ROWS_AT_ONCE :][: len(part)]
        np.add.at(sum_CQ, place, part[:, left_Q] * part[:, right_Q])
    return len(clusters), sum_CQ.T @ sum_CQ


def _pairs(residual_P: Floats, by_MP: Floats) -> Floats:
    """How a residual times a combination of columns is a sum of pairs of columns: float64[M, Q]."""
    left_Q, right_Q = np.triu_indices(len(residual_P))
    once_MQ = residual_P[left_Q] * by_MP[:, right_Q]
    return once_MQ + np.where(left_Q != right_Q, residual_P[right_Q] * by_MP[:, left_Q], 0.0)
