"""What the stages of answers took: from the decision log exactly, and from /metrics what comes after it is written.

Shapes: D decisions, E edges of a histogram.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow as pa
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from foretaste.feedback.decision_log import decision_tables
from foretaste.ops.memory import tree_bytes

PERCENTILES = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p99.9_ms": 99.9}
AFTER_THE_ROW = ("decision_log", "answer")
"""Stages that a decision cannot tell of: they come after it is made."""

Times = dict[str, dict[str, float]]
"""Percentiles in milliseconds by stage."""


def stage_times(decisions: Path, windows: Sequence[tuple[int, int]]) -> list[Times]:
    """Percentiles of each stage over the decisions of intervals (microseconds since 1970, ends excluded)."""
    taken: list[dict[str, list[float]]] = [{} for _ in windows]
    for table in decision_tables(decisions):
        at_D = np.asarray(table["at"].cast(pa.int64()))
        for of, (since, until) in zip(taken, windows, strict=True):
            for row in table["timings"].filter(pa.array((at_D >= since) & (at_D < until))).to_pylist():
                for stage in row:
                    of.setdefault(stage["stage"], []).append(stage["ms"])
    return [{stage: percentiles(np.array(ms)) for stage, ms in of.items()} for of in taken]


def percentiles(ms_D: NDArray[np.float64]) -> dict[str, float]:
    """Those of PERCENTILES and the mean."""
    return {name: float(np.percentile(ms_D, at)) for name, at in PERCENTILES.items()} | {"mean_ms": float(ms_D.mean())}


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram as Prometheus has it."""

    edge_E: tuple[float, ...]  # seconds, the last infinite
    count_E: tuple[float, ...]  # not above the edge
    seconds: float  # sum

    def since(self, before: Buckets | None) -> Buckets:
        """What was added."""
        if before is None:
            return self
        added = tuple(now - then for now, then in zip(self.count_E, before.count_E, strict=True))
        return Buckets(self.edge_E, added, self.seconds - before.seconds)

    def percentiles(self) -> dict[str, float]:
        """As `percentiles`, linear within a bucket, so no finer than the buckets; none where nothing was counted."""
        total = self.count_E[-1] if self.count_E else 0.0
        if total <= 0:
            return {}
        upper_E = np.array([*self.edge_E[:-1], self.edge_E[-2]])  # nothing is known beyond the last edge
        count_E, edge_E = np.array([0.0, *self.count_E]), np.array([0.0, *upper_E])
        found = {name: 1e3 * float(np.interp(at / 100 * total, count_E, edge_E)) for name, at in PERCENTILES.items()}
        return found | {"mean_ms": 1e3 * self.seconds / total}


def histograms(text: str, name: str, label: str) -> dict[str, Buckets]:
    """Histograms of a scrape by a label, those of all processes added."""
    counts: dict[str, dict[float, float]] = {}
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        if family.name != name:
            continue
        for sample in family.samples:
            key = sample.labels[label]
            if sample.name.endswith("_bucket"):
                by_edge, edge = counts.setdefault(key, {}), float(sample.labels["le"])
                by_edge[edge] = by_edge.get(edge, 0.0) + sample.value
            elif sample.name.endswith("_sum"):
                sums[key] = sums.get(key, 0.0) + sample.value
    return {key: Buckets(tuple(sorted(of)), tuple(of[e] for e in sorted(of)), sums[key]) for key, of in counts.items()}


def scraped(url: str) -> str:
    """What a service says at /metrics; nothing where it has none."""
    answer = httpx.get(f"{url}/metrics", timeout=30.0)
    return answer.text if answer.status_code == 200 else ""


def after_the_row(before: str, after: str) -> Times:
    """Times between two scrapes of what a decision cannot tell of."""
    name = "foretaste_stage_seconds"
    first, last = histograms(before, name, "stage"), histograms(after, name, "stage")
    found = {stage: last[stage].since(first.get(stage)).percentiles() for stage in AFTER_THE_ROW if stage in last}
    return {stage: times for stage, times in found.items() if times}


def counted(text: str, name: str, label: str) -> dict[str, float]:
    """A counter of a scrape by a label, added over all others."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and label in sample.labels:
                found[sample.labels[label]] = found.get(sample.labels[label], 0.0) + sample.value
    return found


def service_mib() -> float:
    """Proportional set size in MiB of what this process started, itself left out: it is the one that makes the load."""
    total = 0
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            total += tree_bytes(child)
    return total / 2**20


def slowest(times: Mapping[str, Mapping[str, float]], count: int = 12) -> list[str]:
    """Stages by their mean, the largest first."""
    return sorted(times, key=lambda stage: -times[stage]["mean_ms"])[:count]
