"""Runs are found again by what they train, and only what is whole of them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pytest
import torch
from safetensors.torch import load_file

from foretaste.models.bodies import HierarchyConfig
from foretaste.models.intent import IntentModelConfig
from foretaste.testing.builders import prepared_folder, random_interactions, titles_table
from foretaste.testing.object_store import s3_server
from foretaste.training import intent
from foretaste.training.checkpoints import RECORDS
from foretaste.training.config import TrackingConfig, TrainingConfig
from foretaste.training.intent import TrainResult, train_intent
from foretaste.training.loop import Epoch
from foretaste.training.runs import Run, run_name

NOW = datetime(2026, 2, 1, tzinfo=UTC)
MODEL = IntentModelConfig(width=8, feedforward=16, body=HierarchyConfig(item_blocks=1), max_length=16)
TRAINING = TrainingConfig(executor="plain", epochs=4, batch_size=256, split="last", patience=99)


class CutOffError(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    titles = titles_table(20)
    table = random_interactions(titles, actors=30, per_actor=10)
    return prepared_folder(tmp_path_factory.mktemp("prepared"), table, titles)


@pytest.fixture(scope="module")
def object_store() -> Iterator[str]:
    pytest.importorskip("moto")
    with s3_server() as query:
        yield f"s3://testing:testing@bucket/some/runs?{query}"


def checkpoint(run: Run, attempt: str, epochs: int, value: float = 0.0) -> str:
    records = {"epochs": [{"number": n + 1} for n in range(epochs)], "best_epoch": epochs}
    run.put(attempt, f"epoch-{epochs:05d}", records, {"network/w": torch.full((3, 2), value)})
    return f"{run.path}/{attempt}/epoch-{epochs:05d}"


def test_the_checkpoint_with_the_most_epochs_is_gone_on_from_whichever_submission_wrote_it(tmp_path: Path) -> None:
    run = Run(tmp_path, "r")
    assert run.newest() is None
    first = run.attempt()
    checkpoint(run, first, 3, 3.0)
    second = run.attempt()
    assert (first[:7], second[:7]) == ("r-0001-", "r-0002-")
    checkpoint(run, second, 1, 1.0)
    found = run.newest()
    assert found is not None
    assert found.checkpoint[1]["network/w"].tolist() == [[3.0, 3.0]] * 3
    checkpoint(run, second, 4, 4.0)
    assert not (tmp_path / "r" / second / "epoch-00001").exists(), "what a submission wrote before goes"
    found = run.newest()
    assert found is not None
    assert len(found.checkpoint[0]["epochs"]) == 4
    run.remove()
    assert run.newest() is None
    assert not (tmp_path / "r").exists()
    run.remove()


@pytest.mark.parametrize("torn", ["shard", "no shard", "records", "no records"])
def test_what_is_half_written_is_left_and_what_was_before_it_is_taken(
    tmp_path: Path, torn: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path, "r")
    checkpoint(run, "r-0001-a", 2, 2.0)
    broken = Path(checkpoint(run, "r-0002-b", 3, 3.0))
    (shard,) = broken.glob("*.safetensors")
    file = shard if "shard" in torn else broken / RECORDS
    if torn.startswith("no"):
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-10])
    with caplog.at_level(logging.WARNING):
        found = run.newest()
    assert found is not None
    assert found.path.endswith("r-0001-a/epoch-00002")
    assert ("not whole" in caplog.text) == (torn in ("shard", "no shard"))
    shutil.rmtree(tmp_path / "r" / "r-0001-a")
    assert run.newest() is None


def test_a_run_is_named_by_what_it_teaches_and_not_by_where() -> None:
    given: dict[str, Any] = {"a": 1, "b": [0.5, None]}
    array = np.arange(6).reshape(2, 3)
    name = run_name("intent", given, MODEL, TRAINING.taught(), array, torch.ones(2))
    elsewhere = TRAINING.model_copy(update={"executor": "ray", "num_workers": 7, "use_gpu": True, "max_failures": 9})
    again = run_name("intent", dict(reversed(given.items())), MODEL, elsewhere.taught(), array.copy(), torch.ones(2))
    assert name == again
    others = [
        run_name("intent", {"a": 2, "b": [0.5, None]}, MODEL, TRAINING.taught(), array, torch.ones(2)),
        run_name("intent", given, MODEL, TRAINING.model_copy(update={"epochs": 5}).taught(), array, torch.ones(2)),
        run_name("intent", given, MODEL, TRAINING.taught(), array.T, torch.ones(2)),
        run_name("intent", given, MODEL, TRAINING.taught(), array, torch.zeros(2)),
    ]
    assert len({name, *others}) == 5
    with pytest.raises(TypeError, match="cannot be named by object"):
        run_name("intent", object())


def run(
    prepared: Path, root: Path, *, runs: str | None = None, stop_at: int = 0, **training: Any
) -> tuple[TrainResult, list[int]]:
    seen: list[int] = []

    def on_progress(epoch: Epoch) -> None:
        seen.append(epoch.number)
        if epoch.number == stop_at:
            raise CutOffError

    result = train_intent(
        prepared, root / "registry", model=MODEL, training=TRAINING.model_copy(update=training), runs=runs,
        storage=root / "runs", tracking=TrackingConfig(enabled=False), now=NOW, on_progress=on_progress,
    )  # fmt: skip
    return result, seen


def same_weights(one: TrainResult, other: TrainResult) -> bool:
    first, second = (load_file(result.bundle.path / "weights.safetensors") for result in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_goes_on_from_the_object_store_where_nothing_else_is_left(
    prepared: Path, tmp_path: Path, object_store: str
) -> None:
    whole, _ = run(prepared, tmp_path / "whole")
    with pytest.raises(CutOffError):
        run(prepared, tmp_path / "first", runs=object_store, stop_at=2)
    assert not (tmp_path / "first").exists()
    moved = shutil.copytree(prepared, tmp_path / "elsewhere")
    again, seen = run(moved, tmp_path / "second", runs=object_store)
    assert seen == [3, 4]
    assert same_weights(whole, again)
    assert not (tmp_path / "second" / "runs").exists()
    place, _, query = object_store.partition("?")
    store, path = pafs.FileSystem.from_uri(f"{place}?{query}")
    left = store.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
    assert [one.path for one in left if one.type == pafs.FileType.File] == [], "filed: nothing to go on from"


def test_a_store_that_does_not_answer_is_no_run_that_begins_anew(prepared: Path, tmp_path: Path) -> None:
    nowhere = "s3://testing:testing@bucket/runs?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1"
    with pytest.raises(OSError, match="ListObjectsV2"):
        run(prepared, tmp_path, runs=nowhere)


def test_what_was_trained_and_not_filed_is_filed_without_training(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: Any, **__: Any) -> Any:
        raise CutOffError

    with monkeypatch.context() as patched:
        patched.setattr(intent, "file_bundle", cut_off)
        with pytest.raises(CutOffError):
            run(prepared, tmp_path, refit=True)
    result, seen = run(prepared, tmp_path, refit=True)
    assert seen == []
    assert len(result.epochs) == 4
    assert list((tmp_path / "runs").iterdir()) == []
    _, seen = run(prepared, tmp_path, refit=True)
    assert seen[:4] == [1, 2, 3, 4], "a run that was filed is over"


def test_a_run_begins_anew_where_that_is_wanted(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(CutOffError):
        run(prepared, tmp_path, stop_at=2)
    _, seen = run(prepared, tmp_path, resume=False)
    assert seen == [1, 2, 3, 4]
