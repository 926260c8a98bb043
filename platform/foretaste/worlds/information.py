"""What intents are worth, from the probabilities with which a world draws.

Shapes: S sessions, X some of them, N titles, A the intents in the order of contracts.truth.PLANTED_INTENTS.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foretaste.contracts.truth import PLANTED_INTENTS
from foretaste.worlds.choices import Mechanism

_ROUNDING = 1e-12
_BLOCK = 128  # sessions at a time, so that what is compared stays in the cache


def information(mechanism: Mechanism, wished_SA: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How much each intent says of the next choice beyond the others, nats, [S, A]; 0 where it is not wished for."""
    information_SA = np.zeros(wished_SA.shape)
    for start in range(0, len(wished_SA), _BLOCK):
        wished_XA = wished_SA[start : start + _BLOCK]
        weight_XN = mechanism.weigh(start + np.arange(len(wished_XA)))
        for a, intent in enumerate(PLANTED_INTENTS):
            x = np.flatnonzero(wished_XA[:, a])
            information_SA[start + x, a] = divergence(weight_XN[x], mechanism.weigh(start + x, intent))
    return information_SA


def divergence(p_XN: NDArray[np.float64], q_XN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kullback-Leibler divergence of rows of weights, nats, [X]; both are 0 in the same places."""
    ratio_XN = np.divide(p_XN, q_XN, out=np.ones(p_XN.shape), where=q_XN > 0)
    total_X = p_XN.sum(axis=1)
    mean_X = np.einsum("xn,xn->x", p_XN, np.log(ratio_XN)) / total_X
    divergence_X = mean_X + np.log(q_XN.sum(axis=1) / total_X)
    return np.where(divergence_X < _ROUNDING, 0.0, divergence_X)


def primary(information_SA: NDArray[np.float64]) -> NDArray[np.int64]:
    """The intent that says most, -1 where none says anything; of equals the first."""
    return np.where((information_SA > 0).any(axis=1), information_SA.argmax(axis=1), -1)


def true_rank(weight_XN: NDArray[np.float64], chosen_X: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many other titles are at least as likely as what was chosen, [X]."""
    chosen_X1 = weight_XN[np.arange(len(chosen_X)), chosen_X][:, None]
    return np.asarray(np.count_nonzero(weight_XN >= chosen_X1, axis=1) - 1)
