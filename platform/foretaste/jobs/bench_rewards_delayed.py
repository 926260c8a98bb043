"""`foretaste bench rewards --part delayed`: feedback that comes late, predicted and learned with.

What is each model's own was chosen by `--part delayed-search` on the seeds VALIDATION; the figures are of others.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foretaste.evaluation.seeds import OverSeeds, over_seeds
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_rewards_delayed_runs import Aged, Candidate, Simulation, lived, streamed
from foretaste.jobs.bench_rewards_delayed_scores import scores
from foretaste.jobs.bench_rewards_delayed_search import CHOSEN, FURTHER, VALIDATION
from foretaste.jobs.settings import Settings
from foretaste.ops.telemetry import say
from foretaste.worlds.delays import DelayWorldConfig

FIRST_SEED = 200
OURS, FLOOR, CEILING = "landmark", "vanilla", "oracle"
CLOSED, VALUE = 0.75, 0.95
AGES = (0.0, 0.25, 1.0, 2.0, 3.0, 5.0, 8.0, 11.0, 14.0)
POLICIES = ("oracle", "vanilla", "wait", "es_dfm", "landmark")
QUICK_POLICIES = ("oracle", "vanilla", "landmark")

Floats = NDArray[np.float64]


def delayed(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Predict on a stream and choose for thirty days, on several seeds; `options.seeds` of them, `options.models`."""
    torch.set_num_threads(1)
    seeds = range(FIRST_SEED, FIRST_SEED + options.num_seeds)
    known = {str(name): one for name, one in (*CHOSEN.items(), *FURTHER.items())}
    asked = {name: known[name] for name in (options.models or CHOSEN)}
    world = DelayWorldConfig(num_members=300, launches_per_day=3) if options.quick else DelayWorldConfig()
    stream = Simulation(days=19, per_day=120) if options.quick else Simulation()
    living = stream.model_copy(update={"days": 6, "asked_at_the_end": 200} if options.quick else {"days": 30})
    figures = _stream_figures(asked, world, stream, list(seeds))
    bars = _stream_bars(figures)
    names = QUICK_POLICIES if options.quick else POLICIES
    policies = _policy_figures({n: asked[n] for n in names if n in asked}, world, living, list(seeds))
    bars |= _policy_bars(policies)
    return {
        "figures": {"stream": figures, "policies": policies, "seeds": list(seeds), "validation seeds": VALIDATION},
        "bars": bars,
        "skipped": {"real data": "no public log with times of conversions (Criteo's) is at hand"},
    }


def closed(of: dict[str, dict[str, float]], name: str, metric: str) -> float:
    """Share of the way from vanilla to the oracle."""
    floor, ceiling = of[FLOOR][metric], of[CEILING][metric]
    return (of[name][metric] - floor) / (ceiling - floor)


def _stream_figures(
    candidates: dict[str, Candidate], world: DelayWorldConfig, simulation: Simulation, seeds: list[int]
) -> dict[str, Any]:
    found: list[dict[str, dict[str, float]]] = []
    aged: dict[str, list[list[dict[str, float]]]] = {name: [] for name in (OURS, FLOOR) if name in candidates}
    for seed in seeds:
        run = streamed(candidates, world=world, simulation=simulation, seed=seed, aged=aged)
        found.append({name: scores(run.chance_N[name], run.final_N) for name in candidates})
        for name in aged:
            aged[name].append(by_age(run.aged[name]))
        _show(seed, found[-1])
    rows: dict[str, Any] = {}
    for name in candidates:
        rows[name] = {m: _figure(over_seeds([of[name][m] for of in found])) for m in found[0][name]}
        for metric in ("auc", "nll"):
            rows[name][f"{metric} gap closed"] = _figure(over_seeds([closed(of, name, metric) for of in found]))
    return {"models": rows, "by age": {name: _mean_by_age(of) for name, of in aged.items()}}


def by_age(aged: Aged) -> list[dict[str, float]]:
    """Scores of decisions by how old they were: of all, and of those of which nothing final was seen."""
    age_N, chance_N, final_N = (np.concatenate(part) for part in (aged.age_N, aged.chance_N, aged.final_N))
    open_N, rows = ~np.concatenate(aged.seen_N), []
    for low, high in pairwise(AGES):
        within_N = (age_N >= low) & (age_N < high)
        row = {"from_days": low, "to_days": high, "seen": float(1.0 - open_N[within_N].mean())}
        row |= {f"{metric}, all": value for metric, value in scores(chance_N[within_N], final_N[within_N]).items()}
        some_N = within_N & open_N
        row |= {f"{metric}, open": value for metric, value in scores(chance_N[some_N], final_N[some_N]).items()}
        rows.append(row)
    return rows


def _mean_by_age(runs: list[list[dict[str, float]]]) -> list[dict[str, float]]:
    found = []
    for rows in zip(*runs, strict=True):
        names = [name for name in rows[0] if all(name in row for row in rows)]
        found.append({name: float(np.mean([row[name] for row in rows])) for name in names})
    return found


def _policy_figures(
    candidates: dict[str, Candidate], world: DelayWorldConfig, simulation: Simulation, seeds: list[int]
) -> dict[str, Any]:
    found = []
    for seed in seeds:
        found.append(lived(candidates, world=world, simulation=simulation, seed=seed))
        say(f"delayed seed {seed}  " + ", ".join(f"{name} {value:.4f}" for name, value in found[-1].items()))
    figures: dict[str, Any] = {}
    for name in found[0]:
        share = [of[name] / of[CEILING] for of in found]
        above = [(of[name] - of["any"]) / (of[CEILING] - of["any"]) for of in found]
        figures[name] = {
            "value": _figure(over_seeds([of[name] for of in found])),
            "of the oracle's": _figure(over_seeds(share)),
            "of the oracle's gain over any": _figure(over_seeds(above)),
        }
    return figures


def _figure(found: OverSeeds) -> dict[str, float | None]:
    return {"value": found.value, "low": found.low, "high": found.high}


def _stream_bars(figures: dict[str, Any]) -> dict[str, Any]:
    ours = figures["models"][OURS]
    return {
        f"share of the gap from vanilla to oracle that is closed, {metric.upper()}": _bar(
            ours[f"{metric} gap closed"], CLOSED
        )
        for metric in ("auc", "nll")
    }


def _policy_bars(figures: dict[str, Any]) -> dict[str, Any]:
    return {"policy value after the last day over the oracle's": _bar(figures[OURS]["of the oracle's"], VALUE)}


def _bar(figure: dict[str, Any], least: float) -> dict[str, Any]:
    value = figure["value"]
    return figure | {"value": round(value, 4), "want": f">= {least}", "holds": bool(value >= least)}


def _show(seed: int, of: dict[str, dict[str, float]]) -> None:
    say(f"delayed seed {seed:<8} {'AUC':>7} {'closed':>7} {'NLL':>7} {'closed':>7} {'ECE':>6} {'mean':>6}")
    for name, row in of.items():
        auc, nll = closed(of, name, "auc"), closed(of, name, "nll")
        say(
            f"{name:<24} {row['auc']:>7.4f} {auc:>7.2f} {row['nll']:>7.4f} {nll:>7.2f} {row['ece']:>6.3f} "
            f"{row['mean']:>6.3f}"
        )
