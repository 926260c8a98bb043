"""What training releases, and what it leaves alone."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from foretaste.cli import main
from foretaste.feedback.decision_log import DecisionLog
from foretaste.feedback.session_log import microseconds
from foretaste.jobs.model_registry import named_in_mlflow
from foretaste.jobs.releases import listed, promote, release_trained, rollback
from foretaste.jobs.settings import Settings
from foretaste.ops.bundles import fetch_bundle, file_bundle
from foretaste.ops.releases import current_release, releases, rollout
from foretaste.testing.bundles import file_intent, file_ranker
from foretaste.testing.decisions import decision
from foretaste.testing.fakes import NOW, two_genre_titles
from foretaste.training.config import TrackingConfig


class Trains:
    """Files models as training does, a minute apart."""

    def __init__(self, workspace: Path) -> None:
        self.settings = Settings(workspace=workspace, tracking=TrackingConfig(enabled=False))
        self.registry = self.settings.tables.registry
        self.now = NOW
        self.number = 0

    def train(self, *names: str) -> str | None:
        self.number += 1
        self.now += timedelta(minutes=1)
        if "intent" in names:
            file_intent(self.registry, two_genre_titles(), at=self.now, seed=self.number)
        if "ranker" in names:
            file_ranker(self.registry, intent=fetch_bundle(self.registry, "intent").fingerprint, at=self.now)
        if "session_knn" in names:
            with file_bundle(self.registry, "session_knn", at=self.now, about={}) as folder:
                (folder / "index").write_text(str(self.number))
        return release_trained(self.settings, names, now=self.now)

    def answering(self) -> dict[str, str]:
        found = current_release(self.registry)
        assert found is not None
        return dict(found.models)


def test_what_is_trained_together_answers_together(tmp_path: Path) -> None:
    made = Trains(tmp_path)
    name = made.train("intent", "ranker", "session_knn")
    assert made.answering().keys() == {"intent", "ranker", "session_knn"}
    assert listed(made.settings)["current"] == name


def test_a_new_intent_model_waits_for_its_ranker_and_is_released_with_it(tmp_path: Path) -> None:
    made = Trains(tmp_path)
    made.train("intent", "ranker")
    before = made.answering()
    assert made.train("intent") is None
    assert made.answering() == before
    made.train("ranker")
    assert made.answering()["intent"] == fetch_bundle(made.registry, "intent").version != before["intent"]


def test_training_another_model_does_not_bring_back_what_was_taken_back(tmp_path: Path) -> None:
    made = Trains(tmp_path)
    made.train("intent", "ranker", "session_knn")
    good = made.answering()
    made.train("intent", "ranker", "session_knn")
    rollback(made.settings)
    assert made.answering() == good
    made.train("session_knn")
    found = made.answering()
    assert (found["intent"], found["ranker"]) == (good["intent"], good["ranker"])
    assert found["session_knn"] == fetch_bundle(made.registry, "session_knn").version


def test_without_an_intent_model_nothing_is_released(tmp_path: Path) -> None:
    made = Trains(tmp_path)
    assert made.train("session_knn") is None
    assert current_release(made.registry) is None
    made.train("intent")
    assert made.answering().keys() == {"intent", "session_knn"}


def test_an_earlier_release_can_be_promoted_again(tmp_path: Path) -> None:
    made = Trains(tmp_path)
    first = made.train("intent", "ranker")
    assert first is not None
    made.train("intent", "ranker")
    assert promote(made.settings, first)["current"] == first


def test_training_does_not_end_the_arms_of_a_comparison(tmp_path: Path) -> None:
    made = Trains(tmp_path)
    first, second = made.train("intent", "ranker"), made.train("intent", "ranker")
    assert first is not None
    promote(made.settings, first, share=0.25, arm="b")
    assert made.train("intent", "ranker") is None
    found = rollout(made.registry)
    assert found is not None
    assert (found.current, found.shares) == (second, {"b": 0.25, "main": 0.75})
    assert len(releases(made.registry)) == 3


def test_arms_and_shadows_are_listed_checked_and_taken_back(tmp_path: Path) -> None:
    made = Trains(tmp_path)
    first, second = made.train("intent", "ranker"), made.train("intent", "ranker")
    assert first is not None
    assert listed(made.settings, check=True)["ok"] is True
    assert promote(made.settings, first, share=0.5)["shares"] == {"canary": 0.5, "main": 0.5}
    assert promote(made.settings, first, shadow=True)["shadow"] == first
    now = datetime.now(UTC) + timedelta(minutes=10)
    with closing(DecisionLog(made.settings.tables.serving / "decisions", clock=lambda: now)) as log:
        for number in range(60):
            arm = "canary" if number % 2 else "main"
            log.append(decision(f"d{number}", member_id=f"m{number}", experiment_arm=arm, at=microseconds(now)))
    found = listed(made.settings, check=True)
    assert (found["ok"], found["units"], found["shadow"]) == (True, {"canary": 30, "main": 30}, first)
    with closing(DecisionLog(made.settings.tables.serving / "decisions", clock=lambda: now)) as log:
        for number in range(60, 120):
            log.append(decision(f"d{number}", member_id=f"m{number}", experiment_arm="main", at=microseconds(now)))
    asked = ["releases", "--check", "--workspace", str(tmp_path), "--set", "tracking.enabled=false"]
    assert main(asked) == 1
    assert rollback(made.settings)["shares"] == {}
    assert main(asked) == 0
    assert rollback(made.settings, first)["shadow"] is None
    with pytest.raises(ValueError, match="nothing to take back"):
        rollback(made.settings, first)
    for wrong in ({"arm": "b"}, {"shadow": True, "share": 0.5}):
        with pytest.raises(ValueError, match="--share"):
            promote(made.settings, first, **wrong)
    assert promote(made.settings, first)["current"] == first
    assert second is not None


@pytest.mark.slow
def test_mlflow_mirrors_what_is_rolled_out_and_its_aliases_can_be_promoted(tmp_path: Path) -> None:
    made = Trains(tmp_path)
    first, second = made.train("intent", "ranker"), made.train("intent", "ranker")
    assert first is not None
    assert second is not None
    on = made.settings.model_copy(update={"tracking": TrackingConfig()})
    promote(on, first, share=0.1)
    assert listed(on, mirrored=True)["mlflow"] == {"champion": second, "challenger": first}
    assert (named_in_mlflow(on, "champion"), named_in_mlflow(on, "challenger")) == (second, first)
    assert promote(on, "@challenger")["current"] == first
    assert named_in_mlflow(on, "champion") == first
    with pytest.raises(ValueError, match="no alias 'challenger'"):
        named_in_mlflow(on, "challenger")
    rollback(on)
    assert named_in_mlflow(on, "champion") == second
    bad = on.model_copy(update={"tracking": TrackingConfig(uri=f"sqlite:///{tmp_path}/nowhere/x/mlflow.db")})
    assert promote(bad, first)["current"] == first, "what answers does not wait for a mirror"
