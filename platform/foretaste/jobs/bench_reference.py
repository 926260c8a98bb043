"""`foretaste bench models --part references`: ours beside the same models of reference libraries, with what each costs.

Both sides have the same rows, width, depth, heads, length, dropout and share of a width in the feed-forward layers, one
thread, and are trained to their best by NDCG@10 of validation cases; the same code ranks and measures. CPU seconds an
epoch are of training alone on both sides.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from foretaste.evaluation.cases import Split
from foretaste.evaluation.protocols import BESIDE, SPLITS
from foretaste.jobs.bench_models_cells import Comparison
from foretaste.jobs.bench_models_figures import MAIN, Cells, Row, bar, cells_of, figures
from foretaste.jobs.bench_models_ladder import described
from foretaste.jobs.bench_models_names import model_names
from foretaste.jobs.bench_models_table import table, write
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.reference import training_rows
from foretaste.jobs.reference_models import RECIPES
from foretaste.jobs.settings import Settings
from foretaste.models.intent import IntentModelConfig
from foretaste.ops.telemetry import console
from foretaste.training.config import TrainingConfig

THEIRS, OURS = "rectools-sasrec", "sasrec-sampled"
SAMPLED: dict[str, Any] = {"full_softmax_titles": 1, "num_negatives": 512}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {OURS: ("sasrec", SAMPLED)}
"""Networks that only this comparison has: of which, and what is different."""

FEEDFORWARD = {"sasrec": 1, "bert4rec": 4, "esasrec": 4}
"""Width of the feed-forward layers over that of the network, as RecTools has it."""

LENGTHS = {"movielens-1m": 200}
LENGTH = 50
"""Interactions that are read: RecTools pads every history to so many, and logs with short ones are run with 50."""

CHEAPER = 30.0
BARRED = ("movietweetings",)
"""Logs of which the bar is asked: histories are short, as in the Amazon sets on which others report costs."""

LARGEST_STEP = 8_192


class SideBySide(Comparison):
    """A comparison in which ours have the shape of theirs and take as many steps an epoch."""

    def __init__(self, settings: Settings, options: BenchOptions, name: str, split: Split) -> None:
        length = {"max_length": LENGTHS.get(name, LENGTH)}
        settings = settings.model_copy(update={"intent": settings.intent.model_copy(update=length)})
        super().__init__(settings, options, name, split)

    def network(self, name: str, seed: int) -> IntentModelConfig:
        """The configuration of ours, with the feed-forward layers of theirs."""
        base, changes = VARIANTS.get(name, (name, {}))
        config = super().network(base, seed)
        if base in FEEDFORWARD:
            changes = changes | {"feedforward": FEEDFORWARD[base] * config.width}
        return config.model_copy(update=changes)

    def training(self, seed: int) -> TrainingConfig:
        """As everywhere; a step is a share of the epoch as large as theirs is, unless one was set."""
        training = super().training(seed)
        if training.batch_size is not None:
            return training
        rows = training_rows(
            self.log(seed).interactions, self.cases(seed), target_actions=self.log(seed).target_actions
        )
        sequences = int((np.bincount(rows.actor_T) > 1).sum())
        steps = max(1, math.ceil(sequences / self.settings.references.batch_size))
        size = math.ceil(int(rows.choice_T.sum()) / steps)
        return training.model_copy(update={"batch_size": max(1, min(LARGEST_STEP, size))})


def references(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Train and ask both sides on every seed, write the tables; returns the figures and bars by split.

    Raises FileNotFoundError where the environment of the reference libraries is missing.
    """
    settings.references.needed()
    name = options.data or "world"
    names = _names(options)
    found = {split: _one(settings, options, name, split, names) for split in options.splits}
    bars = {f"{what}, {SPLITS[split]}": one for split, part in found.items() for what, one in part["bars"].items()}
    return {"data": name, "figures": found, "bars": bars, "skipped": {}}


def _names(options: BenchOptions) -> tuple[str, ...]:
    usual = ("sasrec", THEIRS) if options.quick else (*RECIPES, "sasrec", "bert4rec", "esasrec", "hstu", "foretaste")
    wanted = options.models or (*usual, OURS)
    variants = tuple(name for name in wanted if name in VARIANTS)
    others = tuple(name for name in wanted if name not in VARIANTS)
    return (*(model_names(others) if others else (BESIDE,)), *variants)


def _one(settings: Settings, options: BenchOptions, name: str, split: Split, names: tuple[str, ...]) -> dict[str, Any]:
    comparison = SideBySide(settings, options, name, split)
    load = os.getloadavg()[0]
    cells = cells_of(comparison, names)
    against = options.against or (THEIRS if THEIRS in names else names[0])
    rows = figures(comparison, cells, against)
    costs = costs_of(cells, rows)
    found = described(comparison, against, rows) | {
        "costs": costs,
        "load": [load, os.getloadavg()[0]],
        "length": comparison.settings.intent.max_length,
        "bars": bars_of(name, rows) if name in BARRED and not options.quick else {},
        "skipped": {},
    }
    write(found, comparison.folder / "tables" / f"references-{split}-{comparison.protocol().fingerprint()}")
    _show(costs)
    return found


def costs_of(cells: Cells, rows: dict[str, Row]) -> dict[str, dict[str, float]]:
    """Of each trained model its CPU seconds, and how many times as many the reference's SASRec takes."""
    trained = {name: row for name, row in rows.items() if row.get("cpu_seconds_per_epoch")}
    theirs = trained.get(THEIRS)
    found: dict[str, dict[str, float]] = {}
    for name, row in trained.items():
        found[name] = {key: row[key] for key in ("cpu_seconds_per_epoch", "cpu_seconds_to_best", "best_epoch")}
        if theirs is not None:
            found[name]["cheaper an epoch"] = theirs["cpu_seconds_per_epoch"] / row["cpu_seconds_per_epoch"]
            found[name]["cheaper to best"] = theirs["cpu_seconds_to_best"] / max(row["cpu_seconds_to_best"], 1e-9)
        if "peak_bytes" in cells[name][0].facts:
            found[name]["peak_gib"] = max(cell.facts["peak_bytes"] for cell in cells[name]) / 2**30
    return found


def bars_of(log: str, rows: dict[str, Row]) -> dict[str, Any]:
    """What must hold where both sides' SASRec were run: so many times cheaper an epoch, at no worse a ranking."""
    if not {THEIRS, OURS} <= rows.keys():
        return {}
    ratio = rows[THEIRS]["cpu_seconds_per_epoch"] / rows[OURS]["cpu_seconds_per_epoch"]
    gap = rows[OURS][MAIN]["value"] - rows[THEIRS][MAIN]["value"]
    return {
        f"CPU seconds an epoch of {THEIRS} over {OURS}, {log}": bar(ratio, f">= {CHEAPER:.0f}", ratio >= CHEAPER),
        f"{MAIN} of {OURS} less that of {THEIRS}, {log}": bar(gap, ">= 0", gap >= 0),
    }


def _show(costs: dict[str, dict[str, float]]) -> None:
    head = ("model", "CPU s / epoch", f"times cheaper than {THEIRS}", "CPU s to best", "times cheaper", "peak GiB")
    keys = ("cpu_seconds_per_epoch", "cheaper an epoch", "cpu_seconds_to_best", "cheaper to best", "peak_gib")
    rows = [[name, *(f"{one[key]:.1f}" if key in one else "" for key in keys)] for name, one in costs.items()]
    console.print(table(head, rows), markup=False, soft_wrap=True)
