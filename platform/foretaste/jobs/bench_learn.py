"""`foretaste bench learn`: policies that learned from a log by each objective, compared by what they truly earn.

Worlds of single choices whose truth is known (evaluation.offpolicy.synthetic_choices). Every policy is linear in the
context for each action. Settings of all, the supervised ones included, are chosen on a part of each log by one
estimator (jobs.bench_learn_policies); the truth is asked once, of what was chosen, on contexts that no log has. A
share is of what the best policy of that form gains on the one that logged; intervals are Student's over worlds.

Shapes: R rounds, A actions, C numbers of a context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from foretaste.evaluation.offpolicy.rounds import Floats
from foretaste.evaluation.offpolicy.synthetic_choices import ChoiceWorld, ChoiceWorldConfig, LoggingConfig, softmax
from foretaste.jobs.bench_learn_policies import Contexts, Grid, Halves, Linear, off_policy, supervised
from foretaste.jobs.bench_options import BenchOptions
from foretaste.ops.telemetry import say
from foretaste.training.off_policy_objectives import SUPERVISED, Objective

CONTEXTS, QUICK_CONTEXTS = 20_000, 4_000
"""Of the truth."""
LEVEL = 0.95
SEED = 20_260
"""First of the reported worlds; the benchmark was made on others."""
QUICK = Grid(supervised_rates=(0.1,), caps=(10.0,), shifts=(1.2,), penalties=(1.5,), epochs=10)
LEARNERS = tuple(objective for objective in Objective if objective not in SUPERVISED)
EVEN, PEAKED = LoggingConfig(sharpness=0.3, agreement=0.5), LoggingConfig(sharpness=4.0, agreement=0.5)
BENT, STRAIGHT = ChoiceWorldConfig(bend=1.0, steepness=1.5), ChoiceWorldConfig(bend=0.0, steepness=1.5)


@dataclass(frozen=True)
class Cell:
    """A kind of log."""

    world: ChoiceWorldConfig
    logging: LoggingConfig
    rounds: int


CELLS = {
    "even_small": Cell(BENT, EVEN, 1_000),
    "peaked_small": Cell(BENT, PEAKED, 1_000),
    "peaked": Cell(BENT, PEAKED, 10_000),
    "even": Cell(BENT, EVEN, 10_000),
    "peaked_straight": Cell(STRAIGHT, PEAKED, 10_000),
}
QUICK_CELLS = {"even_small": Cell(BENT, EVEN, 600), "peaked_small": Cell(BENT, PEAKED, 600)}


def learn_bench(options: BenchOptions) -> dict[str, Any]:
    """All cells; `--seeds` worlds each."""
    figures: dict[str, Any] = {}
    bars: dict[str, Any] = {}
    torch.set_num_threads(1)
    for name, cell in (QUICK_CELLS if options.quick else CELLS).items():
        values = [
            one_world(cell, QUICK if options.quick else Grid(), seed=SEED + number, quick=options.quick)
            for number in range(options.num_seeds)
        ]
        figures[name] = found = compared(values)
        say(f"learn {name}: {', '.join(_told(*one) for one in found['policies'].items())}")
        bars |= {f"{name}_{bar}": told for bar, told in held(found).items()}
    return {"bench": "learn", "figures": figures, "bars": bars, "skipped": {}}


def one_world(cell: Cell, grid: Grid, *, seed: int, quick: bool) -> dict[str, float]:
    """True values of all policies in one world that is drawn, learned from one log of it."""
    rng = np.random.default_rng(seed)
    world = ChoiceWorld.drawn(cell.world, cell.logging, rng)
    halves = Halves.of(world.log(cell.rounds, rng), cell.world.num_actions)
    context_RC = world.contexts(QUICK_CONTEXTS if quick else CONTEXTS, rng)
    chance_RA = world.chances(context_RC)

    def earns(chances: Callable[[Floats], Floats]) -> float:
        return float((chances(context_RC) * chance_RA).sum(axis=1).mean())

    found = {
        "logging": earns(world.logged),
        "best": float(chance_RA.max(axis=1).mean()),
        "best_of_form": earns(best_of_form(context_RC, chance_RA)),
    }
    found |= {name: earns(one.chances) for name, one in supervised(halves, grid, seed=seed).items()}
    for objective in LEARNERS:
        plain, with_penalty = off_policy(halves, objective, grid, seed=seed)
        found[objective.value] = earns(plain.chances)
        found[f"{objective.value}_penalised"] = earns(with_penalty.chances)
    return found


def best_of_form(context_RC: Floats, chance_RA: Floats, *, steps: int = 200) -> Callable[[Floats], Floats]:
    """The best policy that is linear in the context, found by its true value: what nobody can learn from a log."""
    network = Linear(context_RC.shape[1], chance_RA.shape[1], chance=False)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    some, truth = Contexts(context_RC[:4_000]), torch.from_numpy(chance_RA[:4_000]).float()
    for _ in range(steps):
        optimizer.zero_grad()
        (-(network(some).softmax(dim=1) * truth).sum(dim=1).mean()).backward()
        optimizer.step()

    def chances(given_RC: Floats) -> Floats:
        with torch.no_grad():
            return softmax(network(Contexts(given_RC)).double().numpy())

    return chances


def compared(values: list[dict[str, float]]) -> dict[str, Any]:
    """Values and shares with their intervals, and what each learner gains on the supervised ones, paired by world."""
    shares = [
        {name: (value - one["logging"]) / (one["best_of_form"] - one["logging"]) for name, value in one.items()}
        for one in values
    ]
    learners = [name for name in values[0] if name.split("_penalised")[0] in {one.value for one in LEARNERS}]
    against = ("cross_entropy", "regression_best", "regression_softmax")
    return {
        "worlds": len(values),
        "policies": {
            name: {"value": _interval([one[name] for one in values]), "share": _interval([s[name] for s in shares])}
            for name in values[0]
        },
        "gains": {
            name: {other: _interval([share[name] - share[other] for share in shares]) for other in against}
            for name in learners
        },
    }


def held(found: dict[str, Any]) -> dict[str, Any]:
    """Bars of one kind of log: learning beats what logged, and the likelihood of what was rewarded.

    Beyond the best regression there is no bar: where its form is right, it is as good; the figures say by how much.
    """
    share = found["policies"]["dr_penalised"]["share"]
    gain = found["gains"]["dr_penalised"]["cross_entropy"]
    return {
        "dr_beats_logging": {"value": share["low"], "want": "> 0 (low end of its share)", "holds": share["low"] > 0},
        "dr_beats_cross_entropy": {
            "value": gain["low"],
            "want": "> 0 (low end of the gain)",
            "holds": gain["low"] > 0,
        },
    }


def _told(name: str, row: dict[str, Any]) -> str:
    share = row["share"]
    return f"{name} {share['mean']:.3f} [{share['low']:.3f}, {share['high']:.3f}]"


def _interval(values: list[float]) -> dict[str, float]:
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean, "low": mean, "high": mean}
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return {"mean": mean, "low": mean - reach, "high": mean + reach}
