"""`foretaste bench rewards --part report`: which reward stands for the long term, offline, online and in truth.

One log of the logging policy. For each planted program a policy is learned from a part of its members, judged by the
log of another part (offline) and lived through by members whom no log has (online). The true value is that of the same
program where there is plenty: learned from slates filled at random, several times as many, and lived through by other
members again. The long-term value is a probability that the world knows, so that the dice of the return are no noise.

Shapes: X outcomes, S visits, P places, M members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from foretaste.evaluation.reward_estimates import Estimate, follows, of_members, paired, per_slate
from foretaste.evaluation.reward_page import headline, page
from foretaste.evaluation.reward_report import LOGGING, RewardReport, Row, neighbours
from foretaste.evaluation.reward_values import Values, edges, learn
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_rewards_world import Lived, live, lived_truth
from foretaste.jobs.settings import Settings
from foretaste.ops.files import whole_file, write_json
from foretaste.ops.telemetry import say
from foretaste.rewards.library import read_programs
from foretaste.rewards.programs import Program
from foretaste.worlds.config import WorldConfig

PLANTED = Path("deployments/rewards-planted.yaml")
CLICKS = "clicks"
_RETURNS = Program(name="returns", version=1, reward="return_7d")


@dataclass(frozen=True)
class Sizes:
    """Partitions of members for each purpose; they follow on one another, so that nobody is in two."""

    members: int
    days: int
    learned: int
    judged: int
    lived: int
    plenty: int
    true: int

    @property
    def firsts(self) -> tuple[int, int, int, int]:
        """First partition of those that judge, live, are plenty and are true."""
        first = np.cumsum([self.learned, self.judged, self.lived, self.plenty]).tolist()
        return first[0], first[1], first[2], first[3]

    def world(self, seed: int) -> WorldConfig:
        """A service whose first page is followed, and whose members stay away when it was no good."""
        num = self.learned + self.judged + self.lived + self.plenty + self.true
        return WorldConfig(
            seed=seed,
            num_members=num * self.members,
            members_per_partition=self.members,
            days=self.days,
            slate_boost=40.0,
            return_effect=4.0,
        )


FULL = Sizes(members=1_250, days=49, learned=3, judged=2, lived=3, plenty=4, true=3)
QUICK = Sizes(members=250, days=28, learned=2, judged=1, lived=1, plenty=1, true=1)


def report(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Run it; figures, bars, and a page beside them."""
    sizes, seed = (QUICK if options.quick else FULL), options.seeds or 11
    programs = read_programs(PLANTED)
    made = reward_report(sizes.world(seed), programs, sizes)
    folder = settings.tables.root / "bench" / "rewards"
    write_json(made.plain(), folder / "report.json")
    with whole_file(folder / "report.html") as partial:
        partial.write_text(page(made))
    say(headline(made))
    clicks = next(row for row in made.rows if row.program == CLICKS)
    best = made.rows[0]
    gap = best.return_online.minus(clicks.return_online)
    certain = min(one.low for one in made.true_gaps.values())
    bars = {
        "Kendall's tau of the order of five programs and their true order": _bar(
            made.agreement, "== 1.0", made.agreement == 1.0
        ),
        "true value from one program to the next, smallest lower bound": _bar(certain, "> 0", certain > 0),
        "long-term value of the best over click-through, lower bound": _bar(
            made.over_clicks.low, "> 0", made.over_clicks.low > 0
        ),
        "share of visits with a return within 7 days, best over click-through, lower bound": _bar(
            gap.low, "> 0", gap.low > 0
        ),
    }
    return {"figures": made.plain(), "bars": bars, "skipped": {}, "page": str(folder / "report.html")}


def reward_report(config: WorldConfig, programs: Mapping[str, Program], sizes: Sizes) -> RewardReport:
    """Compute the report."""
    judge, online, plenty, true = sizes.firsts
    learned = [live(config, n) for n in range(judge)]
    judged = _Slates.of([live(config, n) for n in range(judge, online)])
    rich = [live(config, n, _nothing, epsilon=1.0) for n in range(plenty, true)]
    lived = {LOGGING: _Online.of([live(config, n) for n in range(online, plenty)])}
    chosen, true_M = {}, {}
    for name, program in programs.items():
        values = _learned(learned, program)
        chosen[name] = values
        lived[name] = _Online.of([live(config, n, values.score) for n in range(online, plenty)])
        score = _learned(rich, program).score
        tables = [lived_truth(config, n, score) for n in range(true, true + sizes.true)]
        true_M[name] = np.concatenate([_column(table, "return_probability") for table in tables])
        say(f"{name}: long-term value {of_members(lived[name].truth['return_probability']).value:.4f}")
    rows = [
        Row(
            program=name,
            own_offline=judged.estimate(program, chosen[name]),
            own_online=lived[name].slates.estimate(program),
            clicks_online=lived[name].slates.estimate(programs[CLICKS]),
            return_offline=judged.estimate(_RETURNS, chosen[name], places=1),
            return_online=lived[name].returns,
            true=of_members(true_M[name]),
            **lived[name].long_term,
        )
        for name, program in programs.items()
    ]
    rows.sort(key=lambda row: -row.value.value)
    value_M = {name: one.truth["return_probability"] for name, one in lived.items()}
    return RewardReport(
        rows=rows,
        logging=lived[LOGGING].long_term
        | {"return_online": lived[LOGGING].returns, "clicks_online": lived[LOGGING].slates.estimate(programs[CLICKS])},
        gaps=neighbours(value_M, [row.program for row in rows]),
        true_gaps=neighbours(true_M, sorted(true_M, key=lambda name: -of_members(true_M[name]).value)),
        over_clicks=paired(value_M[rows[0].program], value_M[CLICKS]),
        facts={
            "world": config.model_dump(mode="json", exclude_defaults=True),
            "members": {
                "learned": judge * sizes.members,
                "judged": sizes.judged * sizes.members,
                "online, each policy": sizes.lived * sizes.members,
                "true, learned": sizes.plenty * sizes.members,
                "true, each policy": sizes.true * sizes.members,
            },
            "programs": {name: f"{one.reward} ({one.identity})" for name, one in programs.items()},
            "intervals": "95%, normal, members as clusters; gaps paired by member",
        },
    )


@dataclass(frozen=True)
class _Slates:
    """Visits whose slates are whole."""

    lived: Sequence[Lived]
    row_SP: NDArray[np.int64]  # of the outcomes of all
    member_S: NDArray[np.int64]

    @classmethod
    def of(cls, lived: Sequence[Lived]) -> _Slates:
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
        reward_X = np.concatenate([one.rewards(program) for one in self.lived])
        weight_SP = np.ones(self.row_SP.shape) if values is None else self._weights(values)
        reward_SP = reward_X[self.row_SP]
        return per_slate(reward_SP[:, :places], weight_SP[:, :places], self.member_S)

    def _weights(self, values: Values) -> NDArray[np.float64]:
        score_MN = np.concatenate([values.score(one.affinity_MN)[:-1] for one in self.lived])
        title_X = np.concatenate([one.title_X for one in self.lived])
        available_X = np.concatenate([one.num_available_X for one in self.lived])
        propensity_X = np.concatenate([_column(one.outcomes, "propensity") for one in self.lived])
        greedy_SP = follows(score_MN[self.member_S], available_X[self.row_SP[:, 0]], title_X[self.row_SP])
        return np.asarray(greedy_SP / propensity_X[self.row_SP])


@dataclass(frozen=True)
class _Online:
    """What members did under a policy, and what it was worth to them."""

    slates: _Slates
    truth: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, lived: Sequence[Lived]) -> _Online:
        names = lived[0].truth.column_names[1:]
        return cls(_Slates.of(lived), {n: np.concatenate([_column(one.truth, n) for one in lived]) for n in names})

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


def _learned(logs: Sequence[Lived], program: Program) -> Values:
    reward_X = np.concatenate([one.rewards(program) for one in logs])
    known_X = ~np.isnan(reward_X)
    affinity_X = np.concatenate([one.affinity_X for one in logs])
    return learn(
        reward_X[known_X],
        np.concatenate([one.title_X for one in logs])[known_X],
        affinity_X[known_X],
        np.concatenate([_column(one.outcomes, "position") for one in logs])[known_X].astype(np.int64),
        num_titles=logs[0].affinity_MN.shape[1],
        edges_G=edges(affinity_X),
    )


def _nothing(affinity_MN: NDArray[np.float64]) -> NDArray[np.float64]:
    """No title is worth more than another."""
    return np.zeros((affinity_MN.shape[0] + 1, affinity_MN.shape[1]))


def _column(table: Any, name: str) -> NDArray[np.float64]:
    series = pl.Series(pl.from_arrow(table[name].combine_chunks()))
    return series.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _bar(value: float, want: str, holds: bool) -> dict[str, Any]:
    return {"value": round(value, 5), "want": want, "holds": bool(holds)}
