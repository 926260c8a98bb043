"""Whichever process answers `GET /metrics` tells of all of a workspace: each leaves its counts in a folder at times.

What the workspace's batch jobs left of their runs is told with it: they are gone before anybody could ask them.

Behind a proxy a scrape reaches one process or another; without this its counters would jump back and forth.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from foretaste.feedback.session_log import microseconds
from foretaste.ops.files import PARTIAL, whole_file
from foretaste.ops.job_metrics import job_texts
from foretaste.serving.metrics import Metrics

PROCESS = "process"
"""Label by which the processes are told apart: the process id and some letters."""

_TEXTS = ".prom"
_AT = "# at "


class SharedMetrics:
    """The metrics of one process beside those that others left in the same folder."""

    def __init__(
        self,
        folder: Path,
        metrics: Metrics,
        *,
        clock: Callable[[], datetime],
        fresh_seconds: float,
        jobs: Path | None = None,
    ) -> None:
        """What another process left counts for `fresh_seconds`; what is ten times as old is removed.

        `jobs` is the folder of what batch jobs left, however long ago; they have no process.
        """
        self._jobs = jobs
        self._folder = folder
        self._metrics = metrics
        self._clock = clock
        self._fresh_us = fresh_seconds * 1e6
        self.name = f"{os.getpid()}-{uuid.uuid4().hex[:6]}"

    def publish(self) -> None:
        """Leave the counts as they are now, and remove what dead processes left."""
        now = microseconds(self._clock())
        with whole_file(self._folder / f"{self.name}{_TEXTS}", durable=False) as partial:
            partial.write_bytes(f"{_AT}{now}\n".encode() + self._metrics.text())
        for file, at, _ in self._left():
            if now - at > 10 * self._fresh_us:
                file.unlink(missing_ok=True)

    def withdraw(self) -> None:
        """Leave nothing."""
        (self._folder / f"{self.name}{_TEXTS}").unlink(missing_ok=True)

    def text(self) -> bytes:
        """The counts of all processes, this one's as they are now."""
        now = microseconds(self._clock())
        texts = {self.name: self._metrics.text().decode()}
        for file, at, text in self._left():
            if file.stem != self.name and now - at <= self._fresh_us:
                texts[file.stem] = text
        registry = CollectorRegistry()
        registry.register(_Together(texts, [] if self._jobs is None else job_texts(self._jobs)))
        return generate_latest(registry)

    def _left(self) -> Iterator[tuple[Path, int, str]]:
        """Files with the time in microseconds at which they were left; what is no such file is passed over."""
        for file in sorted(self._folder.glob(f"*{_TEXTS}")):
            try:
                first, _, text = file.read_text().partition("\n")
                at = int(first.removeprefix(_AT))
            except (OSError, ValueError):
                continue
            if not file.name.startswith(PARTIAL):
                yield file, at, text


class _Together(Collector):
    """Families of several texts, each once, with the process in every sample of a process."""

    def __init__(self, texts: dict[str, str], of_jobs: Sequence[str] = ()) -> None:
        self._texts = texts
        self._of_jobs = of_jobs

    def collect(self) -> Iterable[Metric]:
        """Read the texts."""
        families: dict[str, Metric] = {}
        told = [({PROCESS: name}, text) for name, text in self._texts.items()]
        for labels, text in [*told, *(({}, text) for text in self._of_jobs)]:
            for found in text_string_to_metric_families(text):
                one = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    one.add_sample(sample.name, {**sample.labels, **labels}, sample.value)
        return families.values()
