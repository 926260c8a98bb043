"""`foretaste bench rewards --part delayed-search`: every model of delayed feedback searches over its own few knobs.

The seeds are VALIDATION, which `--part delayed` does not report. Of each model's candidates the one counts whose
predictions of the stream have the smallest negative log-likelihood, mean over the seeds. CHOSEN is what the search
found; its bar holds where it finds the same again.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch

from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_rewards_delayed_runs import Candidate, Simulation, streamed
from foretaste.jobs.bench_rewards_delayed_scores import scores
from foretaste.jobs.settings import Settings
from foretaste.models.delayed import DelayedConfig, Method
from foretaste.ops.telemetry import say
from foretaste.training.config import TrainingConfig
from foretaste.worlds.delays import DelayWorldConfig

VALIDATION = (100, 101)
RATES = (3e-3, 6e-3)
"""Learning rates that every model tries."""
KNOBS: dict[Method, tuple[str, tuple[float, ...]]] = {
    "wait": ("wait_days", (2.0, 4.0, 7.0, 14.0)),
    "es_dfm": ("elapsed_days", (0.25, 1.0, 3.0)),
    "defer": ("elapsed_days", (0.25, 1.0, 3.0)),
    "landmark": ("draws", (2, 4)),
}
"""What beside it is a model's own, and what is tried."""


def candidate(method: Method, learning_rate: float, **own: float) -> Candidate:
    """A model with what is its own; epochs of a day, batch and decay are the same for all."""
    training = TrainingConfig(epochs=2, batch_size=1_024, learning_rate=learning_rate, weight_decay=2.0, warmup=0.1)
    return Candidate(DelayedConfig.model_validate({"method": method} | own), training)


CHOSEN: dict[Method, Candidate] = {
    "oracle": candidate("oracle", 6e-3),
    "vanilla": candidate("vanilla", 3e-3),
    "wait": candidate("wait", 3e-3, wait_days=4.0),
    "ignore": candidate("ignore", 3e-3),
    "fake_negative_weighted": candidate("fake_negative_weighted", 3e-3),
    "es_dfm": candidate("es_dfm", 3e-3, elapsed_days=3.0),
    "landmark": candidate("landmark", 6e-3, draws=4),
}
"""What the search found: the models that the benchmark compares."""
FURTHER: dict[Method, Candidate] = {
    "fake_negative_calibrated": candidate("fake_negative_calibrated", 3e-3),
    "dfm": candidate("dfm", 3e-3),
    "defer": candidate("defer", 3e-3, elapsed_days=1.0),
    "hazard": candidate("hazard", 3e-3),
}
"""Compared where they are named; the search was not run for them."""


def tried(method: Method) -> dict[str, Candidate]:
    """All candidates of a model by what tells them apart."""
    name, values = KNOBS.get(method, ("", ()))
    found = {}
    for rate, value in product(RATES, values or (None,)):
        own = {} if value is None else {name: value}
        found[f"{method} rate {rate:g}" + "".join(f" {key} {number:g}" for key, number in own.items())] = candidate(
            method, rate, **own
        )
    return found


def search(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Score every candidate, of all models or `options.models`."""
    torch.set_num_threads(1)
    known = CHOSEN | FURTHER
    asked = tuple(known if options.models is not None else CHOSEN)
    asked = tuple(m for m in asked if options.models is None or m in options.models)
    world = DelayWorldConfig(num_members=300, launches_per_day=3) if options.quick else DelayWorldConfig()
    simulation = Simulation(days=18, per_day=60) if options.quick else Simulation()
    seeds = VALIDATION[:1] if options.quick else VALIDATION
    candidates = {name: one for method in asked for name, one in tried(method).items()}
    runs = [_scored(candidates, world, simulation, seed) for seed in seeds]
    rows = {name: {m: float(np.mean([run[name][m] for run in runs])) for m in ("nll", "auc")} for name in candidates}
    best = {m: min(tried(m), key=lambda name: rows[name]["nll"]) for m in asked}
    for name, row in rows.items():
        say(f"{name:<48} NLL {row['nll']:.4f}  AUC {row['auc']:.4f}{'  <' if name in best.values() else ''}")
    held = [method for method in asked if candidates[best[method]] == known[method]]
    bars = {
        "models whose settings in use are those that the search finds": {
            "value": len(held), "want": f"== {len(asked)}", "holds": len(held) == len(asked),
        }
    }  # fmt: skip
    return {"figures": {"tried": rows, "best": best, "seeds": list(seeds)}, "bars": bars, "skipped": {}}


def _scored(
    candidates: dict[str, Candidate], world: DelayWorldConfig, simulation: Simulation, seed: int
) -> dict[str, dict[str, float]]:
    run = streamed(candidates, world=world, simulation=simulation, seed=seed, aged=())
    return {name: scores(run.chance_N[name], run.final_N) for name in candidates}
