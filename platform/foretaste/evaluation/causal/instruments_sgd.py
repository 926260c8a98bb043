"""Instruments with more controls than a matrix of them would fit: controls partialled out by stochastic gradients.

What controls tell of outcome, exposures and instruments is learned row by row, linearly in D features (hashed ones, if
need be), and each batch is told before it is learned from. What is left of the few columns is summed as always
(evaluation.causal.moments), so effect, robust errors and strength tests are those of two-stage least squares on it. An
error in what was told enters the effect only as a product of two, and not at all with recentred randomised exposure,
which controls cannot tell. Memory is D (1 + K + L) numbers; two-stage least squares takes D^2.

Frisch and Waugh 1933; Chernozhukov et al., Econometrics Journal 2018 (partially linear IV); implicit steps: Toulis and
Airoldi, Annals of Statistics 2017; averages weighted to the end: Shamir and Zhang, ICML 2013.

Shapes: N rows of a block, B rows of a batch, D controls, K exposures, L instruments, T = 1 + K + L columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg, sparse

from foretaste.evaluation.causal.instruments import TwoStage, two_stage
from foretaste.evaluation.causal.moments import Floats, Moments, moments

Controls = Any
"""float64[N, D], or a scipy sparse array of that shape."""
_AVERAGE_BY = 3.0


class StochasticInstruments:
    """Two-stage least squares over a stream with any number of controls."""

    def __init__(
        self, num_controls: int, *, batch_rows: int = 256, rate: float = 0.3, decay: float = 0.5, warm_up: int = 20_000
    ) -> None:
        """Rows before `warm_up` are learned from and not summed.

        `rate` is the first step as a share of 1 / (mean squared length of a row); steps fall as 1 / (1 + t / 50) to
        the power `decay`, t batches.
        """
        self.num_controls, self.batch_rows, self.warm_up = num_controls, batch_rows, warm_up
        self.rate, self.decay = rate, decay
        self.num_rows = self.num_batches = 0
        self.mean_square = 0.0
        self.weight_DT: Floats | None = None
        self.average_DT: Floats = np.zeros((num_controls, 0))
        self.sums: Moments | None = None

    def update(
        self, outcome_N: ArrayLike, exposure_NK: ArrayLike, control_ND: Controls, instrument_NL: ArrayLike
    ) -> None:
        """Take a block of rows, in whose order lies no trend. Raises ValueError where shapes do not fit."""
        parts = [np.asarray(part, dtype=np.float64) for part in (outcome_N, exposure_NK, instrument_NL)]
        outcome, exposure, instrument = (part[:, None] if part.ndim == 1 else part for part in parts)
        target_NT = np.concatenate([outcome, exposure, instrument], axis=1)
        if control_ND.shape != (len(target_NT), self.num_controls):
            raise ValueError(f"controls: wanted {(len(target_NT), self.num_controls)}, got {control_ND.shape}")
        if sparse.issparse(control_ND):
            control_ND = sparse.csr_array(control_ND)
        for first in range(0, len(target_NT), self.batch_rows):
            batch = slice(first, first + self.batch_rows)
            left_BT = self._learn(control_ND[batch], target_NT[batch])
            if self.num_rows > self.warm_up:
                self._add(left_BT, exposure.shape[1])

    def fit(self) -> TwoStage:
        """The effect so far. Raises ValueError before the end of the warm-up."""
        if self.sums is None:
            raise ValueError(f"instruments: {self.num_rows} rows so far, the warm-up takes {self.warm_up}")
        return two_stage(self.sums)

    def _learn(self, control_BD: Controls, target_BT: Floats) -> Floats:
        """Tell a batch, then learn from it; returns what was told wrong."""
        if self.weight_DT is None:
            self.weight_DT = np.zeros((self.num_controls, target_BT.shape[1]))
            self.average_DT = self.weight_DT.copy()
        left_BT: Floats = target_BT - control_BD @ self.average_DT
        self.num_rows += len(target_BT)
        self.num_batches += 1
        near_BB = control_BD @ control_BD.T
        near_BB = near_BB.toarray() if sparse.issparse(near_BB) else near_BB
        share = len(target_BT) / self.num_rows
        self.mean_square += share * (float(np.trace(near_BB)) / len(target_BT) - self.mean_square)
        if not self.mean_square > 0.0:
            return left_BT
        step = self.rate / self.mean_square / (1.0 + self.num_batches / 50.0) ** self.decay
        wrong_BT = target_BT - control_BD @ self.weight_DT
        damped_BB = np.eye(len(target_BT)) + step * near_BB
        self.weight_DT += step * (control_BD.T @ linalg.solve(damped_BB, wrong_BT, assume_a="pos"))
        share = (_AVERAGE_BY + 1.0) / (self.num_batches + _AVERAGE_BY)
        self.average_DT += share * (self.weight_DT - self.average_DT)
        return left_BT

    def _add(self, left_BT: Floats, num_exposures: int) -> None:
        outcome, exposure, instrument = np.split(left_BT, [1, 1 + num_exposures], axis=1)
        batch = moments(outcome[:, 0], exposure, None, instrument, num_absorbed=self.num_controls)
        self.sums = batch if self.sums is None else self.sums + batch
