"""Training runs in MLflow, written by the driver alone."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foretaste.contracts.config import Frozen
from foretaste.training.config import TrackingConfig
from foretaste.training.loop import Epoch


class Run:
    """One recorded run; without tracking, nothing is recorded."""

    def __init__(self, log: Callable[[Mapping[str, float], int], None], tag: Callable[[str, str], None]) -> None:
        self._log = log
        self.tag = tag

    def epoch(self, epoch: Epoch) -> None:
        """Record the loss, the validation values and the rate of one epoch."""
        values = {f"validation_{name}": value for name, value in epoch.metrics.items()}
        self._log({"loss": epoch.loss, "predictions_per_second": epoch.rate, **values}, epoch.number)

    def values(self, values: Mapping[str, float], step: int) -> None:
        """Record further values at a step."""
        self._log(values, step)


@contextmanager
def recorded(config: TrackingConfig, *, name: str, storage: Path, about: Mapping[str, Frozen]) -> Iterator[Run]:
    """Record a run with its configurations, each value a parameter; it fails with the block."""
    if not config.enabled:
        yield Run(lambda values, step: None, lambda key, value: None)
        return
    warnings.filterwarnings("ignore", message="The ``noload`` loader strategy is deprecated")  # MLflow's own
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    storage.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(config.uri or f"sqlite:///{(storage.parent / 'mlflow.db').absolute()}")
    found = client.get_experiment_by_name(config.experiment)
    experiment_id = found.experiment_id if found is not None else client.create_experiment(config.experiment)
    run_id: str = client.create_run(experiment_id, run_name=name).info.run_id
    for section, values in about.items():
        for key, value in values.model_dump(mode="json").items():
            client.log_param(run_id, f"{section}.{key}", _short(value))

    def log(values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            client.log_metric(run_id, key, value, step=step)

    try:
        yield Run(log, lambda key, value: client.set_tag(run_id, key, value))
    except BaseException:
        client.set_terminated(run_id, status="FAILED")
        raise
    client.set_terminated(run_id)


def _short(value: Any) -> str:
    return str(value)[:500]
