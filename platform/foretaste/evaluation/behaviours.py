"""What members did, counted, and which of it stands out in a segment more than chance explains.

Counts add up over parts of the members, so that memory does not grow with their number.

Shapes: M members, T interactions of all of them, C classes of one thing, X behaviours (all classes of all things),
K segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from foretaste.contracts.histories import Histories
from foretaste.sessions.intent_horizons import one_hot

HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
HOURS = ("night (0-6 UTC)", "morning (6-12 UTC)", "afternoon (12-18 UTC)", "evening (18-24 UTC)")
DAYS = ("weekday", "weekend")
LENGTHS = ("1 title", "2 to 3 titles", "4 titles or more")
KNOWN = ("titles for the first time", "titles again")
_LENGTH_FROM = (2, 4)
_THURSDAY = 3  # 1970-01-01, counting from Monday

Names = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Behaviours:
    """How often M members did each of X things, and of how often they did anything that could have been it."""

    names: Names  # what, and which class of it
    count_MX: NDArray[np.float64]
    of_MX: NDArray[np.float64]

    def members(self, kept_M: NDArray[np.bool_]) -> Behaviours:
        """Keep some members."""
        return Behaviours(self.names, self.count_MX[kept_M], self.of_MX[kept_M])


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over the members of each segment: all that shares and their intervals need; float64[K, X] each."""

    count: NDArray[np.float64]
    of: NDArray[np.float64]
    count_count: NDArray[np.float64]
    count_of: NDArray[np.float64]
    of_of: NDArray[np.float64]
    having: NDArray[np.float64]  # members who did it at all
    members: NDArray[np.float64]  # members who did anything that could have been it

    def __add__(self, other: Moments) -> Moments:
        """Put two disjoint parts of the members together."""
        return Moments(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def plain(self) -> dict[str, list[list[float]]]:
        """As plain values."""
        return {f.name: getattr(self, f.name).tolist() for f in fields(self)}

    @classmethod
    def of_plain(cls, value: Mapping[str, Any]) -> Self:
        """Read what `plain` gave."""
        return cls(**{f.name: np.array(value[f.name], dtype=np.float64) for f in fields(cls)})


@dataclass(frozen=True, slots=True)
class Finding:
    """One behaviour in one segment."""

    what: str
    name: str
    share: float  # in the segment
    share_all: float
    lift: float  # of the one over the other
    low: float  # 95% interval of the lift
    high: float
    count: int  # how often it was done in the segment
    members: int  # who did it there
    p: float  # chance of so much where the segment is like all, before allowing for how many were looked at


def behaviours(
    histories: Histories,
    labels: Mapping[str, NDArray[Any]],
    classes: Mapping[str, Sequence[str]],
    within_T: NDArray[np.bool_],
    device_T: NDArray[np.int32],
    devices: Sequence[str],
) -> Behaviours:
    """Count what is `within_T` of each history: intents (`labels` of `classes`), times, devices, lengths, repeats.

    `device_T` indexes `devices`, -1 where it is not known. Hours are UTC. A session counts where it begins, with all
    of its titles.
    """
    row_T = np.repeat(np.arange(len(histories)), histories.lengths_B)
    hour_T = histories.at_T % DAY_US // (6 * HOUR_US)
    weekend_T = (histories.at_T // DAY_US + _THURSDAY) % 7 >= 5
    things: list[tuple[str, Sequence[str], NDArray[Any]]] = [
        *((head, classes[head], labels[head]) for head in labels),
        ("time of day", HOURS, hour_T),
        ("day", DAYS, weekend_T.astype(np.int64)),
        ("device", devices, device_T),
        ("session", LENGTHS, _lengths(histories, row_T)),
        ("familiarity", KNOWN, _again(histories, row_T)),
    ]
    names, counts, ofs = [], [], []
    for what, of, code_T in things:
        hot_TC = one_hot(code_T, len(of))[within_T]
        count_MC = np.zeros((len(histories), len(of)))
        np.add.at(count_MC, row_T[within_T], hot_TC)
        of_M = np.bincount(row_T[within_T], weights=hot_TC.any(axis=1), minlength=len(histories))
        names += [(what, name) for name in of]
        counts.append(count_MC)
        ofs.append(np.repeat(of_M[:, None], len(of), axis=1))
    return Behaviours(tuple(names), np.concatenate(counts, axis=1), np.concatenate(ofs, axis=1))


def moments(found: Behaviours, segment_M: NDArray[np.int32], num: int) -> Moments:
    """Add the members of each of `num` segments up."""

    def summed(value_MX: NDArray[Any]) -> NDArray[np.float64]:
        total_KX = np.zeros((num, value_MX.shape[1]))
        np.add.at(total_KX, segment_M, value_MX)
        return total_KX

    count_MX, of_MX = found.count_MX, found.of_MX
    squares = (count_MX**2, count_MX * of_MX, of_MX**2)
    values: tuple[NDArray[Any], ...] = (count_MX, of_MX, *squares, count_MX > 0, of_MX > 0)
    return Moments(*map(summed, values))


def lifts(sums: Moments, names: Names, *, least_members: int) -> list[list[Finding]]:
    """Every behaviour that at least so many members of a segment have, by segment.

    The lift is the share in the segment over that in all. Members, not what they did, are taken as independent: the
    variance of its logarithm is the sum of their squared influences (delta method of the ratio of two ratios), and
    Student's distribution allows for a segment of few members.
    """
    all_sums = Moments(*(getattr(sums, f.name).sum(axis=0, keepdims=True) for f in fields(sums)))
    few_KX = np.maximum(sums.members - 1.0, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share_KX, share_1X = sums.count / sums.of, all_sums.count / all_sums.of
        variance_KX = (
            _squares(sums, share_KX, share_KX) / sums.count**2
            - 2 * _squares(sums, share_KX, share_1X) / (sums.count * all_sums.count)
            + _squares(all_sums, share_1X, share_1X) / all_sums.count**2
        ) * (sums.members / few_KX)
        log_KX, error_KX = np.log(share_KX / share_1X), np.sqrt(np.maximum(variance_KX, 0.0))
        p_KX = stdtr(few_KX, -log_KX / error_KX)
    reach_KX = stdtrit(few_KX, 0.975) * error_KX
    kept_KX = (sums.having >= least_members) & (error_KX > 0)
    return [
        [
            Finding(
                *names[x],
                share=float(share_KX[k, x]),
                share_all=float(share_1X[0, x]),
                lift=float(np.exp(log_KX[k, x])),
                low=float(np.exp(log_KX[k, x] - reach_KX[k, x])),
                high=float(np.exp(log_KX[k, x] + reach_KX[k, x])),
                count=int(sums.count[k, x]),
                members=int(sums.having[k, x]),
                p=float(p_KX[k, x]),
            )
            for x in np.flatnonzero(kept_KX[k])
        ]
        for k in range(len(kept_KX))
    ]


def over_represented(found: Sequence[Sequence[Finding]], *, level: float) -> list[list[Finding]]:
    """Keep what is more frequent in a segment than chance explains, the surest lift first.

    Of all that is kept, over all segments, at most a share of `level` is expected to be chance (Benjamini and
    Hochberg 1995), and each interval lies above 1.
    """
    p_F = np.sort([one.p for part in found for one in part])
    passing = np.flatnonzero(p_F <= level * (1 + np.arange(len(p_F))) / max(len(p_F), 1))
    most = p_F[passing[-1]] if len(passing) else -1.0
    return [sorted([one for one in part if one.p <= most and one.low > 1], key=lambda one: -one.low) for part in found]


def _squares(sums: Moments, one_KX: NDArray[np.float64], other_KX: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over members of (count - one * of) (count - other * of)."""
    return sums.count_count - (one_KX + other_KX) * sums.count_of + one_KX * other_KX * sums.of_of


def _lengths(histories: Histories, row_T: NDArray[np.int64]) -> NDArray[np.int64]:
    """Code in LENGTHS at the first interaction of each session, -1 at all others."""
    opens_T = np.ones(len(row_T), dtype=np.bool_)
    opens_T[1:] = (np.diff(row_T) != 0) | (np.diff(histories.session_T) != 0)
    starts = np.flatnonzero(opens_T)
    code_T = np.full(len(row_T), -1)
    code_T[starts] = np.searchsorted(_LENGTH_FROM, np.diff(np.append(starts, len(row_T))), side="right")
    return code_T


def _again(histories: Histories, row_T: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 where a title is met for the first time in its history, 1 where again, -1 where it is not known."""
    width = int(histories.title_T.max(initial=0)) + 1
    first = np.unique(row_T * width + histories.title_T, return_index=True)[1]
    code_T = np.ones(len(row_T), dtype=np.int64)
    code_T[first] = 0
    return np.where(histories.title_T > 0, code_T, -1)
