"""`foretaste bench loop --part price`: what exploring costs, and how much better the next model can be judged for it.

One title opens each visit. The same members live through the same weeks twice, served by the same model: once always by
its best title, once with dice that a budget bounds. Then models that were made before are judged by each log alone:
what would they have earned in these visits? The world knows, so every estimate has its error, and exploring its price.

A visit is made by several members alike: each is shown a title by the logged probabilities and responds by the world's
law of the first choice, so that a log is as long as a service's without living through all of it.

The log of the best titles cannot answer, and says so. What it would say nevertheless is the comparator: of every
estimator that can be forced from it, the one whose error turns out to be the least, so chosen with the truth in hand.

Shapes: S visits, C titles of a visit's pool, W worlds, J next models.
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
from foretaste.jobs.bench_loop_models import (
    Model,
    Rewarded,
    Signal,
    answers,
    folds_of,
    next_models,
    ratings,
    reward_odds,
    told_by,
)
from foretaste.jobs.bench_loop_service import ArmKind, Floats, Ints, Layout, Policy, Visits
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
POOL = 3
FIRST_SEED = 21
RESAMPLES = 4_000
EXPLORING = PlackettLuce(temperature=0.5, scale=Scale.LOGIT, exploration=Exploration(budget=0.0175))
"""Chosen on worlds 100 and up."""
FORCED = ("dm", "dr", "sndr", "snips", "ips", "switch_dr", "dros", "clipped_ips")
"""Estimators that the greedy log is forced to give."""


@dataclass(frozen=True)
class Size:
    """How much is lived through."""

    members: int
    days: int  # of the period
    warm_days: int
    alike: int  # members who make each visit
    worlds: int

    @property
    def loop(self) -> Loop:
        """A service whose one title on top is followed, of a shortlist; its model is learned once, before the period.

        Visits are for nothing in particular: members choose by taste and habit (the world's own control setting).
        """
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
            intents=False,
        )
        return Loop(world, self.warm_days, wait_days=0, pool=POOL, learns=False)


FULL = Size(members=6_000, days=24, warm_days=7, alike=8, worlds=12)
QUICK = Size(members=200, days=10, warm_days=7, alike=2, worlds=2)


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
    rounds: tuple[int, int]


def price(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Run it; figures and bars."""
    size = QUICK if options.quick else FULL
    seeds = range(FIRST_SEED, FIRST_SEED + (options.seeds or size.worlds))
    worlds = []
    for seed in seeds:
        worlds.append(one_world(size, seed, EXPLORING))
        say(f"world {seed}: price {worlds[-1].price:.4f}, {worlds[-1].rounds[1]:,} rounds")
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
    odds_SC = dice.model.scores(visits, layout)
    sure_S = np.take_along_axis(visits["alone"], odds_SC.argmax(axis=1)[:, None], axis=1)
    mixed_S = (visits["first"] * visits["alone"]).sum(axis=1)
    expected_SC = 1.0 / (1.0 + np.exp(-odds_SC))
    given_S = expected_SC.max(axis=1) - (visits["first"] * expected_SC).sum(axis=1)
    models = next_models(dice.warm, layout, dice.signals)
    return World(
        price=float(1.0 - mixed_S.sum() / sure_S.sum()),
        estimated_price=float(given_S.sum() / expected_SC.max(axis=1).sum()),
        greedy=judged(best.period, models, layout, alike=size.alike, seed=seed),
        exploring=judged(visits, models, layout, alike=size.alike, seed=seed),
        rounds=(size.alike * len(best.period), size.alike * len(visits)),
    )


@dataclass(frozen=True)
class Log:
    """What was logged before the period and in it, and the model that served."""

    warm: Visits
    period: Visits
    model: Model
    layout: Layout
    signals: dict[str, Signal]


def lived(size: Size, seed: int, policy: Policy) -> Log:
    """Live through the window; before the period everything is the same whatever the policy."""
    life = Life(size.loop, {policy.name: ArmKind("logistic", policy)}, seed)
    while life.day < size.warm_days:
        life.next_day()
    warm = Visits.join(life.visits, ("member", "title", "numbers", "reward"))
    before = len(life.visits)
    model = Model(life.posterior(policy.name).mean_D)
    while life.day < life.loop.world.days:
        life.next_day()
    period = Visits.join([part for part in life.visits[before:] if len(part["member"])])
    titles, members = life.simulation.titles, life.simulation.members
    signals = {"reviews": ratings(titles, seed=seed), "answers": answers(members, titles, seed=seed)}
    return Log(warm, period, model, life.layout, signals)


def judged(visits: Visits, models: Mapping[str, Model], layout: Layout, *, alike: int, seed: int) -> Judged:
    """Value each model's best title of the pool in every visit from a log alone, and by what the world knows."""
    log = logged(visits, alike=alike, rng=np.random.default_rng([seed, 41]))
    fold_S, s = folds_of(visits, seed=seed), log.visit_R
    odds_SC = reward_odds(visits, log, layout, fold_S)
    said, truth, direct = {}, {}, {}
    for name, model in models.items():
        scores_SC = model.scores(visits, layout)
        best_S = scores_SC.argmax(axis=1)
        target_SC = (np.arange(scores_SC.shape[1]) == best_S[:, None]).astype(np.float64)
        predicted_SC = told_by(odds_SC, scores_SC, log, fold_S)
        rounds = Rounds.of(
            action=log.place_R,
            reward=log.reward_R,
            propensity=visits["first"][s, log.place_R],
            target=target_SC[s],
            logging=visits["first"][s],
            predicted=predicted_SC[s],
            actor=visits["member"][s],
        )
        said[name] = answer(rounds, AnswerConfig())
        truth[name] = float(visits["alone"][target_SC > 0].mean())
        direct[name] = float(predicted_SC[target_SC > 0].mean())
    return Judged(said, truth, direct)


def logged(visits: Visits, *, alike: int, rng: np.random.Generator) -> Rewarded:
    """Show each visit's title so often, and let the world respond."""
    times_SC = rng.multinomial(alike, visits["first"] / visits["first"].sum(axis=1, keepdims=True))
    earned_SC = rng.binomial(times_SC, visits["alone"])
    cell_X, times_X = np.flatnonzero(times_SC), times_SC[times_SC > 0]
    last_X = np.cumsum(times_X)
    cell_R = np.repeat(cell_X, times_X)
    nth_R = np.arange(len(cell_R)) - np.repeat(last_X - times_X, times_X)
    reward_R = (nth_R < earned_SC.ravel()[cell_R]).astype(np.float64)
    return Rewarded(*np.divmod(cell_R, times_SC.shape[1]), reward_R)


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
        "rounds": [round(float(np.mean([one.rounds[side] for one in worlds]))) for side in range(2)],
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


def _resamples(num: int) -> Ints:
    """Worlds drawn again, since what is judged within one has its dice in common."""
    return np.random.default_rng(0).integers(num, size=(RESAMPLES, num))


def _plain(one: OverSeeds) -> list[float]:
    return [round(float("nan") if x is None else x, 5) for x in (one.value, one.low, one.high)]
