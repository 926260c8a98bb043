"""A cluster on this machine that loses a node while a run trains, and gets another one; see test_elastic.

Prints, as a line of JSON each, the number of every epoch and how many workers trained it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from foretaste.models.bodies import HierarchyConfig
from foretaste.models.intent import IntentModelConfig
from foretaste.training.config import TrackingConfig, TrainingConfig
from foretaste.training.intent import train_intent
from foretaste.training.loop import Epoch

MODEL = IntentModelConfig(width=32, feedforward=64, body=HierarchyConfig(item_blocks=1), max_length=32)
TRAINING = TrainingConfig(
    epochs=1_000, patience=1_000, batch_size=512, split="last", num_workers=2, fewest_workers=1, resize_seconds=2.0,
    fetch_seconds=3.0,
)  # fmt: skip
AFTERWARDS = 3
"""Epochs of the larger group that are waited for."""


def main(prepared: Path, root: Path) -> None:
    """Train on two nodes of one processor each, on one of them, and on two again."""
    about = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=about | {"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    seen: list[Epoch] = []

    def on_progress(epoch: Epoch) -> None:
        print(json.dumps({"epoch": epoch.number, "workers": epoch.workers, "loss": epoch.loss}), flush=True)
        seen.append(epoch)

    def train() -> None:
        train_intent(
            prepared, root / "registry", model=MODEL, training=TRAINING, storage=root / "runs",
            tracking=TrackingConfig(enabled=False), now=datetime(2026, 2, 1, tzinfo=UTC), on_progress=on_progress,
        )  # fmt: skip

    threading.Thread(target=train, daemon=True).start()
    _until(lambda: len(seen) >= 3)
    cluster.remove_node(nodes[1], allow_graceful=False)
    _until(lambda: seen[-1].workers == 1)
    cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    _until(lambda: [epoch.workers for epoch in seen[-AFTERWARDS:]] == [2] * AFTERWARDS)
    for node in cluster.list_all_nodes():  # training goes on meanwhile: this process ends under it
        node.kill_all_processes(check_alive=False, allow_graceful=False)
    os._exit(0)


def _until(done: object) -> None:
    assert callable(done)
    while not done():
        time.sleep(0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
