"""A load on one service, measured: closed loops, then open ones, with what the stages took and the memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foretaste.jobs.bench_serve_calls import EVENTS, LIST, Address, Population, population, requests
from foretaste.jobs.bench_serve_config import ServeBenchConfig
from foretaste.jobs.bench_serve_made import copied, made, on_ray
from foretaste.jobs.bench_serve_stages import after_the_row, scraped, service_mib, stage_times
from foretaste.jobs.load import Call, Sent, closed_loop, open_loop
from foretaste.jobs.settings import Settings
from foretaste.ops.telemetry import say

CLOSED, OPEN = "closed", "open"
WARM_SECONDS, WARM_CLIENTS = 2.0, 2
CAPACITY_CLIENTS, CAPACITY_SECONDS = (8, 16), 8.0

Loads = dict[str, dict[float, dict[str, Any]]]
"""Figures by loop and its clients, or its requests a second."""


def warmed(people: Population, config: ServeBenchConfig, address: Address) -> None:
    """Load a service for a moment, so that what it makes once is made."""
    calls = requests(people, config, address, name="warm", number=500)
    asyncio.run(_closed(calls, address, WARM_CLIENTS, min(WARM_SECONDS, config.seconds)))


@contextmanager
def warm_service(
    settings: Settings, config: ServeBenchConfig, **serving: Any
) -> Iterator[tuple[Settings, Population, Address]]:
    """The service on Ray, on logs of its own, that has been loaded for a moment; with its settings and who asks it."""
    made_at = made(settings, config)
    people = population(made_at.tables.prepared, least_events=config.least_events)
    own = copied(made_at, **serving)
    with on_ray(own) as url:
        address = Address.of(url, own)
        warmed(people, config, address)
        yield own, people, address


def capacity(people: Population, config: ServeBenchConfig, address: Address, *, events_share: float) -> float:
    """Requests a second that a service answers at most, of closed loops."""
    best = 0.0
    for number in CAPACITY_CLIENTS:
        calls = requests(people, config, address, name=f"capacity-{number}", events_share=events_share)
        seconds = min(CAPACITY_SECONDS, 2 * config.seconds)
        sent = asyncio.run(_closed(calls, address, number, seconds)).of(after=config.warm_up * seconds)
        best = max(best, float(sent.good.sum()) / sent.seconds)
    if best <= 0:
        raise ConnectionError(f"{address.host}:{address.port} answered nothing")
    say(f"capacity: {best:.0f} answers/s")
    return best


def loads(
    people: Population,
    config: ServeBenchConfig,
    address: Address,
    *,
    rates: Sequence[float],
    seed: int,
    decisions: Path | None = None,
) -> Loads:
    """Closed loops of `config.clients`, then open ones of `rates`, or of `config.rate_shares` where there are none.

    With the decision log of the service at `decisions` each has `stages`.
    """
    warmed(people, config, address)
    url, found = f"http://{address.host}:{address.port}", Loads()
    found[CLOSED], found[OPEN] = {}, {}
    windows: list[tuple[dict[str, Any], tuple[int, int], str, str]] = []

    def measured(sent: Sent, begun: int, before: str) -> dict[str, Any]:
        figures = of_load(sent, config)
        windows.append((figures, (begun, time.time_ns() // 1000), before, scraped(url)))
        return figures

    for number in config.clients:
        calls = requests(people, config, address, name=f"closed-{seed}-{number}", seed=seed)
        before, begun = scraped(url), time.time_ns() // 1000
        found[CLOSED][number] = measured(asyncio.run(_closed(calls, address, number, config.seconds)), begun, before)
    best = max(one["all"]["per_second"] for one in found[CLOSED].values())
    for rate in rates or [max(1.0, round(share * best, 1)) for share in config.rate_shares]:
        calls = requests(people, config, address, name=f"open-{seed}-{rate}", seed=seed)
        before, begun = scraped(url), time.time_ns() // 1000
        sent = asyncio.run(
            open_loop(calls, host=address.host, port=address.port, per_second=rate, seconds=config.seconds, seed=seed)
        )
        found[OPEN][rate] = measured(sent, begun, before)
    memory = service_mib()
    stages = [] if decisions is None else stage_times(decisions, [between for _, between, _, _ in windows])
    for number, (figures, _, before, after) in enumerate(windows):
        figures["tree_mib"] = memory
        if stages:
            figures["stages"] = stages[number] | after_the_row(before, after)
    return found


def of_load(sent: Sent, config: ServeBenchConfig) -> dict[str, Any]:
    """Figures of a load after its warm-up, of all requests, of lists and of events."""
    counted = sent.of(after=config.warm_up * sent.seconds)
    late = {"generator_late_p99_ms": sent.late_ms}
    return {"all": counted.figures() | late} | {
        kind: counted.of(kind).figures() for kind in (LIST, EVENTS) if kind in counted.kinds
    }


async def _closed(calls: Sequence[Call], address: Address, clients: int, seconds: float) -> Sent:
    return await closed_loop(calls, host=address.host, port=address.port, clients=clients, seconds=seconds)
