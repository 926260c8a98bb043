"""The closed loop: each step once, whatever kills it; what the gate holds back does not answer."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from foretaste.evaluation.gate import Judgement, Verdict
from foretaste.evaluation.intervals import Difference, Figure
from foretaste.evaluation.report import Report, write_report
from foretaste.jobs import evaluate, features, prepare, releases, train
from foretaste.jobs.retrain import retrain
from foretaste.jobs.settings import Settings
from foretaste.ops import releases as filed
from foretaste.ops.bundles import fetch_bundle
from foretaste.ops.files import read_json
from foretaste.ops.releases import current_release
from foretaste.testing.bundles import file_intent, file_ranker
from foretaste.testing.fakes import two_genre_titles

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def figure(value: float) -> Figure:
    return Figure(value, value, value)


class Steps:
    """Steps that do what the real ones leave behind, and count."""

    def __init__(self, settings: Settings, patch: pytest.MonkeyPatch) -> None:
        self.settings, self.counts, self.kill_at = settings, Counter[str](), ""
        self.ranks, self.seed = 0.05, 0
        self.verdict = Judgement(Verdict.PROMOTE, ("as the test has it",))
        patch.setattr(prepare, "prepare", lambda settings: self.did("prepare"))
        patch.setattr(features, "features", lambda settings: self.did("features"))
        patch.setattr(train, "train", self.train)
        patch.setattr(evaluate, "evaluate", self.evaluate)

    def did(self, what: str) -> dict[str, Any]:
        self.counts[what] += 1
        if what == self.kill_at:
            raise KeyboardInterrupt
        return {"did": what, "path": Path("x")}

    def train(self, settings: Settings, *, model: str, release: bool) -> dict[str, Any]:
        assert not release
        registry, at = settings.tables.registry, NOW + timedelta(minutes=self.counts["intent"])
        if model == "intent":
            self.seed += 1
            file_intent(registry, two_genre_titles(), at=at, seed=self.seed)
        elif model == "ranker":
            file_ranker(registry, intent=fetch_bundle(registry, "intent").fingerprint, at=at, seed=self.seed)
        return self.did(model)

    def evaluate(self, settings: Settings, *, limit: int | None) -> dict[str, Any]:
        gap = Difference(self.ranks, self.ranks - 0.01, self.ranks + 0.01, 0.01, "vstan")
        figures = {"intent": {"ndcg@10": figure(0.3 + self.ranks)}, "vstan": {"ndcg@10": figure(0.3)}}
        report = Report({"k": [10]}, "ndcg@10", "vstan", figures, {"intent": {"ndcg@10": gap}}, {}, {})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Report, "to_html", lambda self: "")
            write_report(report, settings.tables.evaluation)
        return self.did("evaluate")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "rewards.yaml").write_text("programs:\n  completion: {version: 1, reward: play}\n")
    config = {"workspace": tmp_path, "tracking": {"enabled": False}, "rewards": {"programs": tmp_path / "rewards.yaml"}}
    return Settings.model_validate(config)


@pytest.fixture
def steps(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(settings, monkeypatch)


def test_the_first_release_answers_by_its_ranking_and_the_next_waits_for_decisions(
    settings: Settings, steps: Steps
) -> None:
    registry = settings.tables.registry
    first = retrain(settings, now=NOW)
    assert (first["decision"], first["live"]) == ("promote", True)
    assert current_release(registry) is not None
    assert first["answers"] == first["release"]
    second = retrain(settings, now=NOW + timedelta(days=1))
    assert (second["decision"], second["live"]) == ("collect_more_data", False)
    assert "no decision was ever logged" in second["reasons"][0]
    assert second["release"] != first["release"] == second["answers"]
    assert [one.name for one in filed.releases(registry)] == [first["release"], second["release"]]
    answering = filed.releases(registry)[0]
    assert {name: fetch_bundle(registry, name).version for name in ("intent", "ranker")} == dict(answering.models)
    assert read_json(settings.tables.root / "retrain" / second["run"] / "decision.json")["decision"] == (
        "collect_more_data"
    )


def test_what_ranks_worse_is_refused_and_the_current_models_stay(settings: Settings, steps: Steps) -> None:
    first = retrain(settings, now=NOW)
    steps.ranks = -0.1
    second = retrain(settings, now=NOW + timedelta(days=1))
    assert (second["decision"], second["live"], second["answers"]) == ("refuse", False, first["release"])
    assert "ranks worse" in second["reasons"][0]


@pytest.mark.parametrize("killed", ["features", "intent", "ranker", "evaluate"])
def test_a_run_that_was_killed_goes_on_where_it_was(settings: Settings, steps: Steps, killed: str) -> None:
    steps.kill_at = killed
    with pytest.raises(KeyboardInterrupt):
        retrain(settings, now=NOW)
    assert current_release(settings.tables.registry) is None
    steps.kill_at = ""
    other = settings.model_copy(update={"serving": settings.serving.model_copy(update={"epsilon": 0.3})})
    with pytest.raises(ValueError, match="was begun with other settings; --anew begins another run"):
        retrain(other, now=NOW + timedelta(hours=1))
    found = retrain(settings, now=NOW + timedelta(hours=1))
    assert found["live"]
    assert {name: count for name, count in steps.counts.items() if count > 1} == {killed: 2}
    assert found["run"] == f"{NOW:%Y%m%dT%H%M%S%f}"
    again = retrain(settings, now=NOW + timedelta(hours=2))
    assert again["run"] != found["run"]


def test_a_kill_between_promotion_and_its_record_promotes_once(
    settings: Settings, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = releases.promote

    def killed(settings: Settings, release: str) -> dict[str, Any]:
        real(settings, release)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(releases, "promote", killed)
        retrain(settings, now=NOW)
    found = retrain(settings, now=NOW + timedelta(hours=1))
    assert found["live"]
    history = read_json(settings.tables.registry / "releases" / "rollout.json")["history"]
    assert [step["why"] for step in history] == ["promoted"]


def test_a_program_that_is_none_is_said_before_anything_is_trained(settings: Settings, steps: Steps) -> None:
    with pytest.raises(ValueError, match="wanted one of completion, found 'mine'"):
        retrain(settings, program="mine", now=NOW)
    assert not steps.counts
