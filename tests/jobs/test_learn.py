"""`foretaste learn`: rewards and decisions in, a ranker that waits and a report of what it would have earned."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from foretaste.jobs.learn import learned, rewards_folder
from foretaste.jobs.settings import Settings
from foretaste.ops.bundles import fetch_bundle
from foretaste.ops.files import read_json, write_json, write_parquet
from foretaste.ops.releases import current_release, releases
from foretaste.testing.learning import NOW, NothingKnown, even_decisions, trained_workspace
from foretaste.training.config import LearnTrainingConfig, TrackingConfig
from foretaste.training.off_policy import LearnConfig
from foretaste.training.off_policy_objectives import Objective

PLAIN = LearnTrainingConfig(executor="plain", epochs=8, batch_size=256, learning_rate=0.03, num_workers=1)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = trained_workspace(tmp_path_factory.mktemp("learning"))
    decisions, rewards = even_decisions(1_500)
    write_parquet(decisions, root / "serving" / "decisions" / "20260120T000000-1-aaaaaaaa-000000.parquet")
    folder = root / "rewards" / "old" / "v0001" / "20260201T000000000000Z-aaaaaaaaaaaa"
    write_parquet(rewards, folder / "bucket-00000.parquet")
    about = {"program": {"name": "old", "version": 1}, "program_fingerprint": "f", "outcomes": folder.name}
    write_json(about | {"model_version": None}, folder / "manifest.json")
    return Settings(workspace=root, tracking=TrackingConfig(enabled=False))


def test_it_files_a_ranker_that_waits_with_a_release_and_says_what_it_would_have_earned(settings: Settings) -> None:
    tables = settings.tables
    before = fetch_bundle(tables.registry, "ranker").version
    config = LearnConfig(objective=Objective.DR, training=PLAIN, temperature=0.5)
    folder = rewards_folder(tables.rewards, None, None)
    found = learned(settings, folder, config, NothingKnown(), now=NOW + timedelta(hours=1))
    assert fetch_bundle(tables.registry, "ranker").version == before == found["learned_from"]
    assert current_release(tables.registry) is None
    assert [(one.name, one.models["ranker"]) for one in releases(tables.registry)] == [
        (found["release"], found["ranker"])
    ]
    assert found["learned"]["answers"], found["learned"]["reasons"]
    assert found["learned"]["interval"]["low"] > found["logged"]
    out = Path(found["out"])
    assert read_json(out / "report.json")["ranker"] == found["ranker"]
    assert [path.name for path in out.rglob("*")] == ["report.json"]  # nothing that a deletion would have to reach


def test_which_rewards_are_meant_is_said_or_asked(settings: Settings, tmp_path: Path) -> None:
    root = settings.tables.rewards
    newest = root / "old" / "v0001" / "20260201T000000000000Z-aaaaaaaaaaaa"
    assert rewards_folder(root, None, "old") == newest == rewards_folder(root, newest, None)
    with pytest.raises(FileNotFoundError, match="wanted rewards of young, found old"):
        rewards_folder(root, None, "young")
    with pytest.raises(FileNotFoundError, match="found none: run `foretaste rewards` first"):
        rewards_folder(tmp_path, None, None)
    with pytest.raises(FileNotFoundError, match="holds no rewards"):
        rewards_folder(root, tmp_path, None)
    with pytest.raises(ValueError, match="wanted one of them"):
        rewards_folder(root, newest, "old")
    for name in ("a", "b"):
        write_json({}, tmp_path / name / "v0001" / "x" / "manifest.json")
    with pytest.raises(ValueError, match="has rewards of a, b: name one by --program"):
        rewards_folder(tmp_path, None, None)
