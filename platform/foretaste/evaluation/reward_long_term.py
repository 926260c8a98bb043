"""What a slate policy is worth in the long run, from a log alone: what it makes members choose, and what that does.

Whether a member comes back is one bit a visit, and a policy that differs from the log is followed by few of its
visits, so that weights cannot tell. In their place stand

1. *returns*: what the feedback of a visit's choices, and the choices themselves, do to the rate of return
   (`reward_returns`);
2. *draws*: what is chosen where a slate is shown, on the slate and beside it (`reward_draws`);
3. *worth*: what feedback a choice has by title, band, past and whether it was shown, by ridge regression within
   members.

A policy's value is that of the log, a mean over members, and what the choices that its slates lead to add over those of
the slates that were shown. Errors are of what they add: every part is learned again without each tenth of the members
(the grouped jackknife, Tukey 1958); what drawing towards 0 leaves out is not in them, nor is the log's own error, which
all values share.

Shapes: S visits, P places, N titles, K columns of a choice, F kinds of feedback, G groups of members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from foretaste.evaluation.reward_draws import Draws, draws
from foretaste.evaluation.reward_estimates import Estimate, of_members
from foretaste.evaluation.reward_returns import returns
from foretaste.evaluation.reward_visits import Columns, Floats, Ints, Shown, Visits, within

DAYS = 7.0
GROUPS = 10
PRECISION = (5.0, 20.0, 1.0, 1.0, 5.0, 20.0)
"""Choices that the worth of each group of columns is drawn to 0 by."""
_ROUNDS_AGAIN = 8


@dataclass(frozen=True)
class LongTerm:
    """Values of policies from one log; `without_G` are what they add to the log's without each group of members."""

    logged: Estimate
    added: dict[str, float]
    without_G: dict[str, Floats]

    @property
    def value(self) -> dict[str, Estimate]:
        """Probability of a return within a week, mean over members."""
        return {
            name: Estimate(self.logged.value + added, _error(self.without_G[name]), self.logged.num)
            for name, added in self.added.items()
        }

    def over(self, one: str, other: str) -> Estimate:
        """How much one policy is above another; their errors are of the same members."""
        error = _error(self.without_G[one] - self.without_G[other])
        return Estimate(self.added[one] - self.added[other], error, self.logged.num)

    @property
    def order(self) -> list[str]:
        """Policies, the best first."""
        return sorted(self.added, key=lambda name: -self.added[name])


def long_term_of(visits: Visits, slates: Mapping[str, Ints], *, groups: int = GROUPS) -> LongTerm:
    """Value the policies whose slates [S, P] on the same visits are given; raises as `returns`."""
    drawn = draws(visits)
    added = _added(visits, slates, drawn)
    group_M = np.arange(len(visits.band_MN)) % groups
    parts = []
    for group in range(groups):
        kept_S = group_M[visits.member_S] != group
        rest = visits.without(group_M == group)
        parts.append(_added(rest, {n: s[kept_S] for n, s in slates.items()}, draws(rest, drawn, rounds=_ROUNDS_AGAIN)))
    return LongTerm(_logged(visits), added, {name: np.array([part[name] for part in parts]) for name in slates})


def greedy(score_SN: Floats, available_S: Ints, places: int) -> Ints:
    """Slates that are greedy for a score among the first `available_S` titles; equal ones in their order: [S, P]."""
    left_SN = np.where(np.arange(score_SN.shape[1]) < available_S[:, None], score_SN, -np.inf)
    return np.argsort(-left_SN, axis=1, kind="stable")[:, :places]


def _added(visits: Visits, slates: Mapping[str, Ints], drawn: Draws) -> dict[str, float]:
    """What slates add to the chance of a return, mean over members."""
    columns = Columns.of(visits)
    choices_CK = columns.chosen(visits)
    feedback_KF = _worth(visits, choices_CK)
    told = returns(visits, choices_CK, choices_CK @ feedback_KF)
    worth_K = feedback_KF @ told.feedback_F + told.choice_K

    def expected(title_SP: Ints) -> Floats:
        shown = Shown.of(visits, title_SP)
        return np.asarray(np.vecdot(drawn.of_shown(visits, shown), columns.each(visits, worth_K, shown)))

    num_M = np.bincount(visits.member_S)

    def chance(more_S: Floats) -> float:
        total_M = np.bincount(visits.member_S, told.chance_S(visits.member_S, more_S, DAYS))
        return float((total_M[num_M > 0] / num_M[num_M > 0]).mean())

    logged_S = expected(visits.title_SP)
    base = chance(np.zeros(len(logged_S)))
    return {name: chance(expected(title_SP) - logged_S) - base for name, title_SP in slates.items()}


def _worth(visits: Visits, choices_CK: sparse.csr_matrix) -> Floats:
    """Feedback of a choice by its columns, beside a constant of the member: float64[K, F]."""
    member_C = visits.member_S[visits.visit_C]
    num_M = np.maximum(np.bincount(member_C), 1)
    total_MK = sparse.csr_matrix((np.ones(len(member_C)), (member_C, np.arange(len(member_C))))) @ choices_CK
    shared_MK = (sparse.diags(1.0 / np.sqrt(num_M)) @ total_MK).toarray()
    ridge_KK = np.diag(Columns.of(visits).repeat(PRECISION))
    gram_KK = (choices_CK.T @ choices_CK).toarray() - shared_MK.T @ shared_MK + ridge_KK
    return np.asarray(np.linalg.solve(gram_KK, choices_CK.T @ within(visits.feedback_CF, member_C)))


def _logged(visits: Visits) -> Estimate:
    """Share of members who came again within a week of their first visit, of those whose week was seen.

    Only of the first: how many visits a member has hangs on whether they came back.
    """
    first_S = (np.diff(visits.member_S, prepend=-1) != 0) & (visits.until_S >= DAYS)
    return of_members((visits.returned_S & (visits.days_S <= DAYS))[first_S].astype(np.float64))


def _error(value_G: Floats) -> float:
    groups = len(value_G)
    return float(np.sqrt((groups - 1) / groups * ((value_G - value_G.mean()) ** 2).sum()))
