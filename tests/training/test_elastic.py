"""Training goes on with the workers that are left when a node is taken away, and takes up another one."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from foretaste.testing.builders import prepared_folder, random_interactions, titles_table

PROGRAM = Path(__file__).parent / "elastic_cluster.py"
NEVER_AGAIN = 3
"""Epochs that may be done a second time at most: the one under way, and those whose checkpoint was on its way."""


@pytest.mark.long
@pytest.mark.cluster
def test_a_run_outlives_a_node_with_fewer_workers_and_grows_again(tmp_path: Path) -> None:
    titles = titles_table(30)
    prepared = prepared_folder(
        tmp_path / "prepared", random_interactions(titles, actors=120, per_actor=25), titles, num_buckets=3
    )
    environment = os.environ | {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",  # the first attempt still counts on the node that went
    }
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(prepared), str(tmp_path)],
        capture_output=True, text=True, timeout=540, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    epochs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    workers = [epoch["workers"] for epoch in epochs]
    sizes = [workers[0], *(now for before, now in itertools.pairwise(workers) if now != before)]
    assert sizes == [2, 1, 2]
    for before, now in itertools.pairwise(epochs):
        assert before["epoch"] + 1 - NEVER_AGAIN <= now["epoch"] <= before["epoch"] + 1
    assert epochs[-1]["loss"] < epochs[0]["loss"]
