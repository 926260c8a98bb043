"""A run that is killed while it publishes or loads leaves published rows only, and the next one completes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.signals.snapshots import SnapshotConfig, build_snapshots
from foretaste.signals.store import ONLINE, FeatureStore
from foretaste.testing.builders import START, prepared_folder, random_interactions, titles_table

REPO = Path(__file__).parents[2] / "features"
TITLES = titles_table(40, seed=11)
KNOWN = catalogue(TITLES)
MEMBERS = 60
IDS = [f"m{number:03d}" for number in range(MEMBERS)]
ROWS = random_interactions(TITLES, actors=MEMBERS, days=40, per_actor=20, seed=11)
KILLS = 20
WEIGHTS = (0.25, 0.3)  # the second retires the first generation half way


@pytest.fixture
def runner() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("kill_points.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def ask(runner: subprocess.Popen[str], **said: Any) -> dict[str, Any]:
    assert runner.stdin is not None
    assert runner.stdout is not None
    runner.stdin.write(json.dumps(said) + "\n")
    runner.stdin.flush()
    answer: dict[str, Any] = json.loads(runner.stdout.readline())
    return answer


def us(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def must_hold_published_rows_only(store: FeatureStore, folder: Path, now: datetime) -> int:
    """Every file of the sources can be read; every row online is a published one, bit for bit; returns their number."""
    for file in folder.rglob("sources/*/*.parquet"):
        pq.read_table(file)
    if not (folder / ONLINE).is_file():
        return 0
    store.check(KNOWN)
    at = us(now) + 1
    members, titles = store.members(IDS, at), store.titles(KNOWN, at)
    found = store.members_at(IDS, members.asof_ms_B, store.generation)
    for name in type(members).__slots__:
        assert getattr(found, name).tobytes() == getattr(members, name).tobytes(), name
    again = store.titles_at(KNOWN, np.arange(len(KNOWN) + 1), titles.asof_ms, store.generation)
    for name in type(titles).__slots__:
        assert getattr(again, name).tobytes() == getattr(titles, name).tobytes(), name
    return int((members.asof_ms_B >= 0).sum())


@pytest.mark.slow
def test_killed_at_twenty_moments_nothing_half_written_is_read_and_the_next_run_completes(
    tmp_path: Path, runner: subprocess.Popen[str]
) -> None:
    assert runner.stdout is not None
    assert json.loads(runner.stdout.readline()) == "ready"
    dice = np.random.default_rng(5)
    arrives = np.sort(dice.uniform(10, 40 + KILLS, ROWS.num_rows))  # in no order of the events: many come late
    order = dice.permutation(ROWS.num_rows)
    killed, online, longest = 0, 0, 0.0
    store = FeatureStore(REPO, tmp_path / "features")
    for night in range(KILLS + 1):
        now = START + timedelta(days=20 + night * 2, hours=3)
        there = np.sort(order[arrives <= 20 + night * 2])
        prepared_folder(tmp_path / "prepared", ROWS.take(there), TITLES)
        whole = night % 7 == 0  # complete now and then, so that there is something to damage
        said = {
            "folder": str(tmp_path),
            "repo": str(REPO),
            "now": now.isoformat(),
            "weight": WEIGHTS[night > KILLS // 2],
        }
        answer = ask(runner, **said, seconds=None if whole else float(dice.uniform(0, longest)))
        assert answer["status"] in ((0,) if whole else (0, 9)), "a run after a killed one has to complete"
        longest = answer["seconds"] if answer["status"] == 0 else longest  # of the newest that ended: as fast as now
        killed += answer["status"] == 9
        online = max(online, must_hold_published_rows_only(store, tmp_path / "features", now))
    assert killed >= KILLS // 2
    assert online == MEMBERS
    last = START + timedelta(days=90)
    prepared_folder(tmp_path / "prepared", ROWS, TITLES)
    said = {"folder": str(tmp_path), "repo": str(REPO), "now": last.isoformat(), "weight": WEIGHTS[1]}
    assert ask(runner, **said, seconds=None)["status"] == 0
    must_hold_published_rows_only(store, tmp_path / "features", last)
    config = SnapshotConfig(step_days=1, browse_weight=WEIGHTS[1])
    build_snapshots(tmp_path / "prepared", tmp_path / "fresh", config, now=last)
    fresh = FeatureStore(REPO, tmp_path / "fresh")
    fresh.apply()
    at_B = np.full(MEMBERS, us(last) + 1)
    wanted, found = fresh.historical_members(IDS, at_B), store.members(IDS, us(last) + 1)
    for name in type(wanted).__slots__:
        if not name.startswith("asof"):
            assert getattr(found, name).tolist() == getattr(wanted, name).tolist(), name
    fresh.close()
    store.close()
