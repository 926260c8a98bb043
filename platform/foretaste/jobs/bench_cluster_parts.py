"""What comes over a cluster that serves, part by part: what was answered meanwhile, and what is there afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from foretaste.jobs.bench_cluster_stand import APPLICATIONS, Stand
from foretaste.jobs.bench_cluster_way import REFUSED, WayIn
from foretaste.jobs.bench_serve_calls import Address, population
from foretaste.jobs.bench_serve_config import ServeBenchConfig
from foretaste.jobs.bench_serve_faults import Ended, Span, summed, under_load
from foretaste.jobs.bench_serve_injected import Injected
from foretaste.jobs.bench_serve_report import at_least, at_most, none_of
from foretaste.jobs.bench_serve_stored import missing
from foretaste.jobs.keys import own_key
from foretaste.jobs.machines import Machine

HEAD_GONE, WORKER_GONE = 0.99, 0.995
SHARES = ("past_refused", "in_all")
"""Those of `rates` that are held to a bar."""
WRONG = "0" * 64


@dataclass(frozen=True, slots=True)
class Found:
    """What one part gives."""

    figures: dict[str, Any]
    bars: dict[str, dict[str, Any]]
    rows: Sequence[Ended] = ()
    spans: Sequence[Span] = ()


def token(stand: Stand) -> Found:
    """Ask the dashboard and the job API, with the token, without it, and with another."""
    asked = {
        "applications are read": ("GET", APPLICATIONS, None),
        "applications are changed": ("PUT", APPLICATIONS, stand.application()),
        "a job is submitted": ("POST", "/api/jobs/", {"entrypoint": "true"}),
        "jobs are listed": ("GET", "/api/jobs/", None),
        "nodes are listed": ("GET", "/nodes?view=summary", None),
    }
    figures: dict[str, Any] = {}
    let_in = 0
    for what, (method, path, body) in asked.items():
        headers: dict[str, dict[str, str]] = {"without": {}, "wrong": {"Authorization": f"Bearer {WRONG}"}}
        figures[what] = {
            name: httpx.request(method, stand.url + path, json=body, headers=one, timeout=60.0).status_code
            for name, one in headers.items()
        }
        let_in += sum(status not in (401, 403) for status in figures[what].values())
    known = httpx.get(stand.url + APPLICATIONS, headers=stand.authorised, timeout=60.0).status_code
    figures["applications are read, with it"] = known
    bars = {"calls without the token that are let in": none_of(let_in)}
    return Found(figures, bars | {"calls with the token that are refused": none_of(int(known != 200))})


def head(stand: Stand) -> Found:
    """Kill the head, leave it gone for a while, and start it again."""

    def again() -> None:
        stand.start_head()
        stand.wait(stand.whole, "the head knows all of it again")

    fault = Injected("the head is killed", stand.head.kill, again, seconds=stand.config.outage_seconds)
    return _hurt(stand, "head", [fault], least=HEAD_GONE)


def worker(stand: Stand) -> Found:
    """Kill a worker, leave it gone for a while, and start it again; then the same with its network, of another one."""
    killed, lost = stand.workers[0], stand.workers[1]
    schedule = [_gone(stand, killed, "a worker is killed", killed.kill)]
    if stand.config.unplug:
        schedule.append(_gone(stand, lost, "a worker is cut off the network", lost.unplug))
    return _hurt(stand, "worker", schedule, least=WORKER_GONE)


def _gone(stand: Stand, machine: Machine, name: str, act: Callable[[], None]) -> Injected:
    """A worker that goes in some way, and comes again as a new node."""
    node: list[str] = []

    def go() -> None:
        node.append(stand.node_at(machine.address))
        act()

    def again() -> None:
        machine.kill()
        machine.plug()
        stand.start_worker(machine)
        stand.wait(lambda: stand.whole(without=node[0]), "the worker serves again")

    return Injected(name, go, again, seconds=stand.config.outage_seconds)


def upgrade(stand: Stand) -> Found:
    """Deploy the application with other settings: each replica is made anew, while the others answer."""
    stand.serving |= {"epsilon": stand.settings.serving.epsilon / 2}
    change = Injected("the application is upgraded", stand.deploy, seconds=0.0)
    return _hurt(stand, "upgrade", [change], least=1.0)


def scale(stand: Stand) -> Found:
    """Have another worker join and take a replica, then take replica and worker away, as a drain of its node does."""
    number = len(stand.workers)

    def out() -> None:
        stand.another()
        stand.deploy(replicas=number + 1)

    def replicas_in() -> None:
        stand.deploy(replicas=number)

    def worker_in() -> None:
        gone = stand.workers[-1]
        node = stand.node_at(gone.address)
        gone.stop(seconds=stand.deployment.service.grace_seconds)
        stand.workers.remove(gone)
        stand.wait(lambda: stand.whole(without=node), "the others serve")

    names = ("a worker and a replica more", "a replica fewer", "a worker is drained")
    acts = (out, replicas_in, worker_in)
    return _hurt(stand, "scale", [Injected(*one, seconds=0.0) for one in zip(names, acts, strict=True)], least=1.0)


def redis(stand: Stand) -> Found:
    """Kill the Redis of session log and features, and start it again on what it had written, some times."""
    times = range(1, stand.config.redis_restarts + 1)
    server, seconds = stand.redis, stand.config.redis_seconds
    schedule = [Injected(f"Redis is killed, {n}", server.kill, server.start, seconds=seconds) for n in times]
    found = _hurt(stand, "redis", schedule, least=None)
    found.bars["redis: failures other than stated shedding"] = none_of(found.figures["unstated"])
    recovered = [one["recovery_seconds"] for one in found.figures["faults"].values()]
    worst = max((stand.config.settle_seconds + 1 if one is None else one for one in recovered), default=0.0)
    found.bars["redis: seconds until all is well after a restart"] = at_most(worst, stand.config.settle_seconds)
    return found


def rates(rows: Sequence[Ended]) -> dict[str, Any]:
    """Shares of requests that were answered.

    `at_first`: at their first try, as through a Service alone. `past_refused`: where a try at which nobody listened is
    passed on, as an ingress does. `in_all`: where what was cut off is repeated, too, as our client and our ingress do.
    """
    good = [one.before for one in rows if one.status == 200]
    shares = {
        "at_first": sum(not before for before in good),
        "past_refused": sum(set(before) <= {REFUSED} for before in good),
        "in_all": len(good),
    }
    failed: dict[str, int] = {}
    for one in rows:
        for how in one.before + (() if one.status == 200 else (f"at last {one.status}",)):
            failed[how] = failed.get(how, 0) + 1
    return {
        "requests": len(rows),
        **{name: number / len(rows) if rows else 0.0 for name, number in shares.items()},
        "failed_tries": dict(sorted(failed.items())),
    }


def _hurt(stand: Stand, name: str, schedule: Sequence[Injected], *, least: float | None) -> Found:
    """Load the cluster while it comes; `least` is the share of requests that have to be answered meanwhile."""
    config, stand.given_up = stand.config, False
    serve = ServeBenchConfig(settle_seconds=config.settle_seconds, least_events=0)
    people = population(stand.settings.tables.prepared, least_events=serve.least_events)
    port = stand.deployment.service.port
    address = Address(stand.workers[0].address, port, own_key(stand.settings.tables))
    way = WayIn(stand.addresses, port=port, probe_seconds=config.probe_seconds, closed=stand.give_up)
    rows, spans, stored = under_load(
        people, serve, address, schedule, per_second=config.per_second, events_share=config.events_share,
        name=stand.unused(name), lead_seconds=config.lead_seconds, longer_seconds=len(schedule) * config.ready_seconds,
        way=way,
    )  # fmt: skip
    figures = summed(rows, spans) | missing(stand.settings, stored)
    meanwhile = [one for one in rows if any(span.begun <= one.due < span.ended for span in spans)]
    afterwards = [one for one in rows if any(span.ended <= one.due < span.until for span in spans)]
    figures |= {"meanwhile": rates(meanwhile), "afterwards": rates(afterwards), "nobody_ready": way.num_nobody}
    bars = {
        f"{name}: acknowledged events lost": none_of(figures["missing_events"]),
        f"{name}: answered decisions lost": none_of(figures["missing_decisions"]),
    }
    if least is not None:
        for what, wanted in (("meanwhile", least), ("afterwards", 1.0)):
            for which in SHARES:
                bars[f"{name}: share answered {which} {what}"] = at_least(figures[what][which], wanted)
    return Found(figures, bars, rows, spans)
