"""Outcomes and rewards of a whole log: as of an instant, a version beside the other, never half."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from foretaste.contracts.columns import OUTCOMES, predicted_outcomes
from foretaste.evaluation.reward_values import learn
from foretaste.jobs.foresee import foresee
from foretaste.jobs.outcomes import forget, join, latest
from foretaste.jobs.prepare import prepare
from foretaste.jobs.rewards import compute, read_rewards
from foretaste.jobs.settings import Settings
from foretaste.models.delayed import DelayedConfig
from foretaste.ops.files import parquet_files, read_json, read_parquet, write_json, write_parquet
from foretaste.sessions.spread import here
from foretaste.training.config import DelayedTrainingConfig, TrackingConfig
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.generate import generate

WORLD = WorldConfig(num_members=80, days=28, num_movies=60, num_shows=30)
MIDDLE = datetime(2026, 1, 15, tzinfo=UTC)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    found = Settings(workspace=tmp_path_factory.mktemp("outcomes"))
    generate(WORLD, found.tables.raw, advance=lambda _: None)
    prepare(found)
    return found


@pytest.fixture(scope="module")
def late(settings: Settings) -> Path:
    return Path(join(settings, spread=here)["out"])


def frame(folder: Path) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(read_parquet(folder)))


def test_every_impression_has_its_outcome_and_returns_are_those_that_the_world_planted(
    settings: Settings, late: Path
) -> None:
    found = frame(late)
    assert read_parquet(late).schema.equals(OUTCOMES)
    events = frame(settings.tables.raw / "events")
    shown = events.filter(pl.col("action") == "impression")
    assert len(found) == shown.select("decision_id", "title_id").n_unique() == len(shown)
    assert found["as_of"][0] == events["at"].max() + timedelta(microseconds=1)  # type: ignore[operator]
    truth = frame(settings.tables.raw / "truth" / "satisfaction").filter("observable")
    members = found.filter(pl.col("member_id").is_not_null(), ~pl.col("open").list.contains("return_7d"))
    soon = (pl.col("returned_at") - pl.col("session_ended_at") <= timedelta(days=7)).fill_null(False)
    both = members.select("session_id", soon=soon).unique().join(truth, on="session_id")
    assert len(both) > 50
    # a guest's visit of the same member is no return that a log can see, and a session may end after its last event
    assert (both["soon"] == both["returned_within_7d"]).mean() > 0.9  # type: ignore[operator]


def test_an_earlier_instant_is_a_prefix_with_more_that_is_open_and_the_same_again_is_the_same(
    settings: Settings, late: Path
) -> None:
    early = join(settings, as_of=MIDDLE.isoformat(), spread=here)
    first = frame(Path(early["out"]))
    assert first["at"].max() < MIDDLE  # type: ignore[operator]
    assert early["counts"]["open:play"] > 0
    again = join(settings, as_of=MIDDLE.isoformat(), spread=here)
    assert again == early
    assert frame(Path(again["out"])).equals(first)
    assert latest(settings.tables.outcomes) == late
    whole = frame(late).join(first.select("decision_id", "title_id", "played_at"), on=["decision_id", "title_id"])
    happened = whole.filter(pl.col("played_at_right").is_not_null())
    assert (happened["played_at"] == happened["played_at_right"]).all()


def test_a_new_version_of_a_program_stands_beside_the_old_and_a_version_is_one_program_for_good(
    settings: Settings, late: Path, tmp_path: Path
) -> None:
    def declared(version: int, reward: str) -> Path:
        path = tmp_path / f"{version}.yaml"
        path.write_text(f"programs:\n  mine:\n    version: {version}\n    reward: '{reward}'\n")
        return path

    one = compute(settings, program="mine", programs=declared(1, "play"), spread=here)
    two = compute(settings, program="mine", programs=declared(2, "2 * play"), spread=here)
    assert two["mean"] == pytest.approx(2 * one["mean"])
    assert one["states"] == two["states"] == {"final": one["states"]["final"], "open": one["states"]["open"]}
    old, new = read_rewards(Path(one["out"])), read_rewards(Path(two["out"]))
    assert old.num_rows == new.num_rows == frame(late).height
    assert set(old["program_version"].to_pylist()) == {1}
    with pytest.raises(ValueError, match="program mine: version 1 was another one before"):
        compute(settings, program="mine", programs=declared(1, "3 * play"), spread=here)
    assert read_rewards(Path(one["out"])).equals(old)
    with pytest.raises(ValueError, match="wanted one of mine, found 'yours'"):
        compute(settings, program="yours", programs=declared(1, "play"), spread=here)


def test_predictions_of_a_model_stand_beside_the_outcomes_that_they_are_of(settings: Settings, late: Path) -> None:
    programs = Path(__file__).parents[2] / "deployments" / "rewards.yaml"
    plain = compute(settings, program="long_term_early", programs=programs, spread=here)
    assert plain["states"]["no_prediction"] > 0
    guessed = ["play", "complete", "thumb_up", "thumb_down"]
    schema = predicted_outcomes(guessed)
    for file in sorted(late.glob("*.parquet")):
        rows = read_parquet(file).select(["decision_id", "title_id", "as_of"]).to_pylist()
        told = [row | {"model_version": "m1", **{f"predicted_{name}": 0.1 for name in guessed}} for row in rows]
        write_parquet(
            pa.Table.from_pylist(told, schema=schema), settings.tables.predicted / late.name / "m1" / file.name
        )
    with pytest.raises(FileNotFoundError, match="wanted predicted feedback of model m1, found none"):
        compute(settings, program="long_term_early", programs=programs, predicted="m1", spread=here)
    write_json({}, settings.tables.predicted / late.name / "m1" / "manifest.json")
    early = compute(settings, program="long_term_early", programs=programs, predicted="m1", spread=here)
    assert early["states"]["predicted"] == plain["states"]["no_prediction"]
    assert "no_prediction" not in early["states"]
    assert read_json(Path(early["out"]) / "manifest.json")["model_version"] == "m1"
    assert Path(early["out"]) != Path(plain["out"])


def test_what_is_foreseen_of_what_is_open_makes_rewards_that_values_of_titles_are_learned_from(
    settings: Settings, late: Path
) -> None:
    plain = settings.model_copy(
        update={
            "delayed": DelayedConfig(hidden=(8,), code_width=2),
            "delayed_training": DelayedTrainingConfig(epochs=2, batch_size=512, executor="plain"),
            "tracking": TrackingConfig(enabled=False),
        }
    )
    join(settings, as_of=MIDDLE.isoformat(), spread=here)  # what was known earlier is a landmark of what is newest
    told = foresee(plain, feedback=("play", "complete", "thumb_up", "thumb_down"), now=MIDDLE)
    assert told["outcomes"] == late.name
    assert set(told["models"]) == {"play", "complete", "thumb_up", "thumb_down"}
    programs = Path(__file__).parents[2] / "deployments" / "rewards.yaml"
    early = compute(settings, program="long_term_early", programs=programs, predicted=told["version"], spread=here)
    assert early["model_version"] == told["version"]
    assert early["states"]["predicted"] > 0
    assert "no_prediction" not in early["states"]
    rows = pl.DataFrame(pl.from_arrow(read_rewards(Path(early["out"]))))
    known = rows.filter(pl.col("reward").is_not_null())
    guessed = known.filter(pl.col("reward_state") == "predicted")["reward"]
    assert guessed.is_between(-0.75, 0.75).all()
    assert guessed.n_unique() > 10
    codes = known["title_id"].rank("dense").to_numpy().astype(np.int64) - 1
    values = learn(
        known["reward"].to_numpy(), codes, np.zeros(len(known)), known["position"].to_numpy().astype(np.int64),
        num_titles=int(codes.max()) + 1, edges_G=np.array([0.5]),
    )  # fmt: skip
    assert np.isfinite(values.value_NG).all()
    with pytest.raises(ValueError, match="--feedback abandon: wanted one of click"):
        foresee(plain, feedback=("abandon",), now=MIDDLE)
    with pytest.raises(ValueError, match="wanted each once"):
        foresee(plain, feedback=("play", "play"), now=MIDDLE)


def test_programs_and_fields_are_listed(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    programs = Path(__file__).parents[2] / "deployments" / "rewards.yaml"
    told: dict[str, Any] = compute(settings, programs=programs)
    assert {"clicks", "long_term"} <= {one["name"] for one in told["programs"]}
    assert "return_7d" in json.dumps(told["fields"])
    assert "long_term" in capsys.readouterr().err


def test_who_is_deleted_leaves_the_outcomes_that_were_written_and_what_was_predicted_of_them(
    settings: Settings, late: Path
) -> None:
    there = frame(late)
    member = there["actor_id"][0]
    own = set(there.filter(pl.col("actor_id") != member)["decision_id"])
    assert set(there["decision_id"]) > own
    predicted = settings.tables.predicted / late.name / "v1"
    for file in parquet_files(late):
        write_parquet(read_parquet(file, columns=["decision_id", "title_id"]), predicted / file.name)
    rounds = settings.tables.learned / "v1" / "rounds" / "learned.parquet"  # as was once kept, of nobody in particular
    write_parquet(there.select("decision_id").to_arrow(), rounds)
    until = 4_000_000_000_000_000
    assert forget(settings.tables.root, {member: until}) > len(there)
    assert not rounds.exists()
    assert member not in set(frame(late)["actor_id"])
    assert set(frame(predicted)["decision_id"]) == own
    assert forget(settings.tables.root, {member: until}) == 0


def test_without_decisions_it_is_said_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run `foretaste serve` or `foretaste prepare` first"):
        join(Settings(workspace=tmp_path))
    with pytest.raises(FileNotFoundError, match="run `foretaste outcomes` first"):
        latest(tmp_path / "outcomes")
