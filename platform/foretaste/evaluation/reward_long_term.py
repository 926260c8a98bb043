"""What a slate policy is worth in the long run, from a log alone: an index of the return, and what titles add to it.

Whether a member comes back is one bit a visit, and a policy that differs from the log is followed by few of its
visits. So two regressions stand in the place of weights, both within members, so that who comes often and who is
easily pleased cancels out:

1. *index*: what the feedback on a visit says of the return after it, by least squares (surrogate index: Athey, Chetty,
   Imbens and Kang, NBER 26463, 2019). It holds as far as the slate moves returns through that feedback.
2. *worth*: what a title in a band adds to the index of a visit at each place, by ridge regression; places add up.

A policy's value is that of the log and what its slates add over those that were shown. Errors are of what they add, of
both regressions by linearisation with all visits of a member as one; what shrinking and adding up leave out is not in
them, nor is the error of the log's own value, which all policies share.

Shapes: S visits, P places, F kinds of feedback, K columns of a slate (titles, then titles x bands), M members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from foretaste.evaluation.reward_estimates import Estimate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHRINK_TITLE, SHRINK_CELL = 30.0, 100.0
"""Showings at the first place that what a title adds, and what it adds in a band, is drawn to 0 by."""


@dataclass(frozen=True)
class Visits:
    """Visits of a log, whose slates are whole."""

    member_S: Ints  # 0..M-1
    return_S: Floats  # 1 back within the days, 0 not, NaN not known
    feedback_SF: Floats  # what followed on the slate
    title_SP: Ints
    band_SP: Ints  # of the title to the member
    weight_P: Floats  # of a place, over the first one's


@dataclass(frozen=True)
class LongTerm:
    """Values of policies from one log; `moved_M` are members' parts in the error of each."""

    logged: Estimate
    value: dict[str, Estimate]
    moved_M: dict[str, Floats]

    def over(self, one: str, other: str) -> Estimate:
        """How much one policy is above another; their errors are of the same members."""
        gap = self.value[one].value - self.value[other].value
        error = float(np.sqrt(((self.moved_M[one] - self.moved_M[other]) ** 2).sum()))
        return Estimate(gap, error, self.value[one].num)

    @property
    def order(self) -> list[str]:
        """Policies, the best first."""
        return sorted(self.value, key=lambda name: -self.value[name].value)


@dataclass(frozen=True)
class Index:
    """What each kind of feedback says of the return; `moved_MF` are members' parts in its error."""

    weight_F: Floats
    moved_MF: Floats


def index(visits: Visits) -> Index:
    """Learn what the feedback of a visit says of the return after it, beside a constant of the member.

    Raises ValueError where no member has two visits whose return is known.
    """
    known_S = ~np.isnan(visits.return_S)
    member_S = visits.member_S[known_S]
    if not (np.bincount(member_S) > 1).any():
        raise ValueError("index of the return: wanted members with two visits whose return is known, found none")
    feedback_SF = _within(visits.feedback_SF[known_S], member_S)
    return_S = _within(visits.return_S[known_S][:, None], member_S)[:, 0]
    inverse_FF = np.linalg.pinv(feedback_SF.T @ feedback_SF)
    weight_F = inverse_FF @ (feedback_SF.T @ return_S)
    moved_SF = (feedback_SF @ inverse_FF) * (return_S - feedback_SF @ weight_F)[:, None]
    return Index(weight_F, _by_member(moved_SF, member_S, int(visits.member_S.max()) + 1))


def long_term_of(
    visits: Visits,
    slates: dict[str, tuple[Ints, Ints]],
    *,
    num_titles: int,
    num_bands: int,
    shrink: tuple[float, float] = (SHRINK_TITLE, SHRINK_CELL),
) -> LongTerm:
    """Value the policies whose titles and bands [S, P] on the same visits are given; raises as `index`."""
    told, logged = index(visits), _logged(visits)
    shown = _columns(visits.title_SP, visits.band_SP, visits.weight_P, num_titles, num_bands)
    member_S, size = visits.member_S, len(visits.member_S)
    num = int(member_S.max()) + 1
    num_M = np.maximum(np.bincount(member_S), 1)
    total_MK = sparse.csr_matrix((np.ones(size), (member_S, np.arange(size)))) @ shown
    shared_MK = (sparse.diags(1.0 / np.sqrt(num_M)) @ total_MK).toarray()
    ridge_K = np.repeat(np.asarray(shrink), (num_titles, num_titles * num_bands))
    inverse_KK = np.linalg.inv((shown.T @ shown).toarray() - shared_MK.T @ shared_MK + np.diag(ridge_K))
    feedback_SF = _within(visits.feedback_SF, member_S)
    worth_KF = inverse_KK @ (shown.T @ feedback_SF)
    residual_S = (feedback_SF - _within(shown @ worth_KF, member_S)) @ told.weight_F
    value, moved_M = {}, {}
    for name, (title_SP, band_SP) in slates.items():
        more = _columns(title_SP, band_SP, visits.weight_P, num_titles, num_bands) - shown
        gain_SF = more @ worth_KF
        gain_S = gain_SF @ told.weight_F
        toward_S = _within((shown @ (inverse_KK @ np.asarray(more.mean(axis=0)).ravel()))[:, None], member_S)[:, 0]
        moved_S = toward_S * residual_S + (gain_S - gain_S.mean()) / size
        moved_M[name] = _by_member(moved_S[:, None], member_S, num)[:, 0] + told.moved_MF @ gain_SF.mean(axis=0)
        error = float(np.sqrt((moved_M[name] ** 2).sum()))
        value[name] = Estimate(logged.value + float(gain_S.mean()), error, float(len(np.unique(member_S))))
    return LongTerm(logged, value, moved_M)


def greedy(score_SN: Floats, available_S: Ints, places: int) -> Ints:
    """Slates that are greedy for a score among the first `available_S` titles; equal ones in their order: [S, P]."""
    left_SN = np.where(np.arange(score_SN.shape[1]) < available_S[:, None], score_SN, -np.inf)
    return np.argsort(-left_SN, axis=1, kind="stable")[:, :places]


def _logged(visits: Visits) -> Estimate:
    known_S = ~np.isnan(visits.return_S)
    mean = float(visits.return_S[known_S].mean())
    off_M = np.bincount(visits.member_S[known_S], (visits.return_S[known_S] - mean) / known_S.sum())
    return Estimate(mean, float(np.sqrt((off_M**2).sum())), float(known_S.sum()))


def _columns(title_SP: Ints, band_SP: Ints, weight_P: Floats, num_titles: int, num_bands: int) -> sparse.csr_matrix:
    size, places = title_SP.shape
    cell_SP = num_titles + title_SP * num_bands + band_SP
    column = np.concatenate([title_SP, cell_SP], axis=1).ravel()
    value = np.tile(weight_P, 2 * size)
    row = np.repeat(np.arange(size), 2 * places)
    return sparse.csr_matrix((value, (row, column)), shape=(size, num_titles * (1 + num_bands)))


def _within(value_SF: Floats, member_S: Ints) -> Floats:
    """Less the mean of the member."""
    num = int(member_S.max()) + 1
    num_M = np.maximum(np.bincount(member_S, minlength=num), 1)
    return np.asarray(value_SF - (_by_member(value_SF, member_S, num) / num_M[:, None])[member_S])


def _by_member(value_SF: Floats, member_S: Ints, num: int) -> Floats:
    """Sums: float64[M, F]."""
    return np.stack([np.bincount(member_S, column, minlength=num) for column in value_SF.T], axis=1)
