"""Trains on a Ray that is there already, and prints the number of every epoch; test_on_ray kills it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import ray

from foretaste.models.bodies import HierarchyConfig
from foretaste.models.intent import IntentModelConfig
from foretaste.training.config import TrackingConfig, TrainingConfig
from foretaste.training.intent import train_intent
from foretaste.training.loop import Epoch

MODEL = IntentModelConfig(width=32, feedforward=64, body=HierarchyConfig(item_blocks=1), max_length=32)


def main(prepared: str, root: str, runs: str, training: str, address: str) -> None:
    """Train as the test does."""

    def on_progress(epoch: Epoch) -> None:
        print(epoch.number, flush=True)

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    train_intent(
        Path(prepared), Path(root) / "registry", model=MODEL, training=TrainingConfig.model_validate_json(training),
        storage=Path(root) / "runs", runs=runs, tracking=TrackingConfig(enabled=False),
        now=datetime(2026, 2, 1, tzinfo=UTC), on_progress=on_progress,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
