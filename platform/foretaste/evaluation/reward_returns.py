"""When members come back, by what they chose and what followed: a rate of their own times what moves all rates.

A member's days until the next visit are taken as exponential with a rate of their own times exp(what the visit was
like). Who is often there and who is easily pleased cancels out, for the rates of members are free (hazards of return:
Kapoor et al., KDD 2014; with exponential waits their number does no harm: Chamberlain 1985). What a visit was like is
the mean of the feedback of its choices (a surrogate index: Athey, Chetty, Imbens and Kang, NBER 26463, 2019) and, drawn
towards 0, the choices themselves, which are worth what no feedback tells.

To say how likely a return within some days is, members' rates are taken from a gamma distribution, whose two numbers
are those under which the log is likeliest.

Shapes: S visits, C choices, M members, F kinds of feedback, K columns of a choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import gammaln

from foretaste.evaluation.reward_visits import Columns, Floats, Ints, Visits

PRECISION = (12.0, 50.0, 0.3, 0.3, 1.2, 50.0)
"""One over the variance that is expected of what each group of columns is worth beyond its feedback."""
FEEDBACK, LIKELY = 1e-3, 5.0
"""The same of the feedback of a visit, and of that which its choices have in the mean."""
_HOUR = 1.0 / 24.0
_ROUNDS = 100


@dataclass(frozen=True)
class Returns:
    """Rates of return."""

    feedback_F: Floats  # what the feedback that a choice has in the mean adds to the logarithm of the rate
    choice_K: Floats  # what the choice itself adds
    like_S: Floats  # what the visits that were learned from were like
    shape: float  # of the gamma distribution of the members' rates
    rate: float
    num_M: Floats  # returns seen
    days_M: Floats  # in which they were, each day as many as the visit before it was good for

    def chance_S(self, member_S: Ints, more_S: Floats, days: float) -> Floats:
        """Probability of a return within some days of the same visits, with something added to what they were like."""
        waited_S = days * np.exp(self.like_S + more_S)
        known_S, of_days_S = self.shape + self.num_M[member_S], self.rate + self.days_M[member_S]
        return np.asarray(1.0 - (of_days_S / (of_days_S + waited_S)) ** known_S)


def returns(visits: Visits, choices_CK: sparse.csr_matrix, likely_CF: Floats) -> Returns:
    """Learn when members come back; `likely_CF` is the feedback that choices have in the mean of those alike.

    Raises ValueError where no member has two visits whose next one was seen.
    """
    member_S, back_S = visits.member_S, visits.returned_S.astype(np.float64)
    if not (np.bincount(member_S, back_S) > 1).any():
        raise ValueError("rates of return: wanted members with two returns, found none")
    days_S, num_members = np.maximum(visits.days_S, _HOUR), len(visits.band_MN)
    mean_SC = sparse.csr_matrix(
        (1.0 / visits.num_choices_S[visits.visit_C], (visits.visit_C, np.arange(len(visits.visit_C)))),
        shape=(len(member_S), len(visits.visit_C)),
    )
    feedback_SF = sparse.csr_matrix(mean_SC @ np.column_stack([visits.feedback_CF, likely_CF]))
    like_SL = sparse.hstack([feedback_SF, mean_SC @ choices_CK]).tocsr()
    kinds = visits.feedback_CF.shape[1]
    precision_L = np.concatenate(
        [np.full(kinds, FEEDBACK), np.full(kinds, LIKELY), Columns.of(visits).repeat(PRECISION)]
    )
    num_M = np.bincount(member_S, back_S, num_members).astype(np.float64)
    counted_L = like_SL.T @ back_S

    def loss(weight_L: Floats) -> tuple[float, Floats]:
        waited_S = days_S * np.exp(np.clip(like_SL @ weight_L, -30.0, 30.0))
        waited_M = np.maximum(np.bincount(member_S, waited_S, num_members), 1e-300)
        value = float(num_M @ np.log(waited_M) - counted_L @ weight_L + 0.5 * (precision_L * weight_L**2).sum())
        toward_L = like_SL.T @ (waited_S * (num_M / waited_M)[member_S]) - counted_L + precision_L * weight_L
        return value / len(days_S), toward_L / len(days_S)

    weight_L = minimize(loss, np.zeros(len(counted_L)), jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS}).x
    like_S = like_SL @ weight_L
    like_S = like_S - like_S.mean()
    waited_M = np.bincount(member_S, days_S * np.exp(like_S), num_members).astype(np.float64)
    shape, rate = _rates(num_M[waited_M > 0], waited_M[waited_M > 0])
    feedback_F, likely_F, choice_K = np.split(weight_L, [kinds, 2 * kinds])
    return Returns(feedback_F + likely_F, choice_K, like_S, shape, rate, num_M, waited_M)


def _rates(num_M: Floats, days_M: Floats) -> tuple[float, float]:
    """Shape and rate of the gamma distribution under which counts of returns in so many days are likeliest."""

    def loss(free_2: Floats) -> float:
        shape, rate = np.exp(free_2)
        logs_M = gammaln(shape + num_M) - gammaln(shape) - (shape + num_M) * np.log(rate + days_M)
        return -float(logs_M.sum() + len(num_M) * shape * np.log(rate))

    mean = float(num_M.sum() / days_M.sum())
    shape, rate = np.exp(minimize(loss, np.array([0.0, -np.log(mean)]), method="Nelder-Mead").x)
    return float(shape), float(rate)
