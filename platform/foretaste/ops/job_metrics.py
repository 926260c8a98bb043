"""What a batch job counts of itself: a file of Prometheus' text format a verb, replaced whole.

    WORKSPACE/metrics/train.prom

A job has ended before anybody scrapes it. The service of the workspace tells these files with its own counts, and the
text collector of Prometheus' node exporter reads them, too. Nothing of members or titles is in them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from foretaste.ops.files import PARTIAL, whole_file

FOLDER = "metrics"
"""In the workspace."""
PREFIX = "foretaste_"
MOST_FIGURES = 200
MOST_DEPTH = 4

_TEXTS = ".prom"
_KEPT = (f"{PREFIX}job_finished_timestamp_seconds", f"{PREFIX}job_failed_timestamp_seconds", f"{PREFIX}job_seconds")
"""Told of the runs before, until there is something newer to tell."""


class _Text:
    """Gauges that are left in a file; every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()

    def write(self) -> None:
        """Leave the counts as they are now."""
        with self._lock, whole_file(self._path, durable=False) as partial:
            partial.write_bytes(generate_latest(self._registry))

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, about, labels, registry=self._registry)


class JobMetrics(_Text):
    """The counts of one run of a verb."""

    def __init__(self, folder: Path, verb: str, *, clock: Callable[[], datetime]) -> None:
        """Take up what the runs before left at `folder`."""
        super().__init__(folder / f"{verb}{_TEXTS}")
        self._verb = verb
        self._clock = clock
        self._started = self._gauge("job_started_timestamp_seconds", "when the newest run of a verb began", "verb")
        self._finished = self._gauge("job_finished_timestamp_seconds", "when a run last did what it should", "verb")
        self._failed = self._gauge("job_failed_timestamp_seconds", "when a run last failed; 0: never", "verb")
        self._seconds = self._gauge("job_seconds", "what the newest run that ended took", "verb")
        self._figures = self._gauge("job_figure", "numbers of the newest run's result", "verb", "figure")
        self._began = clock()
        before = _before(self._path)
        for gauge, name in zip((self._finished, self._failed, self._seconds), _KEPT, strict=True):
            gauge.labels(verb).set(before.get(name, 0.0))

    def started(self) -> None:
        """Say that a run begins."""
        self._began = self._clock()
        self._started.labels(self._verb).set(self._began.timestamp())
        self.write()

    def ended(self, *, ok: bool, result: Mapping[str, Any] | None = None) -> None:
        """Say that it ended, with the numbers of its result."""
        now = self._clock()
        self._seconds.labels(self._verb).set((now - self._began).total_seconds())
        (self._finished if ok else self._failed).labels(self._verb).set(now.timestamp())
        for name, value in numbers(result or {}).items():
            self._figures.labels(self._verb, name).set(value)
        self.write()


class TrainingMetrics(_Text):
    """The counts of one model's newest training: `WORKSPACE/metrics/training-MODEL.prom`."""

    def __init__(self, folder: Path, model: str) -> None:
        super().__init__(folder / f"training-{model}{_TEXTS}")
        self._model = model
        self._rate = self._gauge("training_predictions_per_second", "of the newest epoch", "model")
        self._epoch = self._gauge("training_epoch", "number of the newest epoch", "model")
        self._epochs = self._gauge("training_epochs", "epochs of the newest run", "model")
        self._loss = self._gauge("training_loss", "of the newest epoch", "model")
        self._metric = self._gauge("training_metric", "validation values of the newest epoch", "model", "metric")

    def epoch(self, number: int, *, of: int, loss: float, rate: float, metrics: Mapping[str, float]) -> None:
        """Say what an epoch was like; `rate` in predictions a second."""
        for gauge, value in ((self._epoch, number), (self._epochs, of), (self._loss, loss), (self._rate, rate)):
            gauge.labels(self._model).set(value)
        for name, metric in metrics.items():
            self._metric.labels(self._model, name).set(metric)
        self.write()


@contextmanager
def counted(folder: Path, verb: str, *, clock: Callable[[], datetime]) -> Iterator[JobMetrics]:
    """Count a run of a verb: it fails with the block. What the block says with `ended` counts instead."""
    job = JobMetrics(folder, verb, clock=clock)
    job.started()
    try:
        yield job
    except BaseException:
        job.ended(ok=False)
        raise


def numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a nested result by their dotted name, at most `MOST_FIGURES`; lists are left out."""
    found: dict[str, float] = {}

    def walk(value: Any, name: str, depth: int) -> None:
        if isinstance(value, Mapping) and depth < MOST_DEPTH:
            for key, inner in value.items():
                walk(inner, f"{name}.{key}" if name else str(key), depth + 1)
        elif isinstance(value, (int, float)) and math.isfinite(value) and len(found) < MOST_FIGURES:
            found[name] = float(value)

    walk(result, "", 0)
    return found


def job_texts(folder: Path) -> list[str]:
    """What jobs left at a folder; what is no such text is passed over."""
    found = []
    for file in sorted(folder.glob(f"*{_TEXTS}")):
        if file.name.startswith(PARTIAL):
            continue
        try:
            text = file.read_text()
            list(text_string_to_metric_families(text))
        except (OSError, ValueError):
            continue
        found.append(text)
    return found


def _before(path: Path) -> dict[str, float]:
    """Values of the run before, by name."""
    try:
        families = list(text_string_to_metric_families(path.read_text()))
    except (OSError, ValueError):
        return {}
    return {one.name: one.value for family in families for one in family.samples if set(one.labels) == {"verb"}}
