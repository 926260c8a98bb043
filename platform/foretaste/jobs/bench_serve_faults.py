"""Faults under load, on the real processes: what is answered meanwhile, how soon all is well again, what is on disk.

Shapes: R requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from foretaste.feedback.session_log import LogKind
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_serve_calls import EVENTS, LIST, Address, Population, population, requests
from foretaste.jobs.bench_serve_config import ServeBenchConfig
from foretaste.jobs.bench_serve_injected import Injected, decision_disk, kill_a_replica, locked
from foretaste.jobs.bench_serve_loads import capacity, warmed
from foretaste.jobs.bench_serve_made import copied, folder_of, made, on_ray
from foretaste.jobs.bench_serve_report import Plot, Section, bar, none_of, write_report
from foretaste.jobs.bench_serve_stored import Stored, missing
from foretaste.jobs.faulty import Fault, Faults
from foretaste.jobs.features import features
from foretaste.jobs.load import Answer, Call, Way, open_loop
from foretaste.jobs.settings import Settings
from foretaste.ops.redis_server import RedisServer
from foretaste.ops.telemetry import say

LEAD_SECONDS = 10.0
"""Of load before the first fault, from which the usual share of answers that are not full is taken."""
UNWELL_SHARE = 0.1
"""Of the requests of a second: above it, and above twice the usual share, not all is well yet."""
MAX_SAID = 300
STATED = frozenset({429, 503})
"""Statuses by which the service sheds, with Retry-After."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One request that ended."""

    kind: str
    due: float  # seconds
    ended: float
    status: int
    hinted: bool  # whether it had Retry-After
    empty: bool = False  # whether it was a list without titles
    fallback: str | None = None
    said: str = ""  # by a failure
    before: tuple[str, ...] = ()  # how tries before the last one ended

    @property
    def well(self) -> bool:
        """Whether it was answered in full."""
        return self.status == 200 and self.fallback is None

    @property
    def unstated(self) -> bool:
        """Whether it failed in another way than the service says that it may."""
        return self.status != 200 and not (self.status in STATED and self.hinted)


@dataclass(frozen=True, slots=True)
class Span:
    """A fault that came, in seconds since the load began."""

    name: str
    begun: float
    ended: float
    until: float  # the next one, or the end


def faults(settings: Settings, config: ServeBenchConfig, options: BenchOptions) -> dict[str, Any]:
    """Have one fault after the other come over two replicas under load, with each kind of store."""
    made_at = made(settings, config)
    figures: dict[str, Any] = {}
    bars: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    sections: list[Section] = []
    for kind in LogKind:
        if kind is LogKind.REDIS and shutil.which("redis-server") is None:
            skipped[kind.value] = "redis-server is not installed"
            continue
        say(f"\n{kind.value}")
        figures[kind.value], rows, spans, disk = _of_store(made_at, config, kind)
        bars |= {f"{what}, {kind.value}": one for what, one in bars_of(figures[kind.value], config).items()}
        sections.append(_section(kind.value, figures[kind.value], rows, spans, disk))
    folder = folder_of(settings) / "reports"
    report = write_report(made_at, config, folder, "faults", bars, sections)
    counts = {what: one for what, one in bars.items() if one["want"] == "== 0"}
    return {
        "figures": figures,
        "bars": counts if options.quick else bars,
        "measured": bars,
        "skipped": skipped,
        "report": report,
    }


def _of_store(
    settings: Settings, config: ServeBenchConfig, kind: LogKind
) -> tuple[dict[str, Any], list[Ended], list[Span], str]:
    with contextlib.ExitStack() as stack:
        own, server = copied(settings, num_replicas=config.replicas), None
        if kind is LogKind.REDIS:
            data = stack.enter_context(tempfile.TemporaryDirectory(prefix="redis-"))
            server = RedisServer(Path(data))
            stack.callback(server.stop)
            own = _in_redis(own, server.url)
        disk = stack.enter_context(decision_disk(own.tables.serving / "decisions", Faults(own.tables.root)))
        with on_ray(own, faulty=True) as url:
            rows, spans, stored = _loaded(own, config, url, _schedule(own, config, server, disk))
        lost = missing(own, stored)
        return summed(rows, spans) | lost | {"disk": disk.how}, rows, spans, disk.how


def _in_redis(settings: Settings, url: str) -> Settings:
    """The same with session log and online features in Redis: both are filled anew."""
    log = settings.serving.session_log.model_copy(update={"kind": LogKind.REDIS, "url": url})
    serving = settings.serving.model_copy(update={"session_log": log})
    settings = settings.model_copy(update={"features_url": url, "serving": serving})
    shutil.rmtree(settings.tables.features, ignore_errors=True)
    shutil.rmtree(settings.tables.serving, ignore_errors=True)
    features(settings)
    return settings


def _schedule(
    settings: Settings, config: ServeBenchConfig, server: RedisServer | None, disk: Injected
) -> list[Injected]:
    """What comes, in order; each lasts `fault_seconds`, but for a kill, which lasts as long as it takes to mend."""
    switches, tables = Faults(settings.tables.root), settings.tables
    slow = Injected("ranker slowed to 1 s", *switches.switch(Fault.RANKER_SLOW))
    if server is not None:
        stores = [
            Injected("Redis hangs", server.pause, server.resume),
            Injected("Redis is killed, and started again", server.kill, server.start),
        ]
    else:
        hangs = Injected("session log hangs", *switches.switch(Fault.SESSION_LOG_HANGS))
        stores = [locked(tables.serving, "session log is locked"), hangs]
    return [*stores, Injected("a replica is killed", kill_a_replica, seconds=0.0), slow, disk]


def _loaded(
    settings: Settings, config: ServeBenchConfig, url: str, schedule: Sequence[Injected]
) -> tuple[list[Ended], list[Span], Stored]:
    people, address = population(settings.tables.prepared, least_events=config.least_events), Address.of(url, settings)
    warmed(people, config, address)
    rate = config.fault_load * capacity(people, config, address, events_share=config.events_share)
    share = max(0.3, config.events_share)
    return under_load(people, config, address, schedule, per_second=rate, events_share=share)


def under_load(
    people: Population,
    config: ServeBenchConfig,
    address: Address,
    schedule: Sequence[Injected],
    *,
    per_second: float,
    events_share: float,
    name: str = "fault",
    lead_seconds: float = LEAD_SECONDS,
    longer_seconds: float = 0.0,
    way: Way | None = None,
) -> tuple[list[Ended], list[Span], Stored]:
    """Have what is scheduled come one after the other while requests go on; what became of each, and what was told.

    Event ids begin with `name`. The load goes on until all has come; where that may take `longer_seconds` than planned,
    there are requests for as long. With a `way` they go there, and not to the address.
    """
    lengths = [_lasting(one, config) for one in schedule]
    lead = min(lead_seconds, config.settle_seconds)
    seconds = lead + sum(lengths) + len(schedule) * config.settle_seconds
    say(f"{', '.join(one.name for one in schedule)}: {per_second:.0f} requests/s for {seconds:.0f} s or more")
    number = math.ceil(1.2 * per_second * (seconds + longer_seconds)) + 100
    calls = requests(people, config, address, name=name, number=number, events_share=events_share)
    rows: list[Ended] = []
    stored = Stored()

    def look(call: Call, answer: Answer, due: float, ended: float) -> None:
        rows.append(_ended(call, answer, due, ended, stored))

    async def run() -> list[Span]:
        async with contextlib.AsyncExitStack() as stack:
            ask = None if way is None else (await stack.enter_async_context(way)).ask
            coming = asyncio.create_task(_come(schedule, lengths, config, time.perf_counter(), lead))
            await open_loop(
                calls, host=address.host, port=address.port, per_second=per_second, seconds=seconds, seed=1,
                look=look, ask=ask, going_on=lambda: not coming.done(),
            )  # fmt: skip
            return await coming

    try:
        spans = asyncio.run(run())
    finally:
        for one in schedule:
            one.mend()
    return rows, spans, stored


async def _come(
    schedule: Sequence[Injected], lengths: Sequence[float], config: ServeBenchConfig, begun: float, lead: float
) -> list[Span]:
    """Let faults come at their times; in threads, for some wait."""
    await asyncio.sleep(lead)
    found = []
    for one, length in zip(schedule, lengths, strict=True):
        at = time.perf_counter() - begun
        await asyncio.to_thread(one.begin)
        await asyncio.sleep(max(0.0, at + length - (time.perf_counter() - begun)))
        await asyncio.to_thread(one.mend)
        ended = time.perf_counter() - begun
        say(f"{one.name}: {at:.1f} s to {ended:.1f} s")
        found.append((one.name, at, ended))
        await asyncio.sleep(config.settle_seconds)
    ends = [at for _, at, _ in found[1:]] + [time.perf_counter() - begun]
    return [Span(name, at, ended, until) for (name, at, ended), until in zip(found, ends, strict=True)]


def _lasting(one: Injected, config: ServeBenchConfig) -> float:
    return config.fault_seconds if one.seconds is None else one.seconds


def _ended(call: Call, answer: Answer, due: float, ended: float, stored: Stored) -> Ended:
    """One row; what was acknowledged or answered is remembered, to be looked for."""
    plain = Ended(call.kind, due, ended, answer.status, answer.retry_after, before=answer.before)
    if answer.status != 200:
        return replace(plain, said=answer.body[:MAX_SAID].decode(errors="replace")) if plain.unstated else plain
    body = orjson.loads(answer.body)
    if call.kind == EVENTS:
        if body["accepted"] + body["duplicate"] == 1:
            stored.events.add(orjson.loads(call.body)["events"][0]["event_id"])
        return plain
    stored.decisions.add(body["decision_id"])
    why = body["fallback"]["reason"] if body["fallback"]["used"] else None
    return replace(plain, empty=not body["items"], fallback=why)


def summed(rows: Sequence[Ended], spans: Sequence[Span]) -> dict[str, Any]:
    """Counts of all requests, and by fault what was answered from its begin on and how soon all was well."""
    first = min((span.begun for span in spans), default=math.inf)
    before = [one for one in rows if one.due < first]
    usual = _unwell_share(before)
    return {
        "requests": len(rows),
        "usually_unwell_share": usual,
        "empty_lists": sum(one.empty for one in rows),
        "unstated": sum(one.unstated for one in rows),
        "unstated_statuses": _counts(f"{one.kind} {one.status}" for one in rows if one.unstated),
        "unstated_examples": [(round(one.due, 2), one.kind, one.said) for one in rows if one.unstated][:10],
        "faults": {span.name: _of_span(rows, span, max(UNWELL_SHARE, 2 * usual)) for span in spans},
    }


def _of_span(rows: Sequence[Ended], span: Span, most: float) -> dict[str, Any]:
    own = [one for one in rows if span.begun <= one.ended < span.until]  # what was in flight as it came is its own
    recovered = recovery(own, span, most)
    return {
        "seconds": round(span.ended - span.begun, 2),
        "recovery_seconds": recovered,
        "recovered": recovered is not None,
        "requests": len(own),
        "statuses": _counts(str(one.status) for one in own),
        "fallbacks": _counts(one.fallback for one in own if one.fallback is not None),
        "unstated": sum(one.unstated for one in own),
        "empty_lists": sum(one.empty for one in own),
        "slowest_list_ms": max(((one.ended - one.due) * 1e3 for one in own if one.kind == LIST), default=0.0),
    }


def recovery(rows: Sequence[Ended], span: Span, most: float) -> float | None:
    """Seconds from the end of a fault to the end of the last second in which more than `most` was not well.

    None where that is the last second before the next fault: it was not well again.
    """
    seconds = math.floor(span.until - span.ended)
    unwell = 0
    for number in range(seconds):
        since = span.ended + number
        if _unwell_share([one for one in rows if since <= one.due < since + 1]) > most:
            unwell = number + 1
    return None if seconds and unwell == seconds else float(unwell)


def _unwell_share(rows: Sequence[Ended]) -> float:
    return sum(not one.well for one in rows) / len(rows) if rows else 0.0


def _counts(names: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def bars_of(figures: dict[str, Any], config: ServeBenchConfig) -> dict[str, Any]:
    """What has to hold of one store."""
    recovered = [one["recovery_seconds"] for one in figures["faults"].values()]
    longest = None if None in recovered else max(recovered, default=None)
    within = config.settle_seconds
    return {
        "empty lists": none_of(figures["empty_lists"]),
        "failures other than stated shedding": none_of(figures["unstated"]),
        "seconds until all is well after a fault": bar(longest, f"<= {within:g}", longest is not None),
        "acknowledged events not on disk": none_of(figures["missing_events"]),
        "answered decisions not on disk": none_of(figures["missing_decisions"]),
    }


def _section(store: str, figures: dict[str, Any], rows: Sequence[Ended], spans: Sequence[Span], disk: str) -> Section:
    columns = ("fault", "s", "well again after s", "statuses", "fallbacks", "unstated", "slowest list ms")
    table = [
        (name, one["seconds"], "never" if one["recovery_seconds"] is None else one["recovery_seconds"],
         one["statuses"], one["fallbacks"], one["unstated"], one["slowest_list_ms"])
        for name, one in figures["faults"].items()
    ]  # fmt: skip
    shaded = [(span.name, span.begun, max(span.ended, span.begun + 0.5)) for span in spans]
    kinds: dict[str, Callable[[Ended], bool]] = {
        "full lists": lambda one: one.kind == LIST and one.well,
        "lists by fallback": lambda one: one.kind == LIST and one.status == 200 and not one.well,
        "events": lambda one: one.kind == EVENTS and one.status == 200,
        "shed": lambda one: one.status != 200 and not one.unstated,
        "failed": lambda one: one.unstated,
    }
    lines = {name: _by_second(rows, keep) for name, keep in kinds.items()}
    text = (
        f"{figures['stored_events']:,} acknowledged events and {figures['stored_decisions']:,} answered decisions were "
        f"looked for afterwards. Disk of the decision log: {disk}."
    )
    plot = Plot(f"{store}-by-second", "seconds", "answers a second", lines, shaded, points=False)
    return Section(store, text, columns, table, [plot])


def _by_second(rows: Sequence[Ended], keep: Callable[[Ended], bool]) -> tuple[list[float], list[float]]:
    last = int(max((one.ended for one in rows), default=0.0))
    counts = [0.0] * (last + 1)
    for one in rows:
        if keep(one):
            counts[int(one.ended)] += 1.0
    return [float(second) for second in range(last + 1)], counts
