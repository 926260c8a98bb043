"""Figures of a comparison: per model means over seeds, and how far each is from one that is named.

Shapes: S seeds, B cases, A actors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste.evaluation.metrics import hit, ndcg, reciprocal
from foretaste.evaluation.seeds import OverSeeds, over_both, over_seeds, paired, paired_ratio
from foretaste.jobs.bench_models_cells import Cell, Comparison
from foretaste.models.baselines import BASELINES

MAIN = "ndcg@10"
LAST = "ndcg@10 with the target last among equals"
METRICS = (MAIN, "hr@10", "mrr")

Row = dict[str, Any]
Cells = dict[str, list[Cell]]
"""The cells of each model, one a seed, in the order of the seeds."""


def cells_of(comparison: Comparison, names: Sequence[str], *, session: bool = False, after: bool = False) -> Cells:
    """Answer of every model and seed; the seeds of a model that draws nothing are one cell."""
    seeds = range(comparison.options.num_seeds)
    found: Cells = {name: [] for name in names}
    for seed in seeds:  # all models of one seed first: a run that is stopped has something to compare
        for name in names:
            found[name].append(comparison.cell(name, seed, session=session, after=after))
    return found


def values(rank_B: NDArray[np.int64], metric: str) -> NDArray[np.float64]:
    """One value a case."""
    if metric == MAIN:
        return ndcg(rank_B, 10)
    return hit(rank_B, 10) if metric == "hr@10" else reciprocal(rank_B, np.iinfo(np.int64).max)


def figures(comparison: Comparison, cells: Cells, against: str) -> dict[str, Row]:
    """Of each model its means with their t-interval over seeds, its distance to `against`, its heads and its costs.

    `over_seeds` intervals are of training again; `over_both` of training again and asking other members, which needs
    the same cases in all runs: with shuffled ties there is none.
    """
    return {name: _row(comparison, own, cells[against]) for name, own in cells.items()}


def _row(comparison: Comparison, own: list[Cell], other: list[Cell]) -> Row:
    once = len({cell.seed for cell in own}) == 1
    row: Row = {"seeds": 1 if once else len(own)}
    for metric in METRICS:
        mine_S = [float(values(cell.rank_B, metric).mean()) for cell in own]
        row[metric] = asdict(over_seeds(mine_S[:1] if once else mine_S))
        theirs_S = [float(values(cell.rank_B, metric).mean()) for cell in other]
        if own[0].model != other[0].model:
            row[f"{metric} difference"] = _difference(comparison, own, other, metric, mine_S, theirs_S)
    row[LAST] = float(np.mean([values(cell.last_B, MAIN).mean() for cell in own]))
    return row | _costs(own) | {"intents": heads(own)}


def _difference(
    comparison: Comparison, own: list[Cell], other: list[Cell], metric: str, mine_S: list[float], theirs_S: list[float]
) -> dict[str, Any]:
    still = len({cell.seed for cell in (*own, *other)}) == 1 and len(own) > 1
    count = 1 if still else len(own)
    found: dict[str, Any] = {"over_seeds": asdict(paired(mine_S[:count], theirs_S[:count]))}
    if all(value > 0 for value in theirs_S):
        found["share"] = asdict(paired_ratio(mine_S[:count], theirs_S[:count]))
    if comparison.options.ties == "stable":
        gap_SB = np.stack(
            [values(a.rank_B, metric) - values(b.rank_B, metric) for a, b in zip(own, other, strict=True)]
        )
        found["over_both"] = asdict(over_both(gap_SB[:count], comparison.cases().actor_B))
    return found


def _costs(own: list[Cell]) -> Row:
    if own[0].model in BASELINES:
        return {}
    names = ("cpu_seconds_per_epoch", "cpu_seconds_to_best", "best_epoch", "epochs", "parameters")
    return {name: float(np.mean([cell.facts[name] for cell in own])) for name in names}


def heads(own: Sequence[Cell]) -> dict[str, dict[str, float] | None]:
    """Of each head that any model can have: hit and log loss of the next choice, and of the prior; None where off."""
    found: dict[str, dict[str, float] | None] = {}
    for name in own[0].facts.get("intents", {}):
        rows = [cell.facts["intents"][name]["next"] for cell in own]
        names = ("hit", "hit_prior", "log_loss", "log_loss_prior")
        some = [row for row in rows if row["cases"]]
        found[name] = {key: float(np.mean([row[key] for row in some])) for key in names} if some else None
    return found


def bar(value: float | None, want: str, holds: bool) -> dict[str, Any]:
    """A bar as the command line counts it."""
    return {"value": value if value is None else round(value, 4), "want": want, "holds": bool(holds)}


def interval(found: Mapping[str, Any] | OverSeeds, *, digits: int = 4, sign: bool = False) -> str:
    """A mean with its interval, as text."""
    one = asdict(found) if isinstance(found, OverSeeds) else found
    plus = "+" if sign else ""
    value = f"{one['value']:{plus}.{digits}f}"
    return value if one["low"] is None else f"{value} [{one['low']:{plus}.{digits}f}, {one['high']:{plus}.{digits}f}]"
