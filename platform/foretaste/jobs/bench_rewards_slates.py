"""Visits of `bench rewards --part report`: what policies earn on them, by the log, and what was lived.

Shapes: X outcomes, S visits, P places, M members, N titles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foretaste.evaluation.reward_estimates import Estimate, follows, of_members, per_slate
from foretaste.evaluation.reward_long_term import LongTerm, greedy, long_term_of
from foretaste.evaluation.reward_values import Values, edges
from foretaste.evaluation.reward_visits import Visits
from foretaste.jobs.bench_rewards_visits import visits_of
from foretaste.jobs.bench_rewards_world import Lived
from foretaste.rewards.programs import Program
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.generate import catalogue_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RETURNS = Program(name="returns", version=1, reward="return_7d")


@dataclass(frozen=True)
class Slates:
    """Visits whose slates are whole."""

    lived: Sequence[Lived]
    row_SP: Ints  # of the outcomes of all
    member_S: Ints

    @classmethod
    def of(cls, lived: Sequence[Lived]) -> Slates:
        """Find them."""
        rows, members, before, people = [], [], 0, 0
        for one in lived:
            frame = pl.DataFrame(pl.from_arrow(one.outcomes.select(["decision_id", "position"]))).with_row_index("row")
            places = int(frame["position"].max() or 0) + 1  # type: ignore[arg-type]
            whole = frame.filter(pl.len().over("decision_id") == places).sort("decision_id", "position")
            row_SP = whole["row"].to_numpy().astype(np.int64).reshape(-1, places)
            rows.append(row_SP + before)
            members.append(one.member_X[row_SP[:, 0]] + people)
            before, people = before + len(frame), people + len(one.affinity_MN)
        return cls(lived, np.concatenate(rows), np.concatenate(members))

    def estimate(self, program: Program, values: Values | None = None, *, places: int | None = None) -> Estimate:
        """Reward a slate, of the policy that made the slates or, weighted, of one that is greedy for values."""
        weight_SP = np.ones(self.row_SP.shape) if values is None else self._weights(values)
        reward_SP = self._rewards(program)[self.row_SP]
        return per_slate(reward_SP[:, :places], weight_SP[:, :places], self.member_S)

    def _weights(self, values: Values) -> Floats:
        score_MN = np.concatenate([values.score(one.affinity_MN)[:-1] for one in self.lived])
        title_SP = self._all(lambda one: one.title_X)[self.row_SP]
        available_S = self._all(lambda one: one.num_available_X)[self.row_SP[:, 0]]
        propensity_X = self._all(lambda one: column(one.outcomes, "propensity"))
        greedy_SP = follows(score_MN[self.member_S], available_S, title_SP)
        return np.asarray(greedy_SP / propensity_X[self.row_SP])

    def _rewards(self, program: Program) -> Floats:
        return self._all(lambda one: one.rewards(program))

    def _all(self, part: Callable[[Lived], NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([part(one) for one in self.lived])


def long_term(config: WorldConfig, lived: Sequence[Lived], chosen: Mapping[str, Values]) -> LongTerm:
    """Probability of a return within a week of policies that are greedy for values, from a log with events alone."""
    edges_G, titles = edges(np.concatenate([one.affinity_X for one in lived])), catalogue_of(config)
    parts = []
    for one in lived:
        if one.events is None:
            raise ValueError("long_term: wanted partitions whose events were kept")
        band_MN = np.searchsorted(edges_G, one.affinity_MN, side="right")
        parts.append(visits_of(config, titles, one.events, one.number_of, band_MN))
    visits, affinity_MN = Visits.joined(parts), np.concatenate([one.affinity_MN for one in lived])
    places = visits.title_SP.shape[1]
    slates = {
        name: greedy(values.score(affinity_MN)[:-1][visits.member_S], visits.sale_S, places)
        for name, values in chosen.items()
    }
    return long_term_of(visits, slates)


@dataclass(frozen=True)
class Online:
    """What members did under a policy, and what it was worth to them."""

    slates: Slates
    truth: Mapping[str, Floats]

    @classmethod
    def of(cls, lived: Sequence[Lived]) -> Online:
        """Put partitions together."""
        names = lived[0].truth.column_names[1:]
        return cls(Slates.of(lived), {n: np.concatenate([column(one.truth, n) for one in lived]) for n in names})

    @property
    def returns(self) -> Estimate:
        """Share of visits after which the member came again within the week, of those whose week was seen."""
        seen_M = self.truth["num_observable"]
        return of_members(np.where(seen_M > 0, self.truth["num_returned"] / np.maximum(seen_M, 1), np.nan), seen_M)

    @property
    def long_term(self) -> dict[str, Estimate]:
        """Long-term figures, by their names in `Row`."""
        truth = self.truth
        return {
            "value": of_members(truth["return_probability"]),
            "satisfaction": of_members(truth["satisfaction"], truth["num_visits"]),
            "visits": of_members(7.0 * truth["num_visits"] / truth["days"], truth["days"]),
            "retained": of_members(truth["retained"]),
        }


def column(table: Any, name: str) -> Floats:
    """A column of a table, NaN where it is null."""
    series = pl.Series(pl.from_arrow(table[name].combine_chunks()))
    return series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
