"""What a slate policy is worth in the long run, from a log alone: an index of the return, and what slates do to it.

Whether a member comes back is one bit a visit, and a policy that differs from the log is followed by few of its
visits, so that weights cannot tell. In their place stand

1. *index*: what the feedback of a visit says of the return after it, by least squares within members, so that who comes
   often and who is easily pleased cancels out (surrogate index: Athey, Chetty, Imbens and Kang, NBER 26463, 2019). It
   holds as far as the slate moves returns through that feedback;
2. *choice*: how a title draws from its place against what else is shown and what is not, by a conditional logit
   (McFadden 1974), titles and titles x bands drawn towards 0;
3. *worth*: what feedback a visit has that went to a title in a band instead of elsewhere, by ridge regression within
   members.

A policy's value is that of the log and what the choices that its slates lead to add over those of the slates that were
shown. Errors are of what they add, of index and worth by linearisation with all visits of a member as one; what
shrinking leaves out is not in them, nor is the error of the choices, nor that of the log's own value, which all share.
What is chosen beside a slate is taken to be worth the same whatever the slate shows, so that a policy which leaves a
member's favourites to be found elsewhere, and whose slates draw few, is valued too low.

Shapes: S visits, P places, F kinds of feedback, K columns of a slate (titles, then titles x bands), M members.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize

from foretaste.evaluation.reward_estimates import Estimate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHRINK_WORTH = (5.0, 20.0)
"""Visits that the worth of a title, and of a title in a band, is drawn to 0 by."""
SHRINK_DRAW = (1.0, 4.0)
"""One over the variance that is expected of how titles draw, and titles in a band."""


@dataclass(frozen=True)
class Visits:
    """Visits of a log, whose slates are whole."""

    member_S: Ints  # 0..M-1
    return_S: Floats  # 1 back within the days, 0 not, NaN not known
    feedback_SF: Floats  # of the whole visit
    title_SP: Ints
    band_SP: Ints  # of the title to the member
    played_SP: Floats  # 1 where it was played on the visit
    choices_S: Floats  # what was played on the visit, shown or not


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
    shrink: tuple[float, float] = SHRINK_WORTH,
) -> LongTerm:
    """Value the policies whose titles and bands [S, P] on the same visits are given; raises as `index`."""
    cells = _Cells(num_titles, num_bands)
    told, logged, draws = index(visits), _logged(visits), choice(visits, cells)
    member_S, size = visits.member_S, len(visits.member_S)
    num_S = np.maximum(visits.choices_S, np.maximum(visits.played_SP.sum(axis=1), 1.0))
    played = cells.columns(visits.title_SP, visits.band_SP, visits.played_SP / num_S[:, None])
    expected = cells.columns(visits.title_SP, visits.band_SP, draws.shares(visits.title_SP, visits.band_SP))
    num = int(member_S.max()) + 1
    num_M = np.maximum(np.bincount(member_S), 1)
    total_MK = sparse.csr_matrix((np.ones(size), (member_S, np.arange(size)))) @ played
    shared_MK = (sparse.diags(1.0 / np.sqrt(num_M)) @ total_MK).toarray()
    ridge_KK = np.diag(cells.repeat(shrink))
    inverse_KK = np.linalg.inv((played.T @ played).toarray() - shared_MK.T @ shared_MK + ridge_KK)
    feedback_SF = _within(visits.feedback_SF, member_S)
    worth_KF = inverse_KK @ (played.T @ feedback_SF)
    residual_S = (feedback_SF - _within(played @ worth_KF, member_S)) @ told.weight_F
    value, moved_M = {}, {}
    for name, (title_SP, band_SP) in slates.items():
        more = cells.columns(title_SP, band_SP, draws.shares(title_SP, band_SP)) - expected
        gain_SF = more @ worth_KF
        gain_S = gain_SF @ told.weight_F
        toward_S = _within((played @ (inverse_KK @ np.asarray(more.mean(axis=0)).ravel()))[:, None], member_S)[:, 0]
        moved_S = toward_S * residual_S + (gain_S - gain_S.mean()) / size
        moved_M[name] = _by_member(moved_S[:, None], member_S, num)[:, 0] + told.moved_MF @ gain_SF.mean(axis=0)
        error = float(np.sqrt((moved_M[name] ** 2).sum()))
        value[name] = Estimate(logged.value + float(gain_S.mean()), error, float(len(np.unique(member_S))))
    return LongTerm(logged, value, moved_M)


@dataclass(frozen=True)
class _Cells:
    """Columns of a slate: titles, then titles x bands."""

    num_titles: int
    num_bands: int

    def numbers(self, title_SP: Ints, band_SP: Ints) -> Ints:
        """Numbers of titles x bands, after those of the titles."""
        return np.asarray(self.num_titles + title_SP * self.num_bands + band_SP)

    def repeat(self, pair: tuple[float, float]) -> Floats:
        """One value for every title, and one for every title in a band: float64[K]."""
        return np.repeat(np.asarray(pair), (self.num_titles, self.num_titles * self.num_bands))

    def columns(self, title_SP: Ints, band_SP: Ints, value_SP: Floats) -> sparse.csr_matrix:
        """Values in the columns of their titles, and in those of their titles x bands: float64[S, K]."""
        size, places = title_SP.shape
        column = np.concatenate([title_SP, self.numbers(title_SP, band_SP)], axis=1).ravel()
        row = np.repeat(np.arange(size), 2 * places)
        shape = (size, self.num_titles * (1 + self.num_bands))
        return sparse.csr_matrix((np.concatenate([value_SP, value_SP], axis=1).ravel(), (row, column)), shape=shape)


@dataclass(frozen=True)
class Draws:
    """How titles draw, against all that is not shown."""

    cells: _Cells
    title_K: Floats  # of titles, then of titles x bands
    place_P: Floats

    def shares(self, title_SP: Ints, band_SP: Ints) -> Floats:
        """Shares of a visit's choices that go to each place: float64[S, P]."""
        draw_SP = self.title_K[title_SP] + self.title_K[self.cells.numbers(title_SP, band_SP)] + self.place_P
        odds_SP = np.exp(np.clip(draw_SP, -20.0, 20.0))
        return np.asarray(odds_SP / (1.0 + odds_SP.sum(axis=1, keepdims=True)))


def choice(visits: Visits, cells: _Cells) -> Draws:
    """Learn how titles draw; what was chosen beside the slate is one alternative."""
    places, width = visits.title_SP.shape[1], cells.num_titles * (1 + cells.num_bands)
    num_S = np.maximum(visits.choices_S, visits.played_SP.sum(axis=1))
    cell_SP, precision_K = cells.numbers(visits.title_SP, visits.band_SP), cells.repeat(SHRINK_DRAW)

    def loss(free: Floats) -> tuple[float, Floats]:
        title_K, place_P = free[:width], free[width:]
        shares_SP = Draws(cells, title_K, place_P).shares(visits.title_SP, visits.band_SP)
        other_S = np.maximum(1.0 - shares_SP.sum(axis=1), 1e-12)
        logs = (visits.played_SP * np.log(np.maximum(shares_SP, 1e-300))).sum()
        logs += ((num_S - visits.played_SP.sum(axis=1)) * np.log(other_S)).sum()
        off_SP = num_S[:, None] * shares_SP - visits.played_SP
        toward_K = precision_K * title_K
        for column_SP in (visits.title_SP, cell_SP):
            toward_K = toward_K + np.bincount(column_SP.ravel(), off_SP.ravel(), minlength=width)
        value = 0.5 * float((precision_K * title_K**2).sum()) - float(logs)
        return value / len(num_S), np.concatenate([toward_K, off_SP.sum(axis=0)]) / len(num_S)

    start = np.concatenate([np.zeros(width), np.full(places, -2.0)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return Draws(cells, found[:width], found[width:])


def greedy(score_SN: Floats, available_S: Ints, places: int) -> Ints:
    """Slates that are greedy for a score among the first `available_S` titles; equal ones in their order: [S, P]."""
    left_SN = np.where(np.arange(score_SN.shape[1]) < available_S[:, None], score_SN, -np.inf)
    return np.argsort(-left_SN, axis=1, kind="stable")[:, :places]


def _logged(visits: Visits) -> Estimate:
    known_S = ~np.isnan(visits.return_S)
    mean = float(visits.return_S[known_S].mean())
    off_M = np.bincount(visits.member_S[known_S], (visits.return_S[known_S] - mean) / known_S.sum())
    return Estimate(mean, float(np.sqrt((off_M**2).sum())), float(known_S.sum()))


def _within(value_SF: Floats, member_S: Ints) -> Floats:
    """Less the mean of the member."""
    num = int(member_S.max()) + 1
    num_M = np.maximum(np.bincount(member_S, minlength=num), 1)
    return np.asarray(value_SF - (_by_member(value_SF, member_S, num) / num_M[:, None])[member_S])


def _by_member(value_SF: Floats, member_S: Ints, num: int) -> Floats:
    """Sums: float64[M, F]."""
    return np.stack([np.bincount(member_S, column, minlength=num) for column in value_SF.T], axis=1)
