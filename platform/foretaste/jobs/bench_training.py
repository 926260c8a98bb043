"""`foretaste bench models --part scale`: what Ray, more workers, precision and large catalogues cost in training."""

from __future__ import annotations

import os
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_rows import rows_figures
from foretaste.jobs.cluster import cluster
from foretaste.jobs.imports import import_log
from foretaste.jobs.prepare import prepare
from foretaste.jobs.settings import Settings
from foretaste.ops.telemetry import say
from foretaste.training.config import TrackingConfig
from foretaste.training.intent import train_intent

QUICK_WORLD = {"num_members": 600, "days": 42}
BATCH_SIZE = 2_048
"""Predictions a step, the same for every arm: what a log of 800,000 choices has by default."""
PLAIN = {"executor": "plain", "num_workers": 1}
ARMS: dict[str, dict[str, Any]] = {
    "plain loop": PLAIN,
    "ray, 1 worker": {"executor": "ray", "num_workers": 1},
    "ray, 2 workers": {"executor": "ray", "num_workers": 2},
}
PRECISION: dict[str, dict[str, Any]] = {
    "plain, bfloat16": PLAIN | {"precision": "bfloat16"},
}
SCALING, OVERHEAD = 1.6, 1.1
PEAK_TERAFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L4": 121.0, "T4": 65.0}
"""Dense bfloat16 (float16 of a T4) by name of the device, as their maker states them."""


def scale(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Train the same model on the same rows in every arm, by turns; then time steps over a large catalogue.

    Epochs are timed whole (training, validation, report with checkpoint), without the first two of a run.
    """
    settings = settings.model_copy(update={"workspace": settings.tables.root / "bench" / "scale"})
    if options.quick:
        settings = settings.model_copy(update={"world": settings.world.model_copy(update=QUICK_WORLD)})
    arms = ARMS | ({} if options.quick else PRECISION)
    with cluster(settings.cluster):
        import_log(settings, "world")
        prepare(settings)
        epochs = _by_turns(settings, arms, turns=2 if options.quick else 4, epochs=4 if options.quick else 5)
    figures: dict[str, Any] = {arm: _figures(of) for arm, of in epochs.items()}
    ratios = _ratios(figures)
    _show(figures)
    rows, rows_bars = rows_figures(options.size or (100_000 if options.quick else 1_000_000))
    gpu = gpu_figures(settings) if torch.cuda.is_available() else {}
    return {
        "figures": {"training": figures, "ratios": ratios, "rows": rows, "gpu": gpu},
        "bars": _bars(ratios) | rows_bars,
        "skipped": {} if gpu else {"gpu": "there is no CUDA device: no tokens/s and share of its peak"},
    }


def _by_turns(
    settings: Settings, arms: dict[str, dict[str, Any]], *, turns: int, epochs: int
) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for turn in range(turns):
        for arm, changes in arms.items():
            load = os.getloadavg()[0]
            done, _ = _train(settings, changes | {"epochs": epochs, "patience": epochs, "batch_size": BATCH_SIZE})
            steady = done[2:]  # the second has the first report in it, which opens the storage
            found[arm] += [epoch | {"load": load, "turn": turn} for epoch in steady]
            say(f"scale turn {turn + 1}/{turns}  {arm:<16} {_rate(steady):,.0f} predictions/s, load {load:.1f}")
    return found


def _train(settings: Settings, changes: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """Records of the epochs, and how many weights every token is multiplied with."""
    with tempfile.TemporaryDirectory(prefix="foretaste-scale-") as folder:
        result = train_intent(
            settings.tables.prepared,
            Path(folder) / "registry",
            model=settings.intent,
            training=settings.training.model_copy(update=changes),
            storage=Path(folder) / "runs",
            tracking=TrackingConfig(enabled=False),
            now=datetime.now(UTC),
            on_progress=lambda epoch: None,
            labels=settings.labels,
        )
        weights = load_file(result.bundle.path / "weights.safetensors")
    matrices = sum(w.numel() for name, w in weights.items() if name.startswith("body.") and w.dim() == 2)
    return result.epochs, matrices


def gpu_figures(settings: Settings) -> dict[str, float]:
    """Tokens a second on the CUDA device in bfloat16, and the share of its peak that the matrix products make."""
    changes = PLAIN | {"use_gpu": True, "precision": "bfloat16", "batch_size": 16 * BATCH_SIZE, "epochs": 4}
    epochs, matrices = _train(settings, changes | {"micro_batch_tokens": 131_072, "patience": 4})
    rate = statistics.median(epoch["tokens"] / epoch["seconds"] for epoch in epochs[1:])
    device = torch.cuda.get_device_properties(0).name
    flops = 6.0 * rate * matrices  # forward and backward; attention itself and the softmax over titles are not counted
    peak = next((tera for name, tera in PEAK_TERAFLOPS.items() if name in device), None)
    share = {} if peak is None else {"share_of_peak": flops / (peak * 1e12)}
    return {"tokens_per_second": round(rate, 1), "teraflops": flops / 1e12} | share


def _rate(epochs: list[dict[str, Any]]) -> float:
    return float(statistics.median(epoch["predictions"] / epoch["whole_seconds"] for epoch in epochs))


def _figures(epochs: list[dict[str, Any]]) -> dict[str, float]:
    def median(key: str) -> float:
        return float(statistics.median(epoch[key] for epoch in epochs))

    return {
        "predictions_per_second": round(_rate(epochs), 1),
        "tokens_per_second": round(median("tokens") / median("whole_seconds"), 1),
        "whole_seconds": round(median("whole_seconds"), 3),
        "training_seconds": round(median("seconds"), 3),
        "cpu_seconds": round(median("cpu_seconds"), 3),
        "ndcg": round(max(epoch["metrics"].get("ndcg", 0.0) for epoch in epochs), 4),
        "loss": round(epochs[-1]["loss"], 4),
        "epochs_timed": len(epochs),
        "load_average": round(median("load"), 2),
    }


def _ratios(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """By the clock, which other programs on the machine disturb, and by CPU time, which they hardly do."""
    plain, one, two = (figures[arm] for arm in ARMS)
    return {
        "throughput of 2 Ray workers over 1": two["predictions_per_second"] / one["predictions_per_second"],
        "time of 1 Ray worker over the plain loop": plain["predictions_per_second"] / one["predictions_per_second"],
        "CPU time of 1 Ray worker over each of 2": 2 * one["cpu_seconds"] / two["cpu_seconds"],
        "CPU time of 1 Ray worker over the plain loop": one["cpu_seconds"] / plain["cpu_seconds"],
    }


def _bars(ratios: dict[str, float]) -> dict[str, Any]:
    scaling, overhead, *_ = ratios.items()
    return {
        scaling[0]: _bar(scaling[1], f">= {SCALING}", scaling[1] >= SCALING),
        overhead[0]: _bar(overhead[1], f"<= {OVERHEAD}", overhead[1] <= OVERHEAD),
    }


def _bar(value: float, want: str, holds: bool) -> dict[str, Any]:
    return {"value": round(value, 3), "want": want, "holds": holds}


def _show(figures: dict[str, dict[str, float]]) -> None:
    plain = figures["plain loop"]
    say(f"{'':<16} {'predictions/s':>13} {'to plain':>8} {'CPU-s':>7} {'to plain':>8} {'loss':>8} {'ndcg':>7}")
    for arm, of in figures.items():
        rate, cpu = of["predictions_per_second"], of["cpu_seconds"]
        say(
            f"{arm:<16} {rate:>13,.0f} {rate / plain['predictions_per_second']:>8.2f} {cpu:>7.2f} "
            f"{cpu / plain['cpu_seconds']:>8.2f} {of['loss']:>8.4f} {of['ndcg']:>7.4f}"
        )
