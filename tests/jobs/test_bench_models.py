"""The benchmark of models, small: what it finds, that it goes on where it stopped, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretaste.cli import main
from foretaste.contracts.intents import Intent, possible_classes
from foretaste.evaluation.ranking import check_blind
from foretaste.jobs import bench_models_cells
from foretaste.jobs.bench import bench
from foretaste.jobs.bench_models_cells import Comparison
from foretaste.jobs.bench_models_data import log
from foretaste.jobs.bench_models_names import LADDER, model_names, network_config, networks
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.settings import Settings
from foretaste.models.baselines import BASELINES
from foretaste.models.intent import IntentModel, IntentRecommender
from foretaste.models.zoo import NETWORKS
from foretaste.ops.files import read_json

TINY: dict[str, Any] = {
    "world": {"num_members": 150, "days": 28},
    "training": {"epochs": 1, "validation_cases": 50},
    "intent": {"width": 16, "max_length": 20},
}
MODELS = ("popularity", "markov", "v0", "v3")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A workspace of its own, used by all tests here: what one has made the next finds."""
    torch.set_num_threads(1)
    return Settings.model_validate(TINY | {"workspace": tmp_path_factory.mktemp("bench")})


def options(**asked: Any) -> BenchOptions:
    """A benchmark of models."""
    return BenchOptions(name="models", **({"models": MODELS, "seeds": 1} | asked))


@pytest.fixture(scope="module")
def found(settings: Settings) -> dict[str, Any]:
    """One small ladder."""
    return bench(settings, options())["figures"]["time"]  # type: ignore[no-any-return]


def test_the_ladder_has_a_row_of_every_model_with_costs_of_those_that_are_trained(found: dict[str, Any]) -> None:
    assert set(found["models"]) == {*MODELS, "recent_popularity"}, "popularity of the last days is always beside"
    for name, row in found["models"].items():
        assert 0 < row["ndcg@10"]["value"] < row["hr@10"]["value"] < 1
        assert row["ndcg@10 with the target last among equals"] <= row["ndcg@10"]["value"]
        assert (row.get("parameters", 0) > 0) == (name not in BASELINES)
        assert ("ndcg@10 difference" in row) == (name != found["against"])
    trained = found["models"]["v3"]
    assert found["models"]["v0"]["intents"] == {}, "its heads are off: N/A in the table"
    assert trained["cpu_seconds_to_best"] > 0
    assert {"genre", "kind"} <= set(trained["intents"])
    assert found["protocol"]["split"] == "time"
    assert "strict" in found["rules"]


def test_the_table_says_the_rules_and_shows_every_model(found: dict[str, Any]) -> None:
    folder = Path(found["folder"])
    text = (folder / "table.md").read_text()
    assert text.startswith("# world: global time split, all targets of a member")
    assert all(f"| {name} |" in text for name in found["models"])
    assert "N/A: the head is off" in text
    assert read_json(folder / "figures.json")["models"].keys() == found["models"].keys()
    assert "<svg" in (folder / "table.svg").read_text()


def test_what_was_answered_is_not_asked_again_and_what_is_missing_is(
    settings: Settings, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise AssertionError("a finished cell was trained again")

    monkeypatch.setattr(bench_models_cells, "train_intent", refuse)
    again = bench(settings, options())["figures"]["time"]
    assert again["models"] == found["models"]
    first = bench(settings, options(targets="first"))["figures"]["time"]
    assert first["cases"] < found["cases"], "other questions are asked of the models that are there"
    comparison = Comparison(settings, options(), "world", "time")
    lost = next((comparison.folder / "cells").glob("markov-s0-*"))
    shutil.rmtree(lost)
    assert bench(settings, options())["figures"]["time"]["models"] == found["models"]
    with pytest.raises(AssertionError, match="trained again"):
        bench(settings, options(models=("v0",), seeds=2))
    other = settings.model_copy(update={"intent": settings.intent.model_copy(update={"width": 8})})
    with pytest.raises(AssertionError, match="trained again"):
        bench(other, options(models=("v0",)))


def test_code_that_a_model_depends_on_is_part_of_its_key(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = Comparison(settings, options(), "world", "time")
    before = comparison.cell("markov", 0)
    monkeypatch.setattr(bench_models_cells, "code_of_training", lambda config: "other")
    after = comparison.cell("markov", 0)
    assert before.about != after.about
    np.testing.assert_array_equal(before.rank_B, after.rank_B)


def test_shuffled_ties_and_the_blind_track_are_other_cells(settings: Settings, found: dict[str, Any]) -> None:
    blind = bench(settings, options(models=("vstan", "markov"), track="blind", ties="shuffled", seeds=2))["figures"][
        "time"
    ]
    assert blind["protocol"] | {"track": "blind", "ties": "shuffled", "ties_seed": 0} == blind["protocol"]
    assert blind["models"]["vstan"]["seeds"] == 2, "the order of ties is drawn anew by every seed"
    assert "over_both" not in blind["models"]["markov"]["ndcg@10 difference"]
    text = (Path(blind["folder"]) / "table.md").read_text()
    assert "recent_popularity (beside: it knows the time)" in text
    assert "time-blind track" in text


@pytest.mark.parametrize("name", NETWORKS)
def test_no_network_of_the_blind_track_reads_the_time_of_the_question(
    name: str, settings: Settings, found: dict[str, Any]
) -> None:
    comparison = Comparison(settings, options(track="blind"), "world", "time")
    given, asked = comparison.log(), comparison.cases()
    classes: dict[Intent, tuple[str, ...]] = dict(possible_classes(given.catalogue, given.labels))
    for track in ("blind", "aware"):
        rules = comparison.protocol().model_copy(update={"track": track})
        config = network_config(settings, name, rules, quick=True)
        model = IntentRecommender(
            IntentModel(config, given.catalogue, classes, given.labels), given.catalogue, given.labels
        )
        model.name = name
        assert model.time_aware == (track == "aware")
        if track == "blind":
            check_blind(model, asked)


def test_the_session_part_loses_what_the_session_tells(settings: Settings, found: dict[str, Any]) -> None:
    part = bench(settings, options(part="session", models=("vstan", "v3")))
    lift = part["figures"]["lift"]
    (everything, inside) = lift
    assert lift[everything]["recent_popularity"]["gap"]["value"] == 0, "it does not read the history"
    assert lift[inside]["vstan"]["whole"]["value"] != lift[inside]["vstan"]["cut"]["value"]
    assert 0 < part["figures"]["counts"][inside] < part["figures"]["counts"][everything]
    assert any("v3 over itself" in bar for bar in part["bars"])
    assert any("v3 - vstan" in bar for bar in part["bars"])


def test_the_session_part_refuses_models_that_it_cannot_ask_without_the_session(settings: Settings) -> None:
    with pytest.raises(ValueError, match="rectools-sasrec cannot be asked without the session"):
        bench(settings, options(part="session", models=("vstan", "rectools-sasrec")))


def test_the_worlds_part_says_what_it_could_not_measure(settings: Settings) -> None:
    part = bench(settings, options(part="worlds", models=("popularity",)))
    assert set(part["figures"]) == {"world", "world-aspects", "world-control"}
    assert part["bars"] == {}
    assert len(part["skipped"]) == 12
    assert all(part["skipped"].values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--models", "markov,bert5"], "bert5"),
        (["--models", "markov,markov"], "once"),
        (["--models", "markov", "--against", "vstan"], "--against vstan"),
        (["--models", "markov", "--split", "last", "--targets", "all"], "one target a member"),
        (["--models", "markov", "--data", "deskdrop"], "deskdrop needs --from PATH"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(
    arguments: list[str], words: str, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--set", f"world={json.dumps(TINY['world'])}"]
    assert main(["bench", "models", *arguments, *small, "--workspace", str(settings.workspace)]) == 2
    assert words in capsys.readouterr().err


def test_the_ladder_takes_what_there_is_and_the_yardstick_comes_first() -> None:
    names = model_names(None)
    assert names[0] == "recent_popularity"
    assert set(names[1:]) == {name for name in LADDER if name in (*BASELINES, *networks())}


def test_a_world_that_changed_is_made_again(settings: Settings) -> None:
    first = log(settings, options(), "world").fingerprint
    assert log(settings, options(), "world").fingerprint == first
    other = settings.model_copy(update={"world": settings.world.model_copy(update={"seed": 8})})
    assert log(other, options(), "world").fingerprint != first
    assert log(settings, options(), "world").fingerprint == first
