"""A service whose final feedback comes late: who is shown a title may finish it days later, over many visits.

Nobody draws a delay here. A member visits by a Poisson process (more at weekends), begins what was shown at once or
from a list days later, watches a piece at each visit, and may give up after any of them. The final feedback is that the
title was finished within a horizon; its delay is the first passage of a sum of pieces, so it hangs on the title's
length, on the member's pace and on what was watched so far, and is of no family that a model assumes. Titles come out
every day, and what is in fashion turns, so that what is only known late is known of another service.

Shapes: N decisions, M members, J titles, G genres, V visits, F columns of a context, S signals, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit

from foretaste.contracts.config import Frozen

SIGNALS = (
    "started", "log_days_since_start", "fraction", "log_viewings", "log_days_since_viewing", "thumb_up", "thumb_down",
    "log_visits", "log_hours_left",
)  # fmt: skip
"""What is seen of a decision before its final feedback."""

MOST_VISITS = 40
WEEKEND = (5.0, 7.0)
"""Days of the week in which members visit more; the world begins on a Monday."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class DelayWorldConfig(Frozen):
    """What is planted."""

    num_members: int = Field(2_000, ge=1, description="members")
    launches_per_day: int = Field(8, ge=1, description="titles that come out every day")
    shown_days: int = Field(28, ge=1, description="days for which a title is shown after it came out")
    days: int = Field(60, ge=1, description="days for which titles come out")
    num_genres: int = Field(6, ge=2, description="genres")
    horizon_days: float = Field(14.0, gt=0, description="days within which a title has to be finished to count")
    show_share: float = Field(0.45, ge=0, le=1, description="share of titles that are shows, which take many visits")
    fashion: float = Field(0.8, ge=0, description="strength of a fashion that turns through the genres in 40 days")
    noise: float = Field(0.4, ge=0, description="deviation of what is known of a member from what is so")


@dataclass(frozen=True, slots=True)
class Journeys:
    """What members did with what they were shown; times are ages in days since the decision."""

    visit_NV: Floats
    viewed_NV: Floats  # end of the visit's viewing, inf without one
    fraction_NV: Floats  # watched after the visit
    thumb_at_N: Floats  # inf: never
    thumb_N: Floats  # 1 up, -1 down
    finished_N: Floats  # inf: never; may lie behind the horizon
    hours_N: Floats  # of the title

    def rows(self, rows: Ints) -> Journeys:
        """Some of them."""
        return Journeys(*(getattr(self, one.name)[rows] for one in fields(self)))

    @staticmethod
    def join(parts: Sequence[Journeys]) -> Journeys:
        """All of them, in order."""
        return Journeys(*(np.concatenate([getattr(p, one.name) for p in parts]) for one in fields(Journeys)))

    def signals(self, age_N: Floats) -> NDArray[np.float32]:
        """What is seen before each age, in the order of SIGNALS: float32[N, S]."""
        seen_NV = self.viewed_NV < age_N[:, None]
        started_N = seen_NV.any(axis=1)
        first_N = np.where(seen_NV, self.viewed_NV, np.inf).min(axis=1, initial=np.inf)
        last_N = np.where(seen_NV, self.viewed_NV, -np.inf).max(axis=1, initial=-np.inf)
        thumbed_N = self.thumb_at_N < age_N

        def since(at_N: Floats) -> Floats:
            return np.log1p(np.where(started_N, age_N - np.where(started_N, at_N, 0.0), 0.0))

        fraction_N = np.where(seen_NV, self.fraction_NV, 0.0).max(axis=1)
        columns = (
            started_N,
            since(first_N),
            fraction_N,
            np.log1p(seen_NV.sum(axis=1)),
            since(last_N),
            thumbed_N & (self.thumb_N > 0),
            thumbed_N & (self.thumb_N < 0),
            np.log1p((self.visit_NV[:, 1:] < age_N[:, None]).sum(axis=1)),
            np.where(started_N, np.log1p(self.hours_N * (1.0 - fraction_N)), 0.0),
        )
        return np.stack(columns, axis=1).astype(np.float32)


class DelayWorld:
    """Members and titles of a seed; all dice of what happens later are arguments."""

    def __init__(self, config: DelayWorldConfig, seed: int) -> None:
        self.config = config
        rng = np.random.default_rng([seed, 0xDE1A])
        m, g = config.num_members, config.num_genres
        j = config.launches_per_day * (config.shown_days + config.days)
        self.taste_MG = rng.normal(size=(m, g))
        self.log_pace_M = rng.normal(np.log(1.3), 0.4, m)  # hours watched a visit
        self.log_rate_M = np.minimum(rng.normal(np.log(0.7), 0.5, m), np.log(2.0))  # visits a day
        self.genre_JG = rng.dirichlet(np.full(g, 0.4), j)
        self.show_J = rng.random(j) < config.show_share
        self.hours_J = np.exp(np.where(self.show_J, rng.normal(np.log(7.0), 0.5, j), rng.normal(np.log(1.7), 0.2, j)))
        self.quality_J = rng.normal(size=j)
        self.appeal_J = 0.3 * self.quality_J + rng.normal(0.0, 0.95, j)
        self.launch_J = np.repeat(np.arange(-config.shown_days, config.days), config.launches_per_day).astype(float)
        self.known_MX = np.column_stack([self.taste_MG, self.log_pace_M, self.log_rate_M])
        self.known_MX = self.known_MX + config.noise * rng.normal(size=self.known_MX.shape) * self.known_MX.std(axis=0)

    @property
    def num_titles(self) -> int:
        """Titles, those that are not out yet included."""
        return len(self.hours_J)

    def requests(self, day: int, size: int, candidates: int, rng: np.random.Generator) -> tuple[Ints, Floats, Ints]:
        """Who asks on a day, when, and which titles could be shown: member [N], time in days [N], titles [N, C]."""
        member_N = rng.integers(self.config.num_members, size=size)
        at_N = np.sort(day + rng.random(size))
        out = np.flatnonzero((self.launch_J <= day) & (self.launch_J > day - self.config.shown_days))
        title_NC = out[np.argsort(rng.random((size, len(out))), axis=1)[:, :candidates]]
        return member_N, at_N, title_NC

    def context(self, member_N: Ints, title_N: Ints, at_N: Floats) -> NDArray[np.float32]:
        """What is known when a title is shown: float32[N, F]."""
        known_NX, genre_NG = self.known_MX[member_N], self.genre_JG[title_N]
        g = self.config.num_genres
        match_N = (known_NX[:, :g] * genre_NG).sum(axis=1)
        age_N = np.log1p(np.maximum(at_N - self.launch_J[title_N], 0.0))
        hours_N, show_N = np.log(self.hours_J[title_N]), self.show_J[title_N]
        weekend_N = _is_weekend(at_N)
        columns = (match_N, match_N**2, age_N, hours_N, show_N, weekend_N, hours_N - known_NX[:, g])
        return np.column_stack([known_NX, genre_NG, *columns]).astype(np.float32)

    def journeys(self, member_N: Ints, title_N: Ints, at_N: Floats, rng: np.random.Generator) -> Journeys:
        """Let every member meet the title that is shown to them."""
        size, place_V = len(member_N), np.arange(MOST_VISITS)[None, :]
        liking_N, wanting_N = self._liking(member_N, title_N, at_N)
        visit_NV = self._visits(member_N, at_N, rng)
        at_once_N = expit(-0.9 + wanting_N)
        listed_N = rng.random(size) < expit(-0.6 + 0.8 * wanting_N)
        begin_NV = np.where(place_V == 0, at_once_N[:, None], 0.4 * 0.85**place_V * listed_N[:, None])
        start_N = _first(rng.random((size, MOST_VISITS)) < begin_NV)
        stays_N = expit(1.7 + liking_N)
        gives_up_NV = (rng.random((size, MOST_VISITS)) > stays_N[:, None]) & (place_V >= start_N[:, None])
        given_up_N = _first(gives_up_NV)
        watches_NV = (place_V >= start_N[:, None]) & (place_V <= given_up_N[:, None])
        piece_NV = np.exp(self.log_pace_M[member_N])[:, None] * rng.gamma(2.0, 0.5, (size, MOST_VISITS))
        hours_N = self.hours_J[title_N]
        fraction_NV = np.cumsum(piece_NV * watches_NV, axis=1) / hours_N[:, None]
        done_N = _first(fraction_NV >= 1.0)
        watches_NV &= place_V <= done_N[:, None]
        viewed_NV = np.where(watches_NV, visit_NV + np.minimum(piece_NV, hours_N[:, None]) / 24.0, np.inf)
        liked_N = liking_N + rng.normal(0.0, 1.0, size) > 0
        thumbs_N = rng.random(size) < 0.2
        return Journeys(
            visit_NV,
            viewed_NV,
            np.minimum(fraction_NV, 1.0),
            np.where(thumbs_N, viewed_NV.min(axis=1), np.inf),
            np.where(liked_N, 1.0, -1.0),
            _at(viewed_NV, done_N),
            hours_N,
        )

    def final(self, journeys: Journeys) -> NDArray[np.bool_]:
        """Whether the title was finished within the horizon."""
        return journeys.finished_N <= self.config.horizon_days

    def chances(
        self, member_N: Ints, title_N: Ints, at_N: Floats, rng: np.random.Generator, *, repeats: int = 32
    ) -> Floats:
        """Truth: the share of so many journeys that end in the final feedback."""
        total_N = np.zeros(len(member_N))
        for _ in range(repeats):
            total_N += self.final(self.journeys(member_N, title_N, at_N, rng))
        return total_N / repeats

    def _liking(self, member_N: Ints, title_N: Ints, at_N: Floats) -> tuple[Floats, Floats]:
        """How gladly each goes on, and how gladly each begins."""
        genre_NG, g = self.genre_JG[title_N], self.config.num_genres
        phase_NG = 2.0 * np.pi * (at_N[:, None] / 40.0 - np.arange(g) / g)
        fashion_N = self.config.fashion * (genre_NG * np.cos(phase_NG)).sum(axis=1)
        match_N = 1.2 * (self.taste_MG[member_N] * genre_NG).sum(axis=1)
        new_N = np.exp(-np.maximum(at_N - self.launch_J[title_N], 0.0) / 7.0)
        liking_N = 0.7 * match_N + 1.1 * self.quality_J[title_N]
        return liking_N, match_N + fashion_N + 0.9 * self.appeal_J[title_N] + 0.8 * new_N

    def _visits(self, member_N: Ints, at_N: Floats, rng: np.random.Generator) -> Floats:
        """Ages of the visits, the one in which the title is shown first: the members' own rates, warped by the week."""
        gap_NV = rng.exponential(1.0, (len(member_N), MOST_VISITS)) / np.exp(self.log_rate_M[member_N])[:, None]
        gap_NV[:, 0] = 0.0
        busy_NV = _busyness(at_N)[:, None] + np.cumsum(gap_NV, axis=1)
        age_NV = _when(busy_NV) - at_N[:, None]
        age_NV[:, 0] = 0.002 * rng.random(len(member_N))
        return age_NV


def _is_weekend(at_N: Floats) -> NDArray[np.bool_]:
    return np.asarray(at_N % 7.0 >= WEEKEND[0])


_WEEK_DAYS = np.array([0.0, WEEKEND[0], WEEKEND[1]])
_WEEK_BUSY = np.array([0.0, 4.2, 7.0])


def _busyness(at: Floats) -> Floats:
    """Time as members' visits count it: five days of 0.84 and two of 1.4 make a week."""
    return np.asarray(np.floor(at / 7.0) * 7.0 + np.interp(at % 7.0, _WEEK_DAYS, _WEEK_BUSY))


def _when(busy: Floats) -> Floats:
    """The inverse of `_busyness`."""
    return np.asarray(np.floor(busy / 7.0) * 7.0 + np.interp(busy % 7.0, _WEEK_BUSY, _WEEK_DAYS))


def _first(true_NV: NDArray[np.bool_]) -> Ints:
    """Place of the first true one, MOST_VISITS where there is none."""
    return np.asarray(np.where(true_NV.any(axis=1), true_NV.argmax(axis=1), true_NV.shape[1]))


def _at(value_NV: Floats, place_N: Ints) -> Floats:
    """The value at each place, inf past the end."""
    padded = np.concatenate([value_NV, np.full((len(value_NV), 1), np.inf)], axis=1)
    return np.asarray(np.take_along_axis(padded, place_N[:, None], axis=1)[:, 0])
