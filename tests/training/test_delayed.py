"""A model of delayed feedback is trained by the one loop, here or on Ray, and filed with a version."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from foretaste.models.delayed import DelayedConfig
from foretaste.models.delayed_rows import Pending
from foretaste.rewards.predicted import chances, fetch_predictor, predictions
from foretaste.testing.pending import random_pending
from foretaste.training.config import TrackingConfig, TrainingConfig
from foretaste.training.delayed import DelayedResult, train_delayed

NOW = datetime(2026, 2, 1, tzinfo=UTC)
MODEL = DelayedConfig(hidden=(16,), code_width=2)
TRAINING = TrainingConfig(
    epochs=3, batch_size=128, select_by="loss", executor="plain", num_workers=1, cpus_per_worker=0.5
)


def parts(number: int = 4, each: int = 300) -> list[Pending]:
    whole = random_pending(number * each, seed=1)
    return [whole.rows(slice(n * each, (n + 1) * each)) for n in range(number)]


def run(root: Path, training: TrainingConfig, now: datetime = NOW) -> DelayedResult:
    return train_delayed(
        parts(), root / "registry", what="complete", signals=("started", "fraction"), model=MODEL, training=training,
        storage=root / "runs", tracking=TrackingConfig(enabled=False), now=now, on_progress=lambda epoch: None,
    )  # fmt: skip


def losses(result: DelayedResult) -> list[float]:
    return [epoch["loss"] for epoch in result.epochs]


def test_it_learns_and_its_predictions_carry_its_version(tmp_path: Path) -> None:
    result = run(tmp_path, TRAINING)
    assert losses(result)[-1] < losses(result)[0]
    assert result.epochs[-1]["metrics"]["loss"] > 0
    predictor = fetch_predictor(tmp_path / "registry", "complete")
    assert predictor.version == result.bundle.version
    assert result.bundle.manifest["about"]["signals"] == ["started", "fraction"]
    some = parts()[0].rows(slice(0, 3))
    table = predictions(predictor, some, decision_ids=["a", "b", "c"], title_ids=["x", "y", "z"], as_of=NOW)
    assert table.column_names == ["decision_id", "title_id", "as_of", "model_version", "predicted_complete"]
    assert set(table["model_version"].to_pylist()) == {result.bundle.version}
    assert np.array_equal(table["predicted_complete"].to_numpy(), chances(predictor.model, some))
    with pytest.raises(ValueError, match="1 decisions and 3 titles for 3 rows"):
        predictions(predictor, some, decision_ids=["a"], title_ids=["x", "y", "z"], as_of=NOW)


def test_nothing_to_learn_from_is_an_error_that_says_of_what(tmp_path: Path) -> None:
    none = parts()[0].rows(slice(0, 0))
    with pytest.raises(ValueError, match="delayed complete: no decision"):
        train_delayed(
            [none], tmp_path, what="complete", signals=("a", "b"), model=MODEL, training=TRAINING, storage=tmp_path,
            tracking=TrackingConfig(enabled=False), now=NOW, on_progress=lambda epoch: None,
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data trips over its own on copying a context
def test_one_ray_worker_trains_as_this_process_does_and_two_share_the_decisions(
    local_ray: None, tmp_path: Path
) -> None:
    plain = run(tmp_path / "plain", TRAINING)
    on_ray = TRAINING.model_copy(update={"executor": "ray"})
    one = run(tmp_path / "one", on_ray)
    assert losses(one) == pytest.approx(losses(plain), rel=1e-5)
    two = run(tmp_path / "two", on_ray.model_copy(update={"num_workers": 2}))
    assert {epoch["predictions"] for epoch in two.epochs} == {epoch["predictions"] for epoch in plain.epochs}
    assert losses(two)[-1] == pytest.approx(losses(plain)[-1], rel=0.05)
