"""Runs are recorded in MLflow by the driver, and only where that is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretaste.training.config import TrackingConfig, TrainingConfig
from foretaste.training.loop import Epoch
from foretaste.training.tracking import recorded

EPOCH = Epoch(number=2, of=3, loss=1.5, metrics={"ndcg": 0.25}, predictions=100, seconds=2.0, best=True)


def test_without_tracking_nothing_is_written(tmp_path: Path) -> None:
    with recorded(TrackingConfig(enabled=False), name="run", storage=tmp_path / "runs", about={}) as run:
        run.epoch(EPOCH)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow uses what SQLAlchemy will drop
def test_a_run_is_recorded_with_its_configuration_its_epochs_and_how_it_ended(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    about = {"training": TrainingConfig(seed=7)}
    with recorded(TrackingConfig(), name="good", storage=tmp_path / "runs", about=about) as run:
        run.epoch(EPOCH)
        run.tag("bundle", "v1")
    with (
        pytest.raises(RuntimeError, match="out of memory"),
        recorded(TrackingConfig(), name="bad", storage=tmp_path / "runs", about=about),
    ):
        raise RuntimeError("out of memory")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("foretaste")
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert {name: run.info.status for name, run in runs.items()} == {"good": "FINISHED", "bad": "FAILED"}
    good = runs["good"].data
    assert good.params["training.seed"] == "7"
    assert good.tags["bundle"] == "v1"
    assert good.metrics == {"loss": 1.5, "validation_ndcg": 0.25, "predictions_per_second": 50.0}
    assert [m.step for m in client.get_metric_history(runs["good"].info.run_id, "loss")] == [2]
