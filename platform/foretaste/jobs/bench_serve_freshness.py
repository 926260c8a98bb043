"""How soon an acknowledged event is in the answers, whichever replica gives them, and that no answer is older than one.

Shapes: C checks.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson

from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_serve_calls import EVENTS, LIST, Address, Population
from foretaste.jobs.bench_serve_config import ServeBenchConfig
from foretaste.jobs.bench_serve_loads import warm_service
from foretaste.jobs.bench_serve_made import folder_of
from foretaste.jobs.bench_serve_report import Plot, Section, at_least, at_most, none_of, write_report
from foretaste.jobs.bench_serve_stages import counted, percentiles, scraped
from foretaste.jobs.load import Answer, Pool
from foretaste.jobs.settings import Settings
from foretaste.ops.telemetry import say

MOST_MS = 50.0
GIVE_UP_SECONDS = 5.0
"""Seconds after which an event is taken for one that no answer will use."""
LOOKS = 50
TWICE_EVERY = 10
"""Of so many events one is followed by two requests at once, so that both replicas answer."""


@dataclass
class Checked:
    """What came of the checks so far."""

    changed_ms: list[float] = field(default_factory=list)  # acknowledged to the end of the first answer with the event
    acknowledged_ms: list[float] = field(default_factory=list)  # sent to acknowledged
    checks: int = 0  # answers compared
    older: list[str] = field(default_factory=list)  # answers older than an event that was acknowledged before
    said_so: int = 0  # of them, those that named the session log as stale
    never: int = 0  # events that no answer used in time
    other_list: int = 0  # answers whose titles differ from those of the member's answer before
    lists: int = 0  # answers that had one before
    statuses: Counter[int] = field(default_factory=Counter)


def freshness(settings: Settings, config: ServeBenchConfig, options: BenchOptions) -> dict[str, Any]:
    """Have members take turns at sending an event and asking, over two replicas; every answer is a check."""
    with warm_service(settings, config, num_replicas=config.replicas) as (own, people, address):
        say(f"{config.checks} checks, {config.fresh_members} members, {config.fresh_clients} at a time")
        found = asyncio.run(checked(people, config, address))
        answering = replicas_that_answered(f"http://{address.host}:{address.port}", config.replicas)
    figures, bars = figures_of(found), bars_of(found)
    figures["replicas that answered"] = answering
    bars["replicas that answered"] = at_least(answering, config.replicas)
    folder = folder_of(settings) / "reports"
    report = write_report(own, config, folder, "freshness", bars, _sections(figures, found))
    kept = {what: one for what, one in bars.items() if not options.quick or one["want"] == "== 0"}
    return {"figures": figures, "bars": kept, "measured": bars, "report": report}


def replicas_that_answered(url: str, wanted: int) -> int:
    """How many tell that they answered; a look reaches one of them, so it takes several."""
    found: set[str] = set()
    for _ in range(LOOKS):
        counts = counted(scraped(url), "foretaste_answers_total", "process")
        found |= {name for name, number in counts.items() if number > 0}
        if len(found) >= wanted:
            break
        time.sleep(0.1)
    return len(found)


async def checked(people: Population, config: ServeBenchConfig, address: Address) -> Checked:
    """Run the checks. Raises ConnectionError where the service answers nothing any more."""
    found, turns = Checked(), _turns(people, config)
    pool = Pool(address.host, address.port)
    member_of = _Members(pool, address, config, found)

    async def client() -> None:
        while found.checks < config.checks:
            number, member, title = next(turns)
            await member_of.turn(number, member, title)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(config.fresh_clients):
                group.create_task(client())
    finally:
        pool.close()
    return found


def _turns(people: Population, config: ServeBenchConfig) -> Iterator[tuple[int, str, str]]:
    """Members in rounds, each round in another order: nobody has a turn twice at a time."""
    rng, number = np.random.default_rng(0), itertools.count()
    some = [people.members[index % len(people.members)] for index in range(config.fresh_members)]
    some = list(dict.fromkeys(some))
    previous: list[str] = []
    while True:
        order = [some[index] for index in rng.permutation(len(some))]
        late = set(previous[-config.fresh_clients :])
        order = [one for one in order if one not in late] + [one for one in order if one in late]
        for member in order:
            yield next(number), member, people.titles[int(rng.integers(len(people.titles)))]
        previous = order


class _Members:
    """Sends a member's events and asks for them."""

    def __init__(self, pool: Pool, address: Address, config: ServeBenchConfig, found: Checked) -> None:
        self._pool = pool
        self._address = address
        self._config = config
        self._found = found
        self._before: dict[str, list[str]] = {}

    async def turn(self, number: int, member: str, title: str) -> None:
        """One event, and answers until one uses it."""
        who = {"member_id": member, "session_id": f"fresh-{member}"}
        event = {"event_id": f"fresh-{number:09d}", "at": datetime.now(UTC).isoformat(), "action": "detail"}
        body = {"events": [event | who | {"title_id": title}]}
        begun = time.perf_counter()
        while True:
            answer = await self._pool.ask(self._address.call(EVENTS, "/v1/events", body))
            if self._counted(answer):
                break
            if time.perf_counter() - begun > GIVE_UP_SECONDS:
                raise ConnectionError(f"an event was not acknowledged within {GIVE_UP_SECONDS} s: {answer.status}")
            await asyncio.sleep(0.02)
        if orjson.loads(answer.body)["accepted"] != 1:
            raise ValueError(f"event {event['event_id']} was not accepted: {answer.body.decode()[:300]}")
        acknowledged = time.perf_counter()
        self._found.acknowledged_ms.append((acknowledged - begun) * 1e3)
        ask = self._address.call(LIST, "/v1/recommend", who | {"k": self._config.k, "policy": "greedy"})
        while True:
            times = 2 if number % TWICE_EVERY == 0 else 1
            answers = await asyncio.gather(*(self._pool.ask(ask) for _ in range(times)))
            fresh = [self._uses(one, member, number) for one in answers if self._counted(one)]
            if fresh and all(fresh):
                self._found.changed_ms.append((time.perf_counter() - acknowledged) * 1e3)
                return
            if time.perf_counter() - acknowledged > GIVE_UP_SECONDS:
                self._found.never += 1
                return
            if not fresh:
                await asyncio.sleep(0.02)

    def _counted(self, answer: Answer) -> bool:
        self._found.statuses[answer.status] += 1
        return answer.status == 200

    def _uses(self, answer: Answer, member: str, number: int) -> bool:
        """Whether an answer knows of the member's newest event; it was acknowledged before it was asked for."""
        body = orjson.loads(answer.body)
        self._found.checks += 1
        titles = [item["title_id"] for item in body["items"]]
        if member in self._before:
            self._found.lists += 1
            self._found.other_list += titles != self._before[member]
        self._before[member] = titles
        last = body["freshness"]["last_event_id"]
        if last == f"fresh-{number:09d}":
            return True
        self._found.older.append(body["decision_id"])
        self._found.said_so += "session_log" in body["freshness"]["stale"]
        return False


def figures_of(found: Checked) -> dict[str, Any]:
    """Percentiles and counts."""
    nothing = np.array([float("nan")])
    return {
        "acknowledged to changed answer": percentiles(np.array(found.changed_ms) if found.changed_ms else nothing),
        "sent to acknowledged": percentiles(np.array(found.acknowledged_ms) if found.acknowledged_ms else nothing),
        "checks": found.checks,
        "older": len(found.older),
        "older_examples": found.older[:10],
        "older_that_said_so": found.said_so,
        "events_never_used": found.never,
        "lists_changed_share": found.other_list / max(1, found.lists),
        "statuses": {str(status): number for status, number in sorted(found.statuses.items())},
    }


def bars_of(found: Checked) -> dict[str, Any]:
    """What has to hold."""
    p99 = figures_of(found)["acknowledged to changed answer"]["p99_ms"]
    return {
        "p99 from acknowledged to changed answer, ms": at_most(p99, MOST_MS),
        f"answers older than an acknowledged event, of {found.checks}": none_of(len(found.older)),
        "events that no answer used": none_of(found.never),
    }


def _sections(figures: dict[str, Any], found: Checked) -> list[Section]:
    names = ("sent to acknowledged", "acknowledged to changed answer")
    columns = ("", *figures[names[0]])
    rows = [(name, *figures[name].values()) for name in names]
    counts = [(name, value) for name, value in figures.items() if name not in names]
    share_C = [100 * (number + 1) / max(1, len(found.changed_ms)) for number in range(len(found.changed_ms))]
    plot = Plot("times", "% of the checks", "ms at most", {names[1]: (share_C, sorted(found.changed_ms))}, points=False)
    return [Section("Times, ms", "", columns, rows, [plot]), Section("Counts", "", ("", ""), counts)]
