"""`foretaste bench rewards --part report`: which reward stands for the long term, by the log, as lived and in truth.

One log of the logging policy. For each planted program a policy is learned from a part of its members and judged by
the log of another part, which alone gives the report its order. Then members whom no log has live with each policy.
The true value is that of the same program where there is plenty: learned from slates filled at random, several times
as many, and lived through by other members again; it is a probability that the world knows, so that the dice of the
return are no noise, and nothing of it is read before the order stands.

Shapes: M members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.evaluation.reward_estimates import Estimate, of_members, paired
from foretaste.evaluation.reward_page import headline, page
from foretaste.evaluation.reward_report import LOGGING, RewardReport, Row, neighbours
from foretaste.evaluation.reward_values import Values, edges, learn
from foretaste.evaluation.seeds import over_seeds
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_rewards_slates import RETURNS, Online, Slates, column, long_term
from foretaste.jobs.bench_rewards_world import Lived, live, lived_truth
from foretaste.jobs.settings import Settings
from foretaste.ops.files import whole_file, write_json
from foretaste.ops.telemetry import say
from foretaste.rewards.library import read_programs
from foretaste.rewards.programs import Program
from foretaste.worlds.config import WorldConfig

PLANTED = Path("deployments/rewards-planted.yaml")
CLICKS = "clicks"
FIRST_SEED = 31


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
        """A service of few titles whose first page is followed, and whose members stay away when it was no good."""
        num = self.learned + self.judged + self.lived + self.plenty + self.true
        return WorldConfig(
            seed=seed,
            num_members=num * self.members,
            members_per_partition=self.members,
            days=self.days,
            num_movies=60,
            num_shows=30,
            slate_boost=40.0,
            return_effect=4.0,
        )


FULL = Sizes(members=1_250, days=49, learned=4, judged=4, lived=2, plenty=4, true=5)
QUICK = Sizes(members=250, days=28, learned=2, judged=1, lived=1, plenty=1, true=1)


def report(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Run it on several seeds; figures, bars, and a page of each beside them."""
    sizes, seeds = (QUICK if options.quick else FULL), range(FIRST_SEED, FIRST_SEED + options.num_seeds)
    programs = read_programs(PLANTED)
    folder = settings.tables.root / "bench" / "rewards"
    runs = []
    for seed in seeds:
        made = reward_report(sizes.world(seed), programs, sizes)
        with whole_file(folder / f"report-{seed}.html") as partial:
            partial.write_text(page(made))
        say(f"seed {seed}: {headline(made)}\n  the log: {' > '.join(made.order)}\n  truly:   {made.true_order}")
        runs.append(made)
    figures = _over(runs) | {"seeds": list(seeds), "runs": [made.plain() for made in runs]}
    write_json(figures, folder / "report.json")
    return {"figures": figures, "bars": _bars(runs), "skipped": {}, "pages": str(folder)}


def reward_report(config: WorldConfig, programs: Mapping[str, Program], sizes: Sizes) -> RewardReport:
    """Compute the report of one world."""
    judge, online, plenty, true = sizes.firsts
    learned = [live(config, n) for n in range(judge)]
    chosen = {name: _learned(learned, program) for name, program in programs.items()}
    logs = [live(config, n, keep_events=True) for n in range(judge, online)]
    judged, told = Slates.of(logs), long_term(config, logs, chosen)
    rich = [live(config, n, _nothing, epsilon=1.0) for n in range(plenty, true)]
    lived = {LOGGING: Online.of([live(config, n) for n in range(online, plenty)])}
    true_M = {}
    for name, program in programs.items():
        lived[name] = Online.of([live(config, n, chosen[name].score) for n in range(online, plenty)])
        score = _learned(rich, program).score
        tables = [lived_truth(config, n, score) for n in range(true, true + sizes.true)]
        true_M[name] = np.concatenate([column(table, "return_probability") for table in tables])
    rows = [
        Row(
            program=name,
            own_offline=judged.estimate(programs[name], chosen[name]),
            own_online=lived[name].slates.estimate(programs[name]),
            clicks_online=lived[name].slates.estimate(programs[CLICKS]),
            value_offline=told.value[name],
            return_weighted=judged.estimate(RETURNS, chosen[name], places=1),
            return_online=lived[name].returns,
            true=of_members(true_M[name]),
            **lived[name].long_term,
        )
        for name in told.order
    ]
    value_M = {name: one.truth["return_probability"] for name, one in lived.items()}
    lived_order = sorted(programs, key=lambda name: -of_members(value_M[name]).value)
    return RewardReport(
        rows=rows,
        logging=lived[LOGGING].long_term
        | {"return_online": lived[LOGGING].returns, "clicks_online": lived[LOGGING].slates.estimate(programs[CLICKS])},
        gaps={f"{a} over {b}": told.over(a, b) for a, b in zip(told.order, told.order[1:], strict=False)},
        lived_gaps=neighbours(value_M, lived_order),
        true_gaps=neighbours(true_M, sorted(true_M, key=lambda name: -of_members(true_M[name]).value)),
        over_clicks=told.over(told.order[0], CLICKS),
        lived_over_clicks=paired(value_M[told.order[0]], value_M[CLICKS]),
        facts={
            "world": config.model_dump(mode="json", exclude_defaults=True),
            "members": {
                "learned": judge * sizes.members,
                "judged": sizes.judged * sizes.members,
                "lived, each policy": sizes.lived * sizes.members,
                "true, learned": sizes.plenty * sizes.members,
                "true, each policy": sizes.true * sizes.members,
            },
            "programs": {name: f"{one.reward} ({one.identity})" for name, one in programs.items()},
            "intervals": "95%, normal, members as clusters; gaps paired by member",
        },
    )


def _learned(logs: Sequence[Lived], program: Program) -> Values:
    reward_X = np.concatenate([one.rewards(program) for one in logs])
    known_X = ~np.isnan(reward_X)
    affinity_X = np.concatenate([one.affinity_X for one in logs])
    return learn(
        reward_X[known_X],
        np.concatenate([one.title_X for one in logs])[known_X],
        affinity_X[known_X],
        np.concatenate([column(one.outcomes, "position") for one in logs])[known_X].astype(np.int64),
        num_titles=logs[0].affinity_MN.shape[1],
        edges_G=edges(affinity_X),
    )


def _nothing(affinity_MN: NDArray[np.float64]) -> NDArray[np.float64]:
    """No title is worth more than another."""
    return np.zeros((affinity_MN.shape[0] + 1, affinity_MN.shape[1]))


def _over(runs: Sequence[RewardReport]) -> dict[str, Any]:
    """Figures of all seeds together."""

    def mean(estimates: Sequence[Estimate]) -> dict[str, float | None]:
        found = over_seeds([one.value for one in estimates])
        return {"value": found.value, "low": found.low, "high": found.high}

    names = ("value_offline", "return_weighted", "return_online", "value", "true", "clicks_online", "satisfaction")
    by_name = [{row.program: row for row in made.rows} for made in runs]
    return {
        "programs": {
            program: {name: mean([getattr(rows[program], name) for rows in by_name]) for name in names}
            | {"lived less offline": mean([_less(rows[program]) for rows in by_name])}
            for program in by_name[0]
        },
        "agreement": [made.agreement for made in runs],
        "lived agreement": [made.lived_agreement for made in runs],
        "over clicks, by the log": mean([made.over_clicks for made in runs]),
        "over clicks, lived": mean([made.lived_over_clicks for made in runs]),
    }


def _less(row: Row) -> Estimate:
    return row.value.minus(row.value_offline)


def _bars(runs: Sequence[RewardReport]) -> dict[str, Any]:
    worst = min(made.agreement for made in runs)
    certain = min(one.low for made in runs for one in made.true_gaps.values())
    first = sum(made.order[0] != CLICKS for made in runs)
    return {
        "Kendall's tau of the order by the log alone and the true one, lowest of the seeds": _bar(
            worst, "== 1.0", worst == 1.0
        ),
        "true value from one program to the next, lowest lower bound of the seeds": _bar(certain, "> 0", certain > 0),
        "seeds in which click-through is not first": _bar(first, f"== {len(runs)}", first == len(runs)),
        "long-term value of the first over click-through by the log alone, lowest lower bound": _above(
            [made.over_clicks for made in runs]
        ),
        "long-term value of the first over click-through as lived, lowest lower bound": _above(
            [made.lived_over_clicks for made in runs]
        ),
    }


def _above(gaps: Sequence[Estimate]) -> dict[str, Any]:
    lowest = min(gap.low for gap in gaps)
    return _bar(lowest, "> 0", lowest > 0)


def _bar(value: float, want: str, holds: bool) -> dict[str, Any]:
    return {"value": round(value, 5), "want": want, "holds": bool(holds)}
