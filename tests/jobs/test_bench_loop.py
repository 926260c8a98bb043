"""Closed loops: equal arms do not differ, arms learn what they may and no more, greedy logs are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foretaste.cli import LOOP_PARTS
from foretaste.jobs.bench import bench
from foretaste.jobs.bench_loop import PARTS
from foretaste.jobs.bench_loop_arms import ARMS, GREEDY, Size, experiment
from foretaste.jobs.bench_loop_life import WARM, Feedback, Life, Loop
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings
from foretaste.ops.files import read_json

TINY = Size(members=90, days=7, warm_days=5, worlds=1, wait_days=2)
TWO = {GREEDY: ARMS[GREEDY], "epsilon-greedy": ARMS["epsilon-greedy"]}


def _life(feedback: Feedback, seed: int = 4) -> Life:
    return Life(Loop(TINY.world(), TINY.warm_days, TINY.wait_days, feedback), TWO, seed)


def test_the_command_line_names_every_part() -> None:
    assert set(LOOP_PARTS) == set(PARTS)


def test_equal_arms_do_not_differ_and_members_come_into_them_evenly() -> None:
    report = experiment(TINY, "own", {"one": ARMS[GREEDY], "other": ARMS[GREEDY]}, range(1, 6))
    gap = report.differences["other"]["worth"]
    assert gap.low is not None
    assert gap.high is not None
    assert gap.low < 0.0 < gap.high
    assert min(report.ratio_p) > 1e-3


def test_a_seed_gives_the_same_bits_and_another_one_another_world() -> None:
    first, again, other = _life("own").run(), _life("own").run(), _life("own", seed=5).run()
    assert all(first[name].tobytes() == again[name].tobytes() for name in first.columns)
    assert first["title"].tobytes() != other["title"].tobytes()


@pytest.mark.parametrize("feedback", ["own", "shared"])
def test_arms_learn_from_final_outcomes_alone_and_from_whose_they_may(feedback: Feedback) -> None:
    life = _life(feedback)
    visits = life.run()
    final = visits.take(np.flatnonzero(visits["day"] < life.day - TINY.wait_days))
    for number, arm in enumerate(TWO):
        mine = np.isin(final["arm"], [WARM, number]) if feedback == "own" else np.ones(len(final), dtype=np.bool_)
        assert life.posterior(arm).evidence.num_rounds == mine.sum() * life.layout.places
    served = visits["arm"][visits["day"] >= TINY.warm_days]
    assert set(served.tolist()) == {0, 1}
    assert (visits["arm"][visits["day"] < TINY.warm_days] == WARM).all()
    assert (visits["arm"] == np.where(visits["arm"] == WARM, WARM, life.arm_M[visits["member"]])).all()


def test_slates_are_logged_with_their_propensities_and_hold_titles_on_sale_once() -> None:
    visits = _life("own").run()
    greedy, mixed = (visits.take(np.flatnonzero(visits["arm"] == arm)) for arm in range(2))
    assert (greedy["propensity"] == 1.0).all()
    even, best = 0.1 / 20, 0.9 + 0.1 / 20
    assert (np.isclose(mixed["propensity"], even) | np.isclose(mixed["propensity"], best)).all()
    assert (visits["title"] < visits["available"][:, None]).all()
    assert (np.diff(np.sort(visits["title"], axis=1), axis=1) > 0).all()
    assert (visits["best"] >= visits["worth"] - 1e-12).all()


@pytest.mark.slow
def test_the_bench_runs_small_and_the_greedy_log_is_refused(tmp_path: Path) -> None:
    found = bench(Settings(workspace=tmp_path), BenchOptions(name="loop", quick=True))
    assert found["bars"]["share of next models that the greedy log refuses to judge"]["holds"]
    assert found["bars"]["sample-ratio test of the arms, smallest p"]["holds"]
    assert found["figures"]["price"]["greedy_refused_because"][0] == "few_effective_rounds" or (
        "no_support" in found["figures"]["price"]["greedy_refused_because"]
    )
    folder = tmp_path / "bench" / "loop"
    assert set(read_json(folder / "arms.json")["own"]["figures"]) == set(ARMS)
    assert (folder / "arms.html").stat().st_size > 50_000
    assert read_json(folder / "price.json")["error_ratio"]


def test_a_part_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no part 'other'; there are arms, price"):
        bench(Settings(workspace=tmp_path), BenchOptions(name="loop", part="other"))
