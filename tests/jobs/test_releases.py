"""What training releases, and what it leaves alone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from foretaste.jobs.releases import listed, promote, release_trained, rollback
from foretaste.jobs.settings import Settings
from foretaste.ops.bundles import fetch_bundle, file_bundle
from foretaste.ops.releases import current_release
from foretaste.testing.bundles import file_intent, file_ranker
from foretaste.testing.fakes import NOW, two_genre_titles


class Trains:
    """Files models as training does, a minute apart."""

    def __init__(self, workspace: Path) -> None:
        self.settings = Settings(workspace=workspace)
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
