"""Ours beside a reference library: the same shape and rows, costs of training alone, bars that can fail."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from foretaste.jobs.bench import bench
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_reference import OURS, THEIRS, SideBySide, bars_of, costs_of
from foretaste.jobs.bench_reference_cells import reference_model
from foretaste.jobs.settings import Settings

TINY: dict[str, Any] = {
    "world": {"num_members": 60, "days": 28},
    "training": {"epochs": 2, "validation_cases": 20},
    "intent": {"width": 16},
}

POPULARITY = """
import json, sys
from pathlib import Path
import numpy as np

folder = Path(sys.argv[1])
settings = json.loads((folder / "settings.json").read_text())
given = np.load(folder / "input.npz")
counts = np.bincount(given["train_title_T"], minlength=settings["num_titles"] + 1)[1:].astype(np.float32)
cases = len(given["case_asof_B"])
epochs = []
for number in range(1, settings["epochs"] + 1):
    epochs.append({"number": number, "loss": 1.0, "cpu_seconds": 900.0, "wall_seconds": 1.0, "ndcg": 0.1})
    print(json.dumps(epochs[-1]), flush=True)
np.savez(folder / "output.npz", state_BD=np.ones((cases, 1), np.float32), title_ND=counts[:, None],
         known_N=counts > 0, cold_B=np.zeros(cases, bool))
(folder / "result.json").write_text(json.dumps({
    "epochs": epochs, "best_epoch": 1, "parameters": 7, "sequences": 1, "interactions": 1, "peak_bytes": 2**30,
    "versions": {}}))
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A workspace with a program in the library's place that says how popular titles are."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("references")
    (folder / "program.py").write_text(POPULARITY)
    at = {"python": sys.executable, "program": folder / "program.py"}
    return Settings.model_validate(TINY | {"workspace": folder, "references": at})


def options(**asked: Any) -> BenchOptions:
    """The benchmark with ours and theirs."""
    return BenchOptions(name="models", part="references", **({"seeds": 1, "models": ("sasrec", THEIRS, OURS)} | asked))


@pytest.fixture(scope="module")
def found(settings: Settings) -> dict[str, Any]:
    """One small comparison."""
    return bench(settings, options())["figures"]["time"]  # type: ignore[no-any-return]


def test_both_sides_stand_in_one_table_with_their_costs(found: dict[str, Any]) -> None:
    assert set(found["models"]) == {"recent_popularity", "sasrec", THEIRS, OURS}
    assert found["models"][THEIRS]["cpu_seconds_per_epoch"] == 900.0
    assert found["costs"][THEIRS]["cheaper an epoch"] == 1.0
    assert found["costs"][OURS]["cheaper an epoch"] > 1.0
    assert found["costs"][THEIRS]["peak_gib"] == 1.0
    assert found["against"] == THEIRS
    assert found["bars"] == {}, "in the synthetic service histories are not short"


def test_theirs_has_the_shape_of_ours_and_ours_the_feed_forward_of_theirs(settings: Settings) -> None:
    side = SideBySide(settings, options(), "world", "time")
    ours, theirs = side.network("sasrec", 3), reference_model(side, THEIRS, 3)
    assert (theirs.width, theirs.heads, theirs.length, theirs.dropout) == (
        ours.width, ours.num_attention_heads, ours.max_length, ours.dropout,
    )  # fmt: skip
    assert (theirs.depth, theirs.seed, theirs.epochs) == (2, 3, settings.references.epochs)
    assert ours.feedforward == ours.width
    assert side.network(OURS, 3).full_softmax_titles == 1
    assert reference_model(side, "rectools-hstu", 0).time_aware
    blind = SideBySide(settings, options(track="blind"), "world", "time")
    assert not reference_model(blind, "rectools-hstu", 0).time_aware


def test_ours_takes_as_many_steps_an_epoch_as_theirs_unless_a_step_was_set(settings: Settings) -> None:
    whole = SideBySide(settings, options(), "world", "time").training(0).batch_size
    more = {"references": settings.references.model_copy(update={"batch_size": 20})}
    part = SideBySide(settings.model_copy(update=more), options(), "world", "time").training(0).batch_size
    assert whole is not None
    assert part is not None
    assert part in {-(-whole // 2), -(-whole // 3)}, "128 sequences are one step of sixty members, 20 are two or three"
    said = settings.model_copy(update={"training": settings.training.model_copy(update={"batch_size": 99})})
    assert SideBySide(said, options(), "world", "time").training(0).batch_size == 99


def test_the_bar_needs_both_the_cost_and_the_ranking() -> None:
    def rows(cost: float, ndcg: float) -> dict[str, Any]:
        theirs = {"cpu_seconds_per_epoch": 90.0, "ndcg@10": {"value": 0.2}}
        return {THEIRS: theirs, OURS: {"cpu_seconds_per_epoch": cost, "ndcg@10": {"value": ndcg}}}

    def holds(cost: float, ndcg: float) -> list[bool]:
        return [bar["holds"] for bar in bars_of("log", rows(cost, ndcg)).values()]

    assert [bar["want"] for bar in bars_of("log", rows(3.0, 0.2)).values()] == [">= 30", ">= 0"]
    assert holds(3.0, 0.2) == [True, True]
    assert holds(3.1, 0.2) == [False, True]
    assert holds(3.0, 0.19) == [True, False]
    assert bars_of("log", {THEIRS: {}}) == {}
    assert costs_of({}, {}) == {}


def test_without_the_environment_nothing_is_begun(settings: Settings, tmp_path: Path) -> None:
    missing = settings.model_copy(
        update={"references": settings.references.model_copy(update={"python": tmp_path / "python"})}
    )
    with pytest.raises(FileNotFoundError, match="`make references` installs them"):
        bench(missing, options())
