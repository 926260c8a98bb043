"""The reward report runs at its small size, has its bars, and writes its page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from foretaste.evaluation.reward_visits import PAST
from foretaste.jobs.bench import bench
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_rewards_report import PLANTED, QUICK
from foretaste.jobs.bench_rewards_visits import visits_of
from foretaste.jobs.bench_rewards_world import live
from foretaste.jobs.settings import Settings
from foretaste.ops.files import read_json
from foretaste.rewards.library import read_programs
from foretaste.worlds.config import DAY_US
from foretaste.worlds.generate import catalogue_of, partition

ROOT = Path(__file__).parents[2]


def test_five_programs_are_ranked_by_the_log_beside_what_their_policies_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    found = bench(Settings(workspace=tmp_path), BenchOptions(name="rewards", part="report", quick=True, seeds=1))
    assert found["bench"] == "rewards"
    assert all({"value", "want", "holds"} == set(bar) for bar in found["bars"].values())
    figures = found["figures"]
    assert set(figures["programs"]) == set(figures["runs"][0]["order"]) == set(read_programs(ROOT / PLANTED))
    assert figures["agreement"] == [figures["runs"][0]["agreement"]]
    assert read_json(tmp_path / "bench" / "rewards" / "report.json")["seeds"] == figures["seeds"]
    assert (tmp_path / "bench" / "rewards" / f"report-{figures['seeds'][0]}.html").stat().st_size > 2_000


def test_slates_that_follow_a_score_are_logged_with_the_propensities_with_which_they_are_drawn() -> None:
    config = QUICK.world(3).model_copy(update={"num_members": 60, "members_per_partition": 60, "days": 14})
    best = live(config, 0, lambda affinity_MN: np.vstack([affinity_MN, affinity_MN[:1]]), epsilon=0.5)
    frame = pl.DataFrame(pl.from_arrow(best.outcomes.select(["decision_id", "position", "propensity"])))
    assert len(frame) > 100
    even = 0.5 / (best.num_available_X - frame["position"].to_numpy())
    propensity = frame["propensity"].to_numpy()
    greedy = np.isclose(propensity, even + 0.5, atol=1e-6)
    assert (greedy | np.isclose(propensity, even, atol=1e-6)).all()
    assert 0.4 < greedy.mean() < 0.6
    again = live(config, 0, lambda affinity_MN: np.vstack([affinity_MN, affinity_MN[:1]]), epsilon=0.5)
    assert again.outcomes.equals(best.outcomes)


def test_a_part_that_there_is_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no part 'other'; there are report"):
        bench(Settings(workspace=tmp_path), BenchOptions(name="rewards", part="other"))


def test_visits_are_read_from_events_with_their_slates_choices_and_pasts() -> None:
    config = QUICK.world(3).model_copy(update={"num_members": 60, "members_per_partition": 60, "days": 21})
    lived, truth = live(config, 0, keep_events=True), partition(config, 0)
    band_MN = np.zeros(lived.affinity_MN.shape, dtype=np.int64)
    assert lived.events is not None
    visits = visits_of(config, catalogue_of(config), lived.events, lived.number_of, band_MN)
    sessions = pl.DataFrame(pl.from_arrow(truth["sessions"])).filter(~pl.col("guest"))
    sessions = sessions.filter(pl.col("started_at").dt.epoch("us") < config.end_us - DAY_US)
    assert len(visits.member_S) == len(sessions) > 60
    choices = pl.DataFrame(pl.from_arrow(truth["choices"])).join(sessions, on="session_id")
    assert len(visits.chosen_C) == len(choices)
    assert visits.feedback_CF[:, 0].mean() == pytest.approx(choices["played_fraction"].mean(), abs=1e-3)
    assert (visits.days_S[visits.returned_S] > 0).all()
    assert visits.past_SN[np.diff(visits.member_S, prepend=-1) != 0].max() <= PAST.index(
        "nothing, and the title is new"
    )
    again = np.flatnonzero(np.diff(visits.member_S) == 0)[0]
    for title in visits.chosen_C[visits.visit_C == again]:
        assert visits.past_SN[again + 1, title] >= PAST.index("chosen before")
