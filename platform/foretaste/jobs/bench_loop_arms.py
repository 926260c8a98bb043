"""`foretaste bench loop --part arms`: six policies, each with a sixth of the members, over simulated weeks.

Twice: with `own` feedback every arm learns from its own slates alone, so that what it never shows it never learns;
with `shared` feedback arms of one kind of posterior read the same one, and whoever explores explores for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from foretaste.evaluation.loop_figures import Served
from foretaste.evaluation.loop_page import headline, page
from foretaste.evaluation.loop_report import LoopReport, loop_report
from foretaste.feedback.arms import Split, sample_ratio
from foretaste.jobs.bench_loop_life import Feedback, Life, Loop, salted
from foretaste.jobs.bench_loop_service import ArmKind, Visits
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings
from foretaste.ops.files import whole_file, write_json
from foretaste.ops.telemetry import say
from foretaste.policies.contextual import LinearThompson, LinUCB, LogisticThompson
from foretaste.policies.epsilon_greedy import BoundedEpsilonGreedy, EpsilonGreedy
from foretaste.policies.exploration import Exploration
from foretaste.policies.plackett_luce import PlackettLuce
from foretaste.policies.worth import Scale
from foretaste.worlds.config import WorldConfig

GREEDY, EXPLORING = "greedy", "logistic Thompson"
ARMS: dict[str, ArmKind] = {
    GREEDY: ArmKind("logistic", EpsilonGreedy(0.0, scale=Scale.LOGIT)),
    "epsilon-greedy": ArmKind(
        "logistic", BoundedEpsilonGreedy(exploration=Exploration(epsilon=0.1, among=20), scale=Scale.LOGIT)
    ),
    "Plackett-Luce": ArmKind("logistic", PlackettLuce(temperature=0.15, scale=Scale.LOGIT)),
    "LinUCB": ArmKind("linear", LinUCB, {"alpha": 0.3}),
    "linear Thompson": ArmKind("linear", LinearThompson, {"width": 0.3}),
    EXPLORING: ArmKind("logistic", LogisticThompson, {"width": 0.5}),
}
"""What serves, at moderate settings that were set after one look at world 1 and not tuned; worlds from 11 on report."""
FIRST_SEED = 11
RATIO_SURE = 1e-4


@dataclass(frozen=True)
class Size:
    """How much is lived through."""

    members: int
    days: int  # of the experiment
    warm_days: int
    worlds: int
    wait_days: int = 3

    def world(self) -> WorldConfig:
        """A service whose first page is followed, and whose members stay away when it was no good."""
        return WorldConfig(
            num_members=self.members,
            members_per_partition=self.members,
            num_movies=100,
            num_shows=50,
            days=self.warm_days + self.days,
            sessions_per_week=4.0,
            impressions_per_session=5,
            slate_boost=40.0,
            return_effect=4.0,
            guest_share=0.0,
            released_share=0.2,
        )


FULL = Size(members=800, days=42, warm_days=14, worlds=4)
QUICK = Size(members=240, days=14, warm_days=7, worlds=2)


def arms(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Run it; figures, bars, and a page beside them."""
    size = QUICK if options.quick else FULL
    worlds = options.seeds or size.worlds
    reports = {}
    for feedback in get_args(Feedback):
        reports[feedback] = experiment(size, feedback, ARMS, range(FIRST_SEED, FIRST_SEED + worlds))
        say(f"{feedback} feedback: {headline(reports[feedback])}")
    folder = settings.tables.root / "bench" / "loop"
    figures: dict[str, Any] = {feedback: report.plain() for feedback, report in reports.items()}
    write_json(figures, folder / "arms.json")
    with whole_file(folder / "arms.html") as partial:
        partial.write_text(page({f"Arms with {name} feedback": report for name, report in reports.items()}))
    figures["page"] = str(folder / "arms.html")
    smallest = min(p for report in reports.values() for p in report.ratio_p)
    bars = {
        "sample-ratio test of the arms, smallest p": {
            "value": smallest, "want": f">= {RATIO_SURE}", "holds": smallest >= RATIO_SURE,
        },
    }  # fmt: skip
    if options.quick or worlds < 2:
        return {
            "figures": figures,
            "bars": bars,
            "skipped": {"concentration": "too few visits for what weeks add up to"},
        }
    gap = reports["own"].differences[EXPLORING]["gini"]
    bars[f"Gini of exposure, {EXPLORING} less greedy, each on its own log, upper end (95%)"] = {
        "value": gap.high, "want": "< 0", "holds": gap.high is not None and gap.high < 0,
    }  # fmt: skip
    return {"figures": figures, "bars": bars, "skipped": {}}


def experiment(size: Size, feedback: Feedback, kinds: Mapping[str, ArmKind], seeds: range) -> LoopReport:
    """Live through a world a seed and compare the arms."""
    served, ratio_p = [], []
    for seed in seeds:
        life = Life(Loop(size.world(), size.warm_days, size.wait_days, feedback), kinds, seed)
        visits = life.run()
        served.append(served_of(life, visits))
        ratio_p.append(
            sample_ratio(split_of(life, visits), {arm.name: arm.share for arm in salted(list(kinds))}).p_value
        )
        say(f"{feedback} feedback, world {seed}: {len(served[-1].arm_S):,} visits")
    facts = {
        "feedback": feedback,
        "worlds": f"seeds {seeds.start} to {seeds.stop - 1}",
        "members of a world": size.members,
        "days": f"{size.warm_days} under the world's logging policy, then {size.days}",
        "an outcome is final after": f"{size.wait_days} days",
        "visits": sum(len(one.arm_S) for one in served),
        "reward": "the visit begins with a title of the slate, which is watched to its end",
        "world": size.world().model_dump(mode="json", exclude_defaults=True),
        "arms": {name: f"{kind.policy} {dict(kind.settings)}" for name, kind in kinds.items()},
    }
    return loop_report(served, list(kinds), days=size.days, ratio_p=ratio_p, facts=facts)


def served_of(life: Life, visits: Visits) -> Served:
    """The visits of the experiment, as reports read them."""
    mine = visits.take(np.flatnonzero(visits["arm"] >= 0))
    warm = life.loop.warm_days
    return Served(
        arm_S=mine["arm"],
        day_S=mine["day"] - warm,
        title_SP=mine["title"],
        reward_S=mine["reward"].sum(axis=1),
        worth_S=mine["worth"],
        best_S=mine["best"],
        new_S=(life.simulation.titles.day_N[mine["title"]] >= warm).sum(axis=1),
        return_S=mine["return"],
        members_A=np.bincount(life.arm_M, minlength=len(life.arms)),
        on_sale_D=life.simulation.titles.available_D[warm:],
    )


def split_of(life: Life, visits: Visits) -> Split:
    """Who was seen in which arm."""
    mine = visits.take(np.flatnonzero(visits["arm"] >= 0))
    pairs = np.unique(np.stack([mine["member"], mine["arm"]]), axis=1)
    times = np.bincount(pairs[0])
    names = list(life.arms)
    counts = np.bincount(pairs[1], minlength=len(names))
    return Split({name: int(count) for name, count in zip(names, counts, strict=True)}, int((times > 1).sum()))
