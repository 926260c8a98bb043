"""More than a service can do, and what it can do for long: goodput, shedding, the latency of who is let in, memory.

Shapes: S samples of memory.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_serve_calls import LIST, requests
from foretaste.jobs.bench_serve_config import ServeBenchConfig
from foretaste.jobs.bench_serve_loads import capacity, warm_service
from foretaste.jobs.bench_serve_made import folder_of
from foretaste.jobs.bench_serve_report import Plot, Section, at_least, at_most, none_of, write_report
from foretaste.jobs.bench_serve_stages import service_mib
from foretaste.jobs.load import Sent, closed_loop, open_loop
from foretaste.jobs.settings import Settings
from foretaste.ops.telemetry import say

GOODPUT, SLOWER, GROWTH = 0.9, 2.0, 1.05
UNLOADED_SECONDS = 10.0
SHED = 429
MOST_DIFFERENT = 100_000
"""Requests of a soak before they come again."""

Sample = tuple[float, float]
"""Seconds since the load began, and MiB."""


def overload(settings: Settings, config: ServeBenchConfig, options: BenchOptions) -> dict[str, Any]:
    """Find what the service can do, then ask for a multiple of it; only lists, for they are what is shed."""
    with warm_service(settings, config, num_replicas=config.replicas) as (own, people, address):
        seconds = min(UNLOADED_SECONDS, 2 * config.seconds)
        calls = requests(people, config, address, name="unloaded", events_share=0.0)
        unloaded = asyncio.run(closed_loop(calls, host=address.host, port=address.port, clients=1, seconds=seconds)).of(
            after=config.warm_up * seconds
        )
        most = capacity(people, config, address, events_share=0.0)
        calls = requests(people, config, address, name="overload", events_share=0.0)
        rate = config.overload * most
        say(f"{rate:.0f} requests/s for {config.overload_seconds:.0f} s")
        sent = asyncio.run(
            open_loop(
                calls, host=address.host, port=address.port, per_second=rate, seconds=config.overload_seconds, seed=1
            )
        )
    figures = {"capacity_per_second": most, "unloaded": unloaded.figures(), "overloaded": sent.figures()}
    figures |= {"asked_per_second": len(sent) / sent.seconds, "generator_late_p99_ms": sent.late_ms}
    measured = overload_bars(unloaded, most, sent)
    folder = folder_of(settings) / "reports"
    report = write_report(own, config, folder, "overload", measured, _overload_sections(figures, sent))
    return {"figures": figures, **_held(measured, options), "report": report}


def overload_bars(unloaded: Sent, most: float, sent: Sent) -> dict[str, Any]:
    """What has to hold beyond what a service can do (`most` answers a second)."""
    shed_R = sent.status_R == SHED
    goodput = float(sent.good.sum()) / sent.seconds
    slower = _p99_ms(sent) / _p99_ms(unloaded)
    return {
        "goodput over capacity": at_least(goodput / most, GOODPUT),
        "answers that are neither a list nor a 429": none_of(int((~sent.good & ~shed_R).sum())),
        "429 without Retry-After": none_of(int((shed_R & ~sent.hinted_R).sum())),
        "p99 of the admitted over the unloaded p99": at_most(slower, SLOWER),
    }


def soak(settings: Settings, config: ServeBenchConfig, options: BenchOptions) -> dict[str, Any]:
    """Load the service for long with what it can do well, and look at its memory."""
    with warm_service(settings, config, num_replicas=config.replicas) as (own, people, address):
        rate = config.soak_load * capacity(people, config, address, events_share=config.events_share)
        seconds = config.soak_warm_seconds + config.soak_seconds
        say(f"{rate:.0f} requests/s for {seconds:.0f} s")
        calls = requests(
            people, config, address, name="soak", number=min(MOST_DIFFERENT, math.ceil(1.2 * rate * seconds))
        )
        samples: list[Sample] = []

        async def run() -> Sent:
            looking = asyncio.create_task(_look(samples, config.sample_seconds))
            try:
                load = {"host": address.host, "port": address.port, "per_second": rate, "seconds": seconds}
                return await open_loop(calls, **load, seed=1)  # type: ignore[arg-type]
            finally:
                looking.cancel()

        sent = asyncio.run(run()).of(after=config.soak_warm_seconds)
    counted = [(at, mib) for at, mib in samples if at >= config.soak_warm_seconds]
    grown = memory(counted)
    figures = {"load_per_second": rate, "all": sent.figures(), "lists": sent.of(LIST).figures(), **grown}
    figures["generator_late_p99_ms"] = sent.late_ms
    figures["risen_in_warm_up_mib"] = (
        max((mib for at, mib in samples if at < config.soak_warm_seconds), default=0.0) - samples[0][1]
    )
    measured = {
        "memory of the last third over that of the first": at_most(grown["last_over_first"], GROWTH),
        "requests that were not answered well": none_of(int((~sent.good).sum())),
    }
    folder = folder_of(settings) / "reports"
    report = write_report(own, config, folder, "soak", measured, _soak_sections(figures, samples, sent))
    return {"figures": figures, **_held(measured, options), "report": report}


def memory(samples: Sequence[Sample]) -> dict[str, float]:
    """Means of the first and of the last third of the samples, their ratio, and the slope in MiB a minute."""
    if len(samples) < 3:
        raise ValueError(f"{len(samples)} samples of memory: the load was too short for a slope")
    at_S, mib_S = np.array(samples).T
    third = len(mib_S) // 3
    first, last = float(mib_S[:third].mean()), float(mib_S[-third:].mean())
    slope = float(np.polyfit(at_S, mib_S, 1)[0]) * 60.0
    return {
        "first_third_mib": first,
        "last_third_mib": last,
        "last_over_first": last / first,
        "slope_mib_per_minute": slope,
        "samples": len(mib_S),
        "largest_mib": float(mib_S.max()),
    }


async def _look(samples: list[Sample], every_seconds: float) -> None:
    """Look at the memory of the service, in a thread: it takes a while."""
    begun = time.perf_counter()
    while True:
        at = time.perf_counter() - begun
        samples.append((at, await asyncio.to_thread(service_mib)))
        await asyncio.sleep(max(0.0, every_seconds - (time.perf_counter() - begun - at)))


def _p99_ms(sent: Sent) -> float:
    taken = sent.took_R[sent.good]
    return float(np.percentile(taken, 99.0)) * 1e3 if len(taken) else float("nan")


def _held(measured: dict[str, Any], options: BenchOptions) -> dict[str, Any]:
    """The bars of a run; a quick one says how much came, not whether it was fast."""
    return {"bars": {} if options.quick else measured, "measured": measured}


def _overload_sections(figures: dict[str, Any], sent: Sent) -> list[Section]:
    rows = [(what, *figures[what].values()) for what in ("unloaded", "overloaded")]
    lines = {"lists": by_second(sent, sent.good), "429": by_second(sent, sent.status_R == SHED)}
    columns = ("", *figures["unloaded"])
    plot = Plot("by-second", "seconds", "answers a second", lines, points=False)
    most = (
        f"Capacity {figures['capacity_per_second']:.1f} lists a second, asked {figures['asked_per_second']:.1f}; of "
        f"the latencies up to {figures['generator_late_p99_ms']:.1f} ms (p99) are the load generator's own."
    )
    return [Section("Load", most, columns, rows, [plot])]


def _soak_sections(figures: dict[str, Any], samples: Sequence[Sample], sent: Sent) -> list[Section]:
    rows = [(name, value) for name, value in figures.items() if not isinstance(value, dict)]
    drawn = Plot("memory", "seconds", "MiB", {"service": tuple(zip(*samples, strict=True))}, points=False)  # type: ignore[dict-item]
    lines = {"answered well": by_second(sent, sent.good)}
    answers = Plot("answers", "seconds", "answers a second", lines, points=False)
    return [Section("Memory and answers", "", ("", ""), rows, [drawn, answers])]


def by_second(sent: Sent, which_R: Any) -> tuple[list[float], list[float]]:
    """How many of some requests ended in each second."""
    ended_R = (sent.due_R + sent.took_R)[which_R]
    if not len(ended_R):
        return [], []
    first = int(ended_R.min())
    counts = np.bincount(ended_R.astype(np.int64) - first)
    return [float(first + second) for second in range(len(counts))], [float(count) for count in counts]
