"""What a reference library is asked, and how its answers become scores, with a program in its place."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.events import PLAY_LIKE
from foretaste.evaluation.cases import Cases, cases
from foretaste.evaluation.protocols import Protocol
from foretaste.evaluation.ranking import evaluate
from foretaste.jobs.reference import ReferenceRecommender, ReferenceResult, Rows, train_reference, training_rows
from foretaste.jobs.reference_models import ReferenceConfig, ReferenceModel
from foretaste.testing.builders import interactions_table, titles_table

SASREC = ReferenceModel(name="rectools-sasrec", kind="sasrec")
CATALOGUE = catalogue(titles_table([{"title_id": name} for name in "abcdef"]))
A, B, C, D, E, F = range(1, 7)
TABLE = interactions_table(
    [
        ("m0", 0, "a"), ("m0", 1, "b"), ("m0", 2, "zzz"), ("m0", 3, "c"), ("m0", 4, "d"),
        ("m1", 0, "b"), ("m1", 1, "c", "detail"), ("m1", 2, "b"), ("m1", 3, "a"), ("m1", 4, "b"),
        ("m2", 2, "c"), ("m2", 3, "e"),
    ]
)  # fmt: skip

PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np

folder = Path(sys.argv[1])
settings = json.loads((folder / "settings.json").read_text())
given = np.load(folder / "input.npz")
size = settings["num_titles"]
known = np.zeros(size, dtype=bool)
known[np.unique(given["train_title_T"]) - 1] = True
states, cold = np.zeros((len(given["case_asof_B"]), size), dtype=np.float32), []
for row, (start, stop) in enumerate(zip(given["case_start_B"], given["case_stop_B"])):
    seen = [title for title in given["title_T"][start:stop] if title > 0 and known[title - 1]]
    cold.append(not seen)
    for title in seen:
        states[row, title % size] += 1  # the next title of the catalogue is the likeliest
print(json.dumps({"number": 1, "validation": len(given["validation_target_B"])}))
np.savez(folder / "output.npz", state_BD=states, title_ND=np.eye(size, dtype=np.float32), known_N=known, cold_B=cold)
(folder / "result.json").write_text(json.dumps({"best_epoch": 1, "weights": given["train_weight_T"].tolist()}))
"""


@pytest.fixture
def config(tmp_path: Path) -> ReferenceConfig:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    return ReferenceConfig(python=Path(sys.executable), program=program, timeout_seconds=60)


def ask(which: Any = "test") -> Cases:
    return cases(TABLE, CATALOGUE, split="last", target_actions=PLAY_LIKE, which=which)


def train(config: ReferenceConfig, said: list[dict[str, Any]] | None = None) -> ReferenceResult:
    asked = ask()
    return train_reference(
        SASREC, training_rows(TABLE, asked, target_actions=PLAY_LIKE), asked, ask("validation"),
        validation_rows_V=np.array([0, 1]), exclude_seen=False, config=config,
        on_epoch=(said if said is not None else []).append,
    )  # fmt: skip


def test_training_rows_are_those_of_the_split_with_known_titles_and_only_choices_are_predicted() -> None:
    rows = training_rows(TABLE, ask(), target_actions=PLAY_LIKE)
    assert rows.actor_T.tolist() == [0, 0, 1, 1, 1]
    assert rows.title_T.tolist() == [A, B, B, C, B]
    assert rows.choice_T.tolist() == [True, True, True, False, True]
    refit = training_rows(TABLE, ask(), target_actions=PLAY_LIKE, fit_on=("train", "validation"))
    assert refit.title_T.tolist() == [A, B, C, B, C, B, A, C]


def test_the_program_is_told_of_what_is_only_read_and_its_epochs_are_told_on(config: ReferenceConfig) -> None:
    said: list[dict[str, Any]] = []
    result = train(config, said)
    assert said == [{"number": 1, "validation": 2}]
    assert result.facts["weights"] == [1.0, 1.0, 1.0, 0.0, 1.0]
    assert (result.facts["kind"], result.facts["best_epoch"]) == ("sasrec", 1)


def test_a_title_that_the_model_does_not_know_stands_last(config: ReferenceConfig) -> None:
    model, asked = train(config).recommender, ask()
    scores_BN = model.scores(asked.histories, asked.asof_B)
    assert np.isfinite(scores_BN).all()
    known = scores_BN[:2, [A - 1, B - 1, C - 1]]
    assert (scores_BN[:2, [D - 1, E - 1, F - 1]] < known.min(axis=1, keepdims=True)).all()


def test_scores_are_found_by_history_and_instant_in_any_order(config: ReferenceConfig) -> None:
    model, asked = train(config).recommender, ask()
    straight = model.scores(asked.histories, asked.asof_B)
    order = np.array([1, 0, 1])
    assert np.array_equal(model.scores(asked.histories.rows(order), asked.asof_B[order]), straight[order])
    assert straight[:2].argmax(axis=1).tolist() == [B - 1, C - 1]  # m0 has seen a and b, m1 b most often


def test_a_history_that_the_model_knows_nothing_of_gets_the_popular_titles(config: ReferenceConfig) -> None:
    asked = ask()
    result = train(config)
    cold = ReferenceRecommender(
        SASREC, result.recommender.found | {"cold_B": np.array([False, False, True])}, asked,
        np.array([1, 3, 0, 0, 0, 0]),
    )  # fmt: skip
    assert cold.scores(asked.histories, asked.asof_B)[2].tolist() == [1, 3, 0, 0, 0, 0]


@pytest.mark.parametrize("time_aware", [False, True])
def test_another_history_is_refused_and_another_instant_where_the_model_reads_it(
    config: ReferenceConfig, time_aware: bool
) -> None:
    asked, found = ask(), train(config).recommender.found
    of = ReferenceModel(name="rectools-hstu", kind="hstu", time_aware=time_aware)
    model = ReferenceRecommender(of, found, asked, np.zeros(6, dtype=np.int64))
    with pytest.raises(KeyError, match="rectools-hstu: was not asked about history 0"):
        model.scores(asked.batch(0, 1).last(1), asked.asof_B[:1])
    later = asked.asof_B + np.array([0, 1, 0])
    if time_aware:
        with pytest.raises(KeyError, match="was not asked about history 1"):
            model.scores(asked.histories, later)
    else:
        assert np.array_equal(model.scores(asked.histories, later), model.scores(asked.histories, asked.asof_B))


def test_it_stands_beside_our_models_and_keeps_to_the_track(config: ReferenceConfig) -> None:
    model, asked = train(config).recommender, ask()
    blind = Protocol.of("last", track="blind", exclude_seen=False)
    report = evaluate([model], asked, protocol=blind, seed=0, advance=lambda n: None, resamples=100)
    assert report.figures["rectools-sasrec"]["hr@5"].value > 0
    timed = ReferenceRecommender(
        ReferenceModel(name="rectools-hstu", kind="hstu", time_aware=True), model.found, asked, np.zeros(6, np.int64)
    )
    with pytest.raises(ValueError, match="rectools-hstu reads the time"):
        evaluate([timed], asked, protocol=blind, seed=0, advance=lambda n: None, resamples=100)


def test_without_the_environment_it_says_how_to_make_it(tmp_path: Path, config: ReferenceConfig) -> None:
    with pytest.raises(FileNotFoundError, match="`make references` installs them"):
        train(config.model_copy(update={"python": tmp_path / "none" / "python"}))
    with pytest.raises(FileNotFoundError, match=r"references\.program"):
        train(config.model_copy(update={"program": tmp_path / "none.py"}))


def test_cases_and_validation_of_different_interactions_are_refused(config: ReferenceConfig) -> None:
    asked = ask()
    other = cases(TABLE.slice(0, 10), CATALOGUE, split="last", target_actions=PLAY_LIKE, which="validation")
    none = np.zeros(0, dtype=np.int64)
    rows = Rows(none, none.astype(np.int32), none, none.astype(np.bool_))
    with pytest.raises(ValueError, match="of the same interactions"):
        train_reference(
            SASREC, rows, asked, other, validation_rows_V=np.zeros(0, np.int64),
            exclude_seen=False, config=config, on_epoch=print,
        )  # fmt: skip
