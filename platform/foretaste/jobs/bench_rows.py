"""A step of the intent model over a large catalogue: gradients of the whole table, or of the rows of the step."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foretaste.contracts.catalogue import UNKNOWN_TIME, Catalogue
from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import LabelConfig, specifications
from foretaste.models.intent import IntentModel, IntentModelConfig
from foretaste.models.zoo import network
from foretaste.ops.telemetry import say
from foretaste.training.config import TrainingConfig
from foretaste.training.examples import Examples, census
from foretaste.training.gradients import Gradients
from foretaste.training.intent import classes_in
from foretaste.training.intent_task import IntentTask
from foretaste.training.optimizers import Optimizer
from foretaste.training.plain import PlainContext

WIDTH, PREDICTIONS, NEGATIVES = 64, 2_048, 2_048
HISTORIES, LENGTH, NUM_GENRES = 128, 64, 20
FEW_TITLES = 500_000
"""Of fewer titles the whole table costs little."""
MOST_TABLES, MOST_BESIDE_MIB = 4.0, 300.0
"""What a process may grow by: tables of titles (the weights, two moments, descriptions of titles), and all the rest."""
_MAIN = "import sys; from foretaste.jobs.bench_rows import main; main(sys.argv[1] == 'rows', int(sys.argv[2]))"


def rows_figures(num_titles: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time both ways over `num_titles` titles and a tenth of them, each in a process of its own; figures and bars."""
    figures = {
        f"{kind}, {size:,} titles x {WIDTH}": _measure(kind, size)
        for size in (num_titles // 10, num_titles)
        for kind in ("rows", "table")
    }
    small_rows, _, rows, table = figures.values()
    most_mib = MOST_TABLES * rows["table_mib"] + MOST_BESIDE_MIB
    bars = {
        "CPU time of a step by rows, over that of a tenth of the titles": _bar(rows["ms"] / small_rows["ms"], 1.5),
        "memory by rows, MiB": _bar(rows["peak_mib"] - rows["before_mib"], round(most_mib)),
    }
    if num_titles >= FEW_TITLES:
        bars["CPU time of a step by rows, over one by the whole table"] = _bar(rows["ms"] / table["ms"], 0.7)
    return figures, bars


def _measure(kind: str, size: int) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", _MAIN, kind, str(size)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"steps by {kind} over {size} titles failed: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout)
    say(f"{kind:<6} {size:>9,} titles  {found['ms']:>7.1f} CPU-ms a step, peak {found['peak_mib']:>6.0f} MiB")
    return found


def _bar(value: float, most: float) -> dict[str, Any]:
    return {"value": round(value, 3), "want": f"<= {most}", "holds": value <= most}


def main(rows: bool, num_titles: int) -> None:
    """Time steps in this process and print milliseconds and the peak of its memory as JSON."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    known, examples, labels = _log(num_titles, np.random.default_rng(0))
    counted = census(examples, known, labels)
    config = network("v3", IntentModelConfig(width=WIDTH, full_softmax_titles=1, num_negatives=NEGATIVES))
    before = peak_mib()
    model = IntentModel(config, known, classes_in(counted, config, known, labels), labels)
    for embedding in (model.titles.own, model.titles.bias):
        embedding.sparse = rows
    training = TrainingConfig(epochs=1, batch_size=PREDICTIONS)
    task = IntentTask(model, examples, counted, known, training, rank=0, exclude_seen=False, labels=labels)
    gradients = Gradients(model, PlainContext(lambda epoch: None))
    optimizer = Optimizer(gradients.dense, gradients.rows, training)
    steps = [_step(task, gradients, optimizer, epoch) for epoch in range(5 if rows else 3)][1:]
    table = model.titles.own.weight.numel() * 4 / 2**20
    found = {"ms": statistics.median(steps) * 1e3, "before_mib": before, "peak_mib": peak_mib(), "table_mib": table}
    print(json.dumps({name: round(value, 2) for name, value in found.items()}))


def _step(task: IntentTask, gradients: Gradients, optimizer: Optimizer, epoch: int) -> float:
    """CPU-seconds of a step, the mean over the steps of an epoch."""
    num_steps = task.num_predictions // PREDICTIONS
    started = time.process_time()
    for micro_batches in task.steps(epoch, num_steps):
        gradients.clear()
        for micro_batch in micro_batches:
            gradients.add(*task.loss(micro_batch), last=True)
        gradients.share(1.0)
        optimizer.step(1e-3)
    return (time.process_time() - started) / num_steps


def _log(num_titles: int, rng: np.random.Generator) -> tuple[Catalogue, Examples, LabelConfig]:
    """A catalogue of that size, and histories that choose evenly among it."""
    ids = tuple(map(str, range(num_titles)))
    codes_N1 = np.arange(num_titles + 1)
    genres_N1G = (codes_N1[:, None] % NUM_GENRES == np.arange(NUM_GENRES)).astype(np.float32)
    kind_N1 = np.where(codes_N1 > 0, codes_N1 % 2, -1).astype(np.int32)
    released_N1 = np.full(num_titles + 1, UNKNOWN_TIME)
    genres = tuple(f"genre {n}" for n in range(NUM_GENRES))
    known = Catalogue(ids, ids, ("movie", "show"), genres, kind_N1, genres_N1G, released_N1, {}, {})
    size = HISTORIES * LENGTH
    at_T = np.tile(np.arange(LENGTH, dtype=np.int64) * 3_600_000_000, HISTORIES)
    title_T, zeros_T = rng.integers(1, num_titles + 1, size=size).astype(np.int32), np.zeros(size, dtype=np.int32)
    ones_T = np.ones(size, dtype=np.float32)
    offsets_B1 = np.arange(HISTORIES + 1, dtype=np.int64) * LENGTH
    histories = Histories(offsets_B1, title_T, zeros_T, at_T, zeros_T, 60 * ones_T, ones_T)
    labels = LabelConfig()
    single = [spec for spec in specifications(labels, known) if spec.kind == "single"]
    drawn = {spec.name.value: rng.integers(len(spec.classes), size=size).astype(np.int32) for spec in single}
    every_T = np.ones(size, dtype=np.bool_)
    return known, Examples(histories, every_T, ~every_T, every_T, drawn), labels


def peak_mib() -> float:
    """The most memory that this process has held, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
