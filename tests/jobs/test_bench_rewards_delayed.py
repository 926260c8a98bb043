"""The benchmark of delayed feedback, small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_rewards_delayed import FIRST_SEED, closed, delayed
from foretaste.jobs.bench_rewards_delayed_scores import scores
from foretaste.jobs.bench_rewards_delayed_search import CHOSEN, VALIDATION, search, tried
from foretaste.jobs.bench_rewards_delayed_stream import Stream
from foretaste.jobs.settings import Settings
from foretaste.worlds.delays import DelayWorld, DelayWorldConfig

MODELS = ("oracle", "vanilla", "es_dfm", "landmark")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = Settings(workspace=tmp_path_factory.mktemp("bench"))
    return delayed(settings, BenchOptions(name="rewards", part="delayed", quick=True, models=MODELS, seeds=1))


def test_every_model_is_scored_beside_the_oracle_and_the_bars_are_told(found: dict[str, Any]) -> None:
    rows = found["figures"]["stream"]["models"]
    assert set(rows) == set(MODELS)
    for name, row in rows.items():
        assert 0.4 < row["auc"]["value"] < 1, name
        assert 0 < row["nll"]["value"] < 1.5, name
    assert rows["oracle"]["auc gap closed"]["value"] == 1
    assert rows["vanilla"]["nll gap closed"]["value"] == 0
    assert rows["vanilla"]["mean"]["value"] < rows["landmark"]["mean"]["value"], "what is not seen yet counts as no"
    assert len(found["bars"]) == 3
    assert all(bar["holds"] == (bar["value"] >= float(bar["want"].split()[1])) for bar in found["bars"].values())
    assert "real data" in found["skipped"]


def test_what_is_predicted_gets_better_with_time(found: dict[str, Any]) -> None:
    ages = found["figures"]["stream"]["by age"]["landmark"]
    assert ages[-1]["nll, all"] < ages[0]["nll, all"]


def test_policies_stand_beside_any_and_the_best(found: dict[str, Any]) -> None:
    policies = found["figures"]["policies"]
    assert {"any", "best by truth", "oracle", "vanilla", "landmark"} == set(policies)
    assert policies["any"]["value"]["value"] < policies["landmark"]["value"]["value"]
    assert policies["landmark"]["value"]["value"] < policies["best by truth"]["value"]["value"]


def test_what_is_known_on_a_day_hangs_on_nothing_later() -> None:
    world = DelayWorld(DelayWorldConfig(num_members=50, days=8), 1)
    stream = Stream(world, np.random.default_rng(2))
    for day in range(6):
        member_N, at_N, title_NC = world.requests(day, 200, 1, stream.rng)
        stream.add(member_N, title_NC[:, 0], at_N)
    early, late = stream.known(3.0), stream.known(6.0, final=True)
    assert len(early) == 600
    assert np.isnan(early.final_N).all()
    same = late.rows(slice(0, 600))
    assert (np.isfinite(same.delay_N) >= np.isfinite(early.delay_N)).all(), "what is seen stays seen"
    assert np.isfinite(same.delay_N).sum() > np.isfinite(early.delay_N).sum()
    assert (same.final_N[np.isfinite(early.delay_N)] == 1).all()
    assert len(stream.known(6.0, since=4.0)) == 400


def test_scores_of_three_by_hand() -> None:
    found = scores(np.array([0.5, 0.8, 0.2]), np.array([1.0, 1.0, 0.0]))
    assert found["auc"] == 1.0
    assert found["nll"] == pytest.approx(-(np.log(0.5) + 2 * np.log(0.8)) / 3)
    rows = {"vanilla": {"auc": 0.6}, "oracle": {"auc": 0.8}, "x": {"auc": 0.75}}
    assert closed(rows, "x", "auc") == pytest.approx(0.75)


def test_every_model_searches_over_its_own_knobs_on_seeds_that_are_not_reported(tmp_path: Path) -> None:
    found = search(Settings(workspace=tmp_path), BenchOptions(name="rewards", quick=True, models=("vanilla", "wait")))
    rows = found["figures"]["tried"]
    assert set(rows) == set(tried("vanilla")) | set(tried("wait"))
    assert rows[found["figures"]["best"]["wait"]]["nll"] == min(rows[name]["nll"] for name in tried("wait"))
    assert all(one in tried(method).values() for method, one in CHOSEN.items())
    assert not set(VALIDATION) & set(range(FIRST_SEED, FIRST_SEED + 5))
