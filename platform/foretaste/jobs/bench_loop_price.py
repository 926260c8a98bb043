"""`foretaste bench loop --part price`: what exploring costs, and how much better the next model can be judged for it.

One title opens each visit. The same members live through the same weeks twice, served by the same model: once always by
its best title, once with dice that a budget bounds. Then models that were made before are judged by each log alone:
what would they have earned in these visits? The world knows, so every estimate has its error, and exploring its price.

The log of the best titles cannot answer, and says so. What it would say nevertheless is the comparator: of every
estimator that can be forced from it, the one whose error turns out to be the least, so chosen with the truth in hand.

Shapes: S visits, N titles, D features, W worlds, J next models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretaste.evaluation.offpolicy.answer import Answer, AnswerConfig, answer
from foretaste.evaluation.offpolicy.rounds import Rounds
from foretaste.evaluation.seeds import OverSeeds, over_seeds
from foretaste.jobs.bench_loop_life import Life, Loop
from foretaste.jobs.bench_loop_models import next_models, predictions, scores
from foretaste.jobs.bench_loop_service import ArmKind, Floats, Layout, Policy, Visits
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings
from foretaste.ops.files import write_json
from foretaste.ops.telemetry import say
from foretaste.policies.by_place import ByPlace
from foretaste.policies.epsilon_greedy import EpsilonGreedy
from foretaste.policies.exploration import Exploration
from foretaste.policies.plackett_luce import PlackettLuce
from foretaste.policies.worth import Scale
from foretaste.worlds.config import WorldConfig

MOST, HALF = 0.02, 0.5
FIRST_SEED = 1
RESAMPLES = 4_000
EXPLORING = PlackettLuce(temperature=0.5, scale=Scale.LOGIT, exploration=Exploration(budget=0.03))
"""Chosen on worlds 100 and up."""
FORCED = ("dm", "dr", "sndr", "snips", "ips", "switch_dr", "dros", "clipped_ips")
"""Estimators that the greedy log is forced to give."""


@dataclass(frozen=True)
class Size:
    """How much is lived through."""

    members: int
    days: int  # of the period
    warm_days: int
    worlds: int

    @property
    def loop(self) -> Loop:
        """A service whose one title on top is followed; its model is learned once, from the world's logging policy."""
        world = WorldConfig(
            num_members=self.members,
            members_per_partition=self.members,
            num_movies=80,
            num_shows=40,
            days=self.warm_days + self.days,
            sessions_per_week=4.0,
            impressions_per_session=1,
            slate_boost=40.0,
            return_effect=4.0,
            guest_share=0.0,
        )
        return Loop(world, self.warm_days, wait_days=0, learns=False, keeps_all=True)


FULL = Size(members=1_500, days=28, warm_days=14, worlds=10)
QUICK = Size(members=200, days=10, warm_days=7, worlds=2)


@dataclass(frozen=True)
class Judged:
    """What one log says of each next model, and what is so."""

    answers: dict[str, Answer]
    truth: dict[str, float]
    direct: dict[str, float]  # what a reward model alone says


@dataclass(frozen=True)
class World:
    """Both logs of a world."""

    price: float  # share of the expected reward that exploring gave up, in the same visits
    estimated_price: float  # what the policy itself had expected it to be
    greedy: Judged
    exploring: Judged
    visits: tuple[int, int]


def price(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Run it; figures and bars."""
    size = QUICK if options.quick else FULL
    seeds = range(FIRST_SEED, FIRST_SEED + (options.seeds or size.worlds))
    worlds = []
    for seed in seeds:
        worlds.append(one_world(size, seed, EXPLORING))
        say(f"world {seed}: price {worlds[-1].price:.4f}, {worlds[-1].visits[1]:,} visits explored")
    figures = compared(worlds) | {
        "worlds": f"seeds {seeds.start} to {seeds.stop - 1}",
        "exploring": f"{EXPLORING.name} {EXPLORING.params}",
        "world": size.loop.world.model_dump(mode="json", exclude_defaults=True),
        "days": f"{size.warm_days} under the world's logging policy, then {size.days}",
    }
    write_json(figures, settings.tables.root / "bench" / "loop" / "price.json")
    ratio, paid = figures["error_ratio"], figures["price"]
    say(f"error over that of the greedy log {ratio[0]:.3f} at a price of {paid[0]:.4f}")
    refused = figures["greedy_refused"]
    bars: dict[str, Any] = {
        "share of next models that the greedy log refuses to judge": {
            "value": refused, "want": "== 1.0", "holds": refused == 1.0,
        },
    }  # fmt: skip
    if options.quick or len(worlds) < 3:
        return {"figures": figures, "bars": bars, "skipped": {"price": f"{len(worlds)} small worlds are too few"}}
    bars |= {
        "expected reward given up by exploring, upper end (95%)": {
            "value": paid[2], "want": f"<= {MOST}", "holds": paid[2] <= MOST,
        },
        "error of the next model's value over that from the greedy log, upper end (95%)": {
            "value": ratio[2], "want": f"<= {HALF}", "holds": ratio[2] <= HALF,
        },
    }  # fmt: skip
    return {"figures": figures, "bars": bars, "skipped": {}}


def one_world(size: Size, seed: int, exploring: ByPlace) -> World:
    """Live through a world under both policies and judge the next models by each log."""
    best, dice = lived(size, seed, EpsilonGreedy(0.0, scale=Scale.LOGIT)), lived(size, seed, exploring)
    visits, layout = dice.period, dice.layout
    title_S = scores(visits, dice.model_D, layout).argmax(axis=1)
    sure_S = visits["alone"][np.arange(len(visits)), title_S]
    mixed_S = (visits["first"] * visits["alone"]).sum(axis=1)
    expected_SN = 1.0 / (1.0 + np.exp(-scores(visits, dice.model_D, layout)))
    given_S = expected_SN.max(axis=1) - (visits["first"] * expected_SN).sum(axis=1)
    models = next_models(dice.warm, layout)
    return World(
        price=float(1.0 - mixed_S.sum() / sure_S.sum()),
        estimated_price=float(given_S.sum() / expected_SN.max(axis=1).sum()),
        greedy=judged(best.period, models, layout, seed=seed),
        exploring=judged(visits, models, layout, seed=seed),
        visits=(len(best.period), len(visits)),
    )


@dataclass(frozen=True)
class Log:
    """What was logged before the period and in it, and the model that served."""

    warm: Visits
    period: Visits
    model_D: Floats
    layout: Layout


def lived(size: Size, seed: int, policy: Policy) -> Log:
    """Live through the window; before the period everything is the same whatever the policy."""
    life = Life(size.loop, {policy.name: ArmKind("logistic", policy)}, seed)
    while life.day < size.warm_days:
        life.next_day()
    warm = Visits.join(life.visits, ("member", "title", "numbers", "reward"))
    before = len(life.visits)
    model_D = life.posterior(policy.name).mean_D
    while life.day < life.loop.world.days:
        life.next_day()
    period = Visits.join([part for part in life.visits[before:] if len(part["member"])])
    return Log(warm, period, model_D, life.layout)


def judged(visits: Visits, models: Mapping[str, Floats], layout: Layout, *, seed: int) -> Judged:
    """Value each model's best title in every visit from a log alone, and by what the world knows."""
    s, logged_S = np.arange(len(visits)), visits["title"][:, 0]
    predicted_SN = predictions(visits, layout, seed=seed)
    answers, truth, direct = {}, {}, {}
    for name, weights_D in models.items():
        title_S = scores(visits, weights_D, layout).argmax(axis=1)
        target_SN = np.zeros((len(s), layout.titles))
        target_SN[s, title_S] = 1.0
        rounds = Rounds.of(
            action=logged_S,
            reward=visits["reward"][:, 0],
            propensity=visits["first"][s, logged_S],
            target=target_SN,
            logging=visits["first"],
            predicted=predicted_SN,
            actor=visits["member"],
        )
        answers[name] = answer(rounds, AnswerConfig())
        truth[name] = float(visits["alone"][s, title_S].mean())
        direct[name] = float(predicted_SN[s, title_S].mean())
    return Judged(answers, truth, direct)


def compared(worlds: Sequence[World]) -> dict[str, Any]:
    """Errors of both logs over worlds and next models, and what exploring cost."""
    names = list(worlds[0].exploring.truth)
    explored_WJ = np.array([[_recommended(one.exploring, name) for name in names] for one in worlds])
    forced = {how: np.array([[_forced(one.greedy, name, how) for name in names] for one in worlds]) for how in FORCED}
    least = min(forced, key=lambda how: _rms(forced[how]))
    ratio = _rms(explored_WJ) / _rms(forced[least])
    drawn = [_rms(explored_WJ[rows]) / _rms(forced[least][rows]) for rows in _resamples(len(worlds))]
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    said = [one.exploring.answers[name] for one in worlds for name in names]
    asked = [one.greedy.answers[name] for one in worlds for name in names]
    return {
        "price": _plain(over_seeds([one.price for one in worlds])),
        "price_as_estimated": _plain(over_seeds([one.estimated_price for one in worlds])),
        "error_ratio": [round(float(x), 4) for x in (ratio, low, high)],
        "error_exploring": round(_rms(explored_WJ), 5),
        "error_greedy": {how: round(_rms(errors_WJ), 5) for how, errors_WJ in forced.items()},
        "greedy_compared_by": least,
        "error_by_model": {
            name: {
                "exploring": round(_rms(explored_WJ[:, j]), 5),
                "greedy": round(_rms(forced[least][:, j]), 5),
                "true value": round(float(np.mean([one.exploring.truth[name] for one in worlds])), 4),
            }
            for j, name in enumerate(names)
        },
        "exploring_answers": round(float(np.mean([one.recommended is not None for one in said])), 4),
        "intervals_that_hold_the_truth": _covered(worlds, names),
        "greedy_refused": float(np.mean([one.recommended is None for one in asked])),
        "greedy_refused_because": sorted({reason.value for one in asked for reason in one.refusals}),
        "greedy_says": asked[0].reasons[0] if asked[0].reasons else "",
        "visits": [round(float(np.mean([one.visits[side] for one in worlds]))) for side in range(2)],
    }


def _recommended(log: Judged, name: str) -> float:
    """Error of the recommended estimator; where the tool refuses, of the direct method, the best that is left."""
    found = log.answers[name]
    value = log.direct[name] if found.interval is None else found.interval.value
    return value - log.truth[name]


def _forced(log: Judged, name: str, how: str) -> float:
    """Error of an estimate that the tool did not want to give; what cannot be made at all is the direct method's."""
    found = log.answers[name].estimates.get(how)
    return (log.direct[name] if found is None else found.value) - log.truth[name]


def _covered(worlds: Sequence[World], names: Sequence[str]) -> float | None:
    held = [
        found.holds(one.exploring.truth[name])
        for one in worlds
        for name in names
        if (found := one.exploring.answers[name].interval) is not None
    ]
    return round(float(np.mean(held)), 4) if held else None


def _rms(errors: Floats) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def _resamples(num: int) -> Floats:
    """Worlds drawn again, since what is judged within one has its dice in common."""
    return np.random.default_rng(0).integers(num, size=(RESAMPLES, num))  # type: ignore[return-value]


def _plain(one: OverSeeds) -> list[float]:
    return [round(float("nan") if x is None else x, 5) for x in (one.value, one.low, one.high)]
