"""The cluster for a number of members, from measured costs: `foretaste size --members 10000000`. Plain functions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from foretaste.jobs.sizing_config import CostConfig, PopulationConfig, SizingConfig, TargetConfig
from foretaste.jobs.sizing_queue import Replica, calibrated, rate_within, simulate
from foretaste.ops.telemetry import console, say
from foretaste.serving.shedding import SheddingConfig

WEEK_SECONDS, DAY_SECONDS = 7 * 86_400.0, 86_400.0
GIB = 2.0**30
POPULATIONS = (1_000_000, 10_000_000, 200_000_000)
OURS = "ray serve, fused"
SERVE_REPLICAS, SCRAPE_SECONDS, VOLUME_WRITES, REDIS_SHARDS, TRAIN_WORKERS = 200.0, 5.0, 2_000.0, 1.0, 8.0
"""Where the design has to change: replicas of one application, seconds of a scrape, decisions a second that are synced
to one shared volume, nodes of Redis without a cluster, workers of training. Judgements, not measurements: nothing above
two replicas was run here.
"""


class Limit(NamedTuple):
    """Where the design stops, and what to change then."""

    name: str
    value: float
    holds_to: float
    change: str

    @property
    def passed(self) -> bool:
        """Whether this cluster is beyond it."""
        return self.value > self.holds_to

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return self._asdict() | {"passed": self.passed}


def replica_of(costs: CostConfig, shedding: SheddingConfig) -> Replica:
    """The queueing model's replica of measured times."""
    return Replica(costs.answer_points, spread=costs.answer_spread, shedding=shedding)


def size(
    members: int, config: SizingConfig, *, shedding: SheddingConfig | None = None, rate: float | None = None
) -> dict[str, Any]:
    """Traffic, serving, stores, disk, jobs and limits for so many members; `rate` is what one replica may be asked.

    Without it that is found by simulation. Raises ValueError where no replica keeps the wanted time at any rate.
    """
    population, costs, targets = config.population, config.costs, config.targets
    load = traffic(members, population)
    if rate is None:
        replica = replica_of(costs, shedding or SheddingConfig())
        rate = rate_within(replica, targets.p99_ms / costs.model_error)
    if rate <= 0:
        raise ValueError(f"size: no replica answers within {targets.p99_ms:g} ms at any load; see sizing.costs")
    parts = {
        "traffic": load,
        "serving": serving(load, population, costs, targets, rate),
        "session_log": session_log(members, load, population, costs, targets),
        "online_features": online_features(members, costs, targets),
        "disk": disk(load, population, costs, targets),
        "jobs": jobs(members, load, population, costs, targets),
    }
    return {"members": members, **parts, "limits": [one.plain() for one in limits(parts, costs)]}


def traffic(members: int, population: PopulationConfig) -> dict[str, float]:
    """Lists and events a second, and a day."""
    sessions = members * population.sessions_per_week / WEEK_SECONDS
    lists, events = (sessions * each for each in (population.lists_per_session, population.events_per_session))
    return {
        "lists_per_second": lists,
        "lists_per_second_at_peak": lists * population.peak_over_mean,
        "events_per_second": events,
        "events_per_second_at_peak": events * population.peak_over_mean,
        "lists_per_day": lists * DAY_SECONDS,
        "events_per_day": events * DAY_SECONDS,
        "choices_per_day": sessions * population.choices_per_session * DAY_SECONDS,
    }


def serving(
    load: Mapping[str, float], population: PopulationConfig, costs: CostConfig, targets: TargetConfig, rate: float
) -> dict[str, float]:
    """Replicas for the peak; events take their share of a replica by processor time."""
    events_as_lists = load["events_per_second_at_peak"] * costs.event_cpu_ms / costs.answer_cpu_ms
    needed = _whole((load["lists_per_second_at_peak"] + events_as_lists) / (rate * targets.headroom))
    replicas = max(2, needed + targets.spare_workers * targets.worker_cpus)
    each_gib = costs.replica_gib + costs.replica_gib_per_million_titles * population.titles / 1e6
    workers = max(2, _whole(replicas / targets.worker_cpus))
    return {
        "lists_per_second_and_replica": rate,
        "planned_lists_per_second_and_replica": rate * targets.headroom,
        "replicas": replicas,
        "workers": workers,
        "worker_cpus": targets.worker_cpus,
        "worker_gib": _whole(1.5 + targets.worker_cpus * each_gib),  # and what Ray itself takes on a node
        "busy_at_mean": load["lists_per_second"] / (replicas * rate),
    }


def session_log(
    members: int, load: Mapping[str, float], population: PopulationConfig, costs: CostConfig, targets: TargetConfig
) -> dict[str, float]:
    """Redis of the session log: by memory and by appends."""
    held = members * population.active_share
    per_member = costs.log_bytes_per_member + population.events_held * costs.log_bytes_per_event
    gib = held * per_member / GIB
    appends = load["events_per_second_at_peak"]
    by_memory, by_appends = gib / targets.redis_gib, appends / (costs.appends_per_second * targets.redis_load)
    return {
        "gib": gib,
        "bytes_per_member": per_member,
        "appends_per_second_at_peak": appends,
        "shards": max(1, _whole(max(by_memory, by_appends))),
        "shards_by_memory": by_memory,
        "shards_by_appends": by_appends,
    }


def online_features(members: int, costs: CostConfig, targets: TargetConfig) -> dict[str, float]:
    """Redis of the online features: every member has a row."""
    gib = members * costs.online_bytes_per_member / GIB
    return {"gib": gib, "shards": max(1, _whole(gib / targets.redis_gib))}


def disk(
    load: Mapping[str, float], population: PopulationConfig, costs: CostConfig, targets: TargetConfig
) -> dict[str, float]:
    """What the workspace holds, and what comes to it each day, in GiB."""
    decisions = load["lists_per_day"] * costs.decision_bytes / GIB
    events = load["events_per_day"] * costs.event_bytes / GIB
    prepared = load["events_per_day"] * population.history_days * costs.prepared_bytes_per_event / GIB
    logged = events * population.history_days
    return {
        "decisions_gib_per_day": decisions,
        "events_gib_per_day": events,
        "prepared_gib": prepared,
        "event_log_gib": logged,
        "workspace_gib": prepared + logged + decisions * targets.keep_days,
        "decision_syncs_per_second_at_peak": load["lists_per_second_at_peak"],
    }


def jobs(
    members: int, load: Mapping[str, float], population: PopulationConfig, costs: CostConfig, targets: TargetConfig
) -> dict[str, Any]:
    """Processor hours and workers of each job."""
    million_a_day = load["events_per_day"] / 1e6
    full = million_a_day * population.history_days * costs.prepare_cpu_seconds
    choices = load["choices_per_day"] * targets.train_days / 1e6
    wanted = {
        "prepare": (million_a_day * costs.prepare_cpu_seconds * costs.prepare_added, targets.prepare_hours),
        "prepare, everything again": (full, 24.0),
        "features": (members / 1e6 * costs.features_cpu_seconds, targets.features_hours),
        "train": (choices * targets.train_epochs * costs.train_cpu_seconds, targets.train_hours),
    }
    return {
        name: {
            "cpu_hours": seconds / 3600,
            "hours": hours,
            "workers": max(1, _whole(seconds / 3600 / hours / targets.job_cpus)),
            "worker_cpus": targets.job_cpus,
        }
        for name, (seconds, hours) in wanted.items()
    }


def limits(parts: Mapping[str, Any], costs: CostConfig) -> Iterator[Limit]:
    """Where the design stops, against what this cluster would ask of it."""
    replicas = parts["serving"]["replicas"]
    yield Limit(
        "replicas of one Serve application", replicas, SERVE_REPLICAS,
        "cells: several RayServices with stores of their own, members divided by a hash in front",
    )  # fmt: skip
    yield Limit(
        "seconds of a scrape of /metrics, which reads what every replica left", replicas * costs.scrape_ms / 1e3,
        SCRAPE_SECONDS, "a port of its own for each replica's counts; or cells",
    )  # fmt: skip
    yield Limit(
        "decisions a second synced to one shared volume", parts["disk"]["decision_syncs_per_second_at_peak"],
        VOLUME_WRITES, "write-ahead files on local disks of the nodes, rolled to the object store; cells",
    )  # fmt: skip
    yield Limit(
        "nodes of Redis for the session log", parts["session_log"]["shards"], REDIS_SHARDS,
        "session_log.cluster=true: keys lie in 64 buckets, so at most 64 masters; beyond that cells",
    )  # fmt: skip
    yield Limit(
        "nodes of Redis for online features", parts["online_features"]["shards"], REDIS_SHARDS,
        "redis_type: redis_cluster of Feast, which is not tested here; or cells",
    )  # fmt: skip
    yield Limit(
        "workers of training on processors", parts["jobs"]["train"]["workers"], TRAIN_WORKERS,
        "GPUs (component gpu-training), fewer days, or a share of the members",
    )  # fmt: skip


def against(figures: Mapping[str, Any], *, replicas: int, shedding: SheddingConfig, spread: float) -> dict[str, Any]:
    """The queueing model beside a load that was measured (figures of a service: `closed` and `open` loads).

    Its times come from the closed loops' answers a second alone; percentiles, open loops and shedding are foretold.
    Raises ValueError where no client was alone.
    """
    closed = {round(float(load)): float(one["recommend"]["per_second"]) for load, one in figures["closed"].items()}
    replica = calibrated(closed, replicas, spread=spread, shedding=shedding)
    rows = []
    for loop in ("closed", "open"):
        for load, one in sorted(figures[loop].items(), key=lambda pair: float(pair[0])):
            measured = one["recommend"]
            asked: dict[str, Any] = {"clients": round(float(load))}
            if loop == "open":
                asked = {"per_second": float(load) * _lists_of(one)}
            seen = simulate(replica, replicas, seconds=4_000 / measured["per_second"], **asked)
            shed = measured["statuses"].get("429", 0) / max(1, sum(measured["statuses"].values()))
            told = {name: measured[name] for name in ("per_second", "p50_ms", "p90_ms", "p99_ms")}
            rows.append(
                {"loop": loop, "load": float(load), "measured": told | {"shed_share": shed}, "model": seen.figures()}
            )
    return {"points": replica.points, "rows": rows}


def _lists_of(one: Mapping[str, Any]) -> float:
    """Share of lists among the requests of a load."""
    both = [sum(one[kind]["statuses"].values()) for kind in ("recommend", "events") if kind in one]
    return float(both[0] / sum(both))


def sizes(
    config: SizingConfig, members: Sequence[int], *, shedding: SheddingConfig, figures: Path | None = None
) -> dict[str, Any]:
    """What `foretaste size` says: a cluster for each population and, beside measured `figures`, the model.

    `figures` is the JSON that `bench serve --part compare --json` ends with. Raises ValueError where it is none.
    """
    rate = rate_within(replica_of(config.costs, shedding), config.targets.p99_ms / config.costs.model_error)
    found = [size(one, config, rate=rate) for one in members]
    result: dict[str, Any] = {"clusters": found}
    _show(found)
    if figures is not None:
        result["model"] = _compared(figures, shedding, config.costs.answer_spread)
        _show_model(result["model"])
    return result


def _compared(path: Path, shedding: SheddingConfig, spread: float) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text().strip().splitlines()[-1])["figures"]
        ours = told.get(OURS) or next(iter(told.values()))
        return against({loop: ours[loop] for loop in ("closed", "open")}, replicas=2, shedding=shedding, spread=spread)
    except (ValueError, KeyError, IndexError, StopIteration, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: wanted the JSON of `foretaste bench serve --part compare`: {error}") from error


def _show(found: Sequence[Mapping[str, Any]]) -> None:
    table = Table("", *(f"{one['members']:,} members" for one in found))
    for part in ("traffic", "serving", "session_log", "online_features", "disk"):
        for name in found[0][part]:
            table.add_row(f"{part}.{name}", *(f"{one[part][name]:,.4g}" for one in found))
    for job in found[0]["jobs"]:
        cells = (f"{one['jobs'][job]['cpu_hours']:,.4g} h, {one['jobs'][job]['workers']:,} workers" for one in found)
        table.add_row(f"jobs.{job}", *cells)
    console.print(table)
    for one in found:
        for limit in one["limits"]:
            if limit["passed"]:
                told = f"{limit['name']}: {limit['value']:,.0f}, holds to {limit['holds_to']:,.0f}"
                say(f"{one['members']:,} members: {told}: {limit['change']}")


def _show_model(found: Mapping[str, Any]) -> None:
    names = ("per_second", "p50_ms", "p90_ms", "p99_ms", "shed_share")
    table = Table("loop", "load", *(f"{name}: measured / model" for name in names))
    for row in found["rows"]:
        cells = (f"{row['measured'][name]:.4g} / {row['model'][name]:.4g}" for name in names)
        table.add_row(row["loop"], f"{row['load']:g}", *cells)
    console.print(table)


def _whole(value: float) -> int:
    return math.ceil(value - 1e-9)
