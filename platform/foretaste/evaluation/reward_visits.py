"""Visits of a log, as the worth of slates in the long run is learned from them: what was shown, chosen, and followed.

Every choice counts, of what was shown and of what was found beside it, for a slate that leaves a favourite out only
moves the choice of it elsewhere.

Shapes: S visits, C choices, X places of slates, P places of one, M members, N titles, B bands, H kinds of past, F kinds
of feedback, G groups of columns, K columns of a choice (titles, titles x bands, past, shown, shown x bands, shown x
titles).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

PAST = ("nothing", "nothing, and the title is new", "chosen before", "begun lately, not finished")
"""Kinds of past between a member and a title, by their numbers."""


@dataclass(frozen=True)
class Visits:
    """Visits whose slates are whole, those of a member in order of time."""

    member_S: Ints  # 0..M-1
    days_S: Floats  # from its end until the next visit or, where that was not seen, until when none was
    returned_S: Bools  # whether the next visit was seen
    until_S: Floats  # days from its end until that of the log
    title_SP: Ints  # the slate
    sale_S: Ints  # on sale are the first so many titles
    band_MN: Ints  # of titles to members, 0..B-1
    past_SN: NDArray[np.uint8]  # what the log knows of member and title when the visit opens, one of PAST
    visit_C: Ints  # of the choices, shown or not
    chosen_C: Ints
    feedback_CF: Floats  # what followed on the choice

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Put visits of different members together."""
        joined = {f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)}
        for name, sizes in (
            ("member_S", [len(part.band_MN) for part in parts]),
            ("visit_C", [len(part.member_S) for part in parts]),
        ):
            before = np.concatenate([[0], np.cumsum(sizes)[:-1]])
            lengths = [len(getattr(part, name)) for part in parts]
            joined[name] = joined[name] + np.repeat(before, lengths)
        return cls(**joined)

    def without(self, out_M: Bools) -> Visits:
        """Leave members out."""
        kept_S = ~out_M[self.member_S]
        kept_C = kept_S[self.visit_C]
        number_S = np.cumsum(kept_S) - 1
        names = [f.name for f in fields(self) if f.name.endswith(("_S", "_SP", "_SN"))]
        of_visits = {name: getattr(self, name)[kept_S] for name in names}
        return replace(
            self,
            **of_visits,
            visit_C=number_S[self.visit_C[kept_C]],
            chosen_C=self.chosen_C[kept_C],
            feedback_CF=self.feedback_CF[kept_C],
        )

    @property
    def num_titles(self) -> int:
        """Titles, on sale or not."""
        return int(self.band_MN.shape[1])

    @property
    def num_bands(self) -> int:
        """Bands."""
        return int(self.band_MN.max()) + 1

    @property
    def num_choices_S(self) -> Ints:
        """How many choices each visit had."""
        return np.bincount(self.visit_C, minlength=len(self.member_S))


@dataclass(frozen=True)
class Shown:
    """What slates show: a row for each place of each."""

    visit_X: Ints
    title_X: Ints
    place_X: Ints
    band_X: Ints

    @classmethod
    def of(cls, visits: Visits, title_SP: Ints) -> Self:
        """Take slates [S, P] of visits apart."""
        size, places = title_SP.shape
        visit_X, title_X = np.repeat(np.arange(size), places), title_SP.ravel()
        band_X = visits.band_MN[visits.member_S[visit_X], title_X]
        return cls(visit_X, title_X, np.tile(np.arange(places), size), band_X)


@dataclass(frozen=True)
class Columns:
    """What tells one choice from another, in the order of K."""

    num_titles: int
    num_bands: int

    @classmethod
    def of(cls, visits: Visits) -> Self:
        """Those of some visits."""
        return cls(visits.num_titles, visits.num_bands)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the groups of K."""
        return (self.num_titles, self.num_titles * self.num_bands, len(PAST), 1, self.num_bands, self.num_titles)

    def repeat(self, by_group: Sequence[float]) -> Floats:
        """One number for all columns of a group: float64[K]."""
        return np.repeat(np.asarray(by_group, dtype=np.float64), self.sizes)

    def groups(self, value_K: Floats) -> list[Floats]:
        """Values by group."""
        return np.split(value_K, np.cumsum(self.sizes)[:-1])

    def chosen(self, visits: Visits) -> sparse.csr_matrix:
        """What was chosen, as rows of K: float64[C, K]."""
        visit_C, title_C = visits.visit_C, visits.chosen_C
        band_C = visits.band_MN[visits.member_S[visit_C], title_C]
        shown_C = (visits.title_SP[visit_C] == title_C[:, None]).any(axis=1).astype(np.float64)
        one_C, first = np.ones(len(title_C)), np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        cell_C, past_C = title_C * self.num_bands + band_C, visits.past_SN[visit_C, title_C]
        column_GC = np.stack([title_C, cell_C, past_C, np.zeros_like(title_C), band_C, title_C]) + first[:, None]
        value_GC = np.stack([one_C, one_C, one_C, shown_C, shown_C, shown_C])
        row_GC = np.broadcast_to(np.arange(len(title_C)), column_GC.shape)
        shape = (len(title_C), sum(self.sizes))
        return sparse.csr_matrix((value_GC.ravel(), (row_GC.ravel(), column_GC.ravel())), shape=shape)

    def each(self, visits: Visits, value_K: Floats, shown: Shown) -> Floats:
        """Values of choosing each title on each visit, where some are shown: float64[S, N]."""
        title_N, cell_NB, past_H, once, band_B, also_N = self.groups(value_K)
        of_MN = np.take_along_axis(cell_NB.reshape(self.num_titles, -1).T, visits.band_MN, axis=0) + title_N
        value_SN = of_MN[visits.member_S]
        value_SN += past_H[visits.past_SN]
        value_SN[shown.visit_X, shown.title_X] += once[0] + band_B[shown.band_X] + also_N[shown.title_X]
        return value_SN

    def gathered(self, visits: Visits, value_SN: Floats, shown: Shown) -> Floats:
        """Sums of values by column, the transpose of `each`: float64[K]."""
        size = len(visits.member_S)
        members_MS = sparse.csr_matrix(
            (np.ones(size), (visits.member_S, np.arange(size))), shape=(len(visits.band_MN), size)
        )
        total_MN = members_MS @ value_SN
        cell_MN = np.arange(self.num_titles) * self.num_bands + visits.band_MN
        shown_X = value_SN[shown.visit_X, shown.title_X]
        parts = [
            total_MN.sum(axis=0),
            np.bincount(cell_MN.ravel(), total_MN.ravel(), self.num_titles * self.num_bands),
            np.bincount(visits.past_SN.ravel(), value_SN.ravel(), len(PAST)),
            shown_X.sum(keepdims=True),
            np.bincount(shown.band_X, shown_X, self.num_bands),
            np.bincount(shown.title_X, shown_X, self.num_titles),
        ]
        return np.concatenate(parts)


def within(value_XF: Floats, member_X: Ints) -> Floats:
    """Less the mean of the member: float64[X, F]."""
    num_M = np.maximum(np.bincount(member_X), 1)
    mean_MF = np.stack([np.bincount(member_X, column) for column in value_XF.T], axis=1) / num_M[:, None]
    return np.asarray(value_XF - mean_MF[member_X])
