"""Decisions of every kind made again after a restart: explored, with fallbacks, of guests, before and after a swap."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from foretaste.client.calls import CallError, Calls
from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.columns import LOGGED_EVENTS, conform
from foretaste.contracts.events import GUEST
from foretaste.contracts.wire_records import ReplayRequest
from foretaste.feedback.decision_log import decision_tables, plain_rows
from foretaste.feedback.event_log import EVENTS_FOLDER, EventLog
from foretaste.feedback.past import Past
from foretaste.feedback.session_log import open_session_log
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.bench_serve_config import ServeBenchConfig
from foretaste.jobs.bench_serve_made import copied, folder_of, made, service_config
from foretaste.jobs.bench_serve_report import Section, at_least, bar, none_of, write_report
from foretaste.jobs.faulty import MAIN as FAULTY
from foretaste.jobs.faulty import Fault, Faults
from foretaste.jobs.processes import ServiceProcess
from foretaste.jobs.settings import Settings
from foretaste.jobs.traffic import Milestone, Sent, World, drive
from foretaste.jobs.train import train
from foretaste.ops.redis_server import free_port
from foretaste.ops.releases import current_release, promote_release, releases, roll_back
from foretaste.ops.tables import read_prepared, read_titles
from foretaste.ops.telemetry import progress, say
from foretaste.serving.again import again
from foretaste.serving.problems import ConflictError
from foretaste.serving.replay import Replay
from foretaste.serving.service import utc_now
from foretaste.signals.store import FeatureStore

FORCED = (
    (Fault.RANKER_FAILS, 0.10, 0.20),
    (Fault.INTENT_FAILS, 0.30, 0.40),
    (Fault.SESSION_LOG_FAILS, 0.50, 0.60),
    (Fault.FEATURES_FAIL, 0.70, 0.80),
    (Fault.RANKER_SLOW, 0.90, 0.97),
)
"""What fails from one share of the first leg's decisions to another."""
FIRST, SWAPPING, SECOND, RETURNING = 0.5, 0.1, 0.2, 0.1
"""Shares of the decisions: under faults; while another release takes over; by that; while the first one comes back."""
CONTROLS = ("filter", "boost", "exclude_ids")
NUM_PROCESSES, THREADS = 2, 6
SECOND_SEED = 1_000_003
SERVING = {"epsilon": 0.2, "audit_share": 0.02, "housekeeping_seconds": 5.0}


def replays(settings: Settings, config: ServeBenchConfig, options: BenchOptions) -> dict[str, Any]:
    """Make decisions under faults and a swap of models, end every process, and make each of them again."""
    made_at = _with_two_releases(made(settings, config))
    own = copied(made_at, **SERVING)
    figures = decided_and_made_again(own, config)
    bars = bars_of(figures)
    folder = folder_of(settings) / "reports"
    report = write_report(own, config, folder, "replay", bars, _sections(figures))
    return {"figures": figures, "bars": bars, "report": report}


def decided_and_made_again(settings: Settings, config: ServeBenchConfig) -> dict[str, Any]:
    """The same in a workspace that has two releases; gives the figures."""
    service = service_config(settings)
    log = settings.tables.root / "process.txt"
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(ServiceProcess(service, port=free_port(), log=log, main=FAULTY))
            for _ in range(NUM_PROCESSES)
        ]
        legs = _driven(settings, processes, config.decisions)
        for fault in Fault:
            Faults(settings.tables.root).end(fault)
    rows = _decisions(settings)
    figures = _kinds(rows, legs) | {"by_library": made_again(settings, rows)}
    return figures | {"over_http": _over_http(settings, rows, config.over_http)}


def _with_two_releases(settings: Settings) -> Settings:
    """The same, with a second set of models, trained with other seeds; the first one answers."""
    registry = settings.tables.registry
    if len(releases(registry)) < 2:
        first = current_release(registry)
        assert first is not None
        say("a second release, with other seeds")
        train(
            settings.model_copy(
                update={
                    "training": settings.training.model_copy(update={"seed": SECOND_SEED}),
                    "ranker_training": settings.ranker_training.model_copy(update={"seed": SECOND_SEED}),
                }
            )
        )
        promote_release(registry, first.name, at=datetime.now(UTC))
    return settings


def _world(settings: Settings) -> World:
    members = read_prepared(settings.tables.prepared, "interactions", columns=["actor_id"])["actor_id"].unique()
    known = sorted(name for name in members.to_pylist() if not name.startswith(GUEST))
    titles = catalogue(read_titles(settings.tables.prepared)).ids
    return World([*known, *(f"new-{number}" for number in range(20))], titles)


def _driven(settings: Settings, processes: Sequence[ServiceProcess], number: int) -> list[Sent]:
    """So many decisions, in legs: of each release there are some however fast they are made."""
    world, urls = _world(settings), [process.url for process in processes]
    swap, take_back = _swaps(settings, processes)
    legs: list[tuple[float, list[Milestone]]] = [
        (FIRST, _forced(settings)),
        (SWAPPING, [(0.0, swap)]),
        (SECOND, []),
        (RETURNING, [(0.0, take_back)]),
    ]
    sizes = [round(share * number) for share, _ in legs]
    found = []
    for seed, size in enumerate([*sizes, number - sum(sizes)]):
        milestones = legs[seed][1] if seed < len(legs) else []
        if size > 0:
            found.append(drive(urls, world, requests=size, threads=THREADS, seed=seed, milestones=milestones))
    return found


def _forced(settings: Settings) -> list[Milestone]:
    faults = Faults(settings.tables.root)
    found: list[Milestone] = []
    for fault, begin, end in FORCED:
        starts, ends = faults.switch(fault)
        found += [(begin, starts), (end, ends)]
    return found


def _swaps(settings: Settings, processes: Sequence[ServiceProcess]) -> tuple[Callable[[], None], Callable[[], None]]:
    """Another release, and the first again: one process after the other, so that somebody answers all the while."""
    registry = settings.tables.registry

    def restart() -> None:
        for process in processes:
            process.stop()
            process.start()

    def swap() -> None:
        known = current_release(registry)
        assert known is not None
        other = next(one.name for one in releases(registry) if one.name != known.name)
        promote_release(registry, other, at=utc_now())
        restart()

    def take_back() -> None:
        roll_back(registry, at=utc_now())
        restart()

    return swap, take_back


def _decisions(settings: Settings) -> list[dict[str, Any]]:
    """All decisions of those who were not deleted."""
    deleted = Tombstones(settings.tables.serving / TOMBSTONES_FILE).read()
    rows = [row for table in decision_tables(settings.tables.serving / "decisions") for row in plain_rows(table)]
    return [row for row in rows if (row["member_id"] or GUEST + row["session_id"]) not in deleted]


def _kinds(rows: Sequence[Mapping[str, Any]], legs: Sequence[Sent]) -> dict[str, Any]:
    asked = Counter(name for row in rows for name in CONTROLS if json.loads(row["request"]).get(name))
    return {
        "decisions": len(rows),
        "answered": sum(len(sent.answered) for sent in legs),
        "refused": [one for sent in legs for one in sent.refused][:20],
        "kinds": dict(Counter(row["kind"] or "recommend" for row in rows)),
        "explored": sum(row["explored"] for row in rows),
        "guests": sum(row["member_id"] is None for row in rows),
        "fallbacks": dict(Counter(row["fallback"] for row in rows if row["fallback"] is not None)),
        "levels": dict(Counter(row["items"][0]["source"] for row in rows if row["items"])),
        "models": dict(Counter(str(row["intent_model"]) for row in rows)),
        "asked_for": dict(asked),
        "empty_lists": sum(not row["items"] and (row["kind"] or "recommend") == "recommend" for row in rows),
        "decisions_per_second": [round(sent.requests_per_second, 1) for sent in legs],
    }


def made_again(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make decisions again by what the endpoint calls, from what is on disk and nothing else."""
    tables, begun = settings.tables, time.monotonic()
    log = open_session_log(settings.serving.session_log, tables.serving)
    with contextlib.closing(log):
        events = EventLog(tables.serving / EVENTS_FOLDER)
        events.ship(log, deleted=Tombstones(tables.serving / TOMBSTONES_FILE).read())
    past = Past(conform(_first(events), LOGGED_EVENTS, what="events of the bench"))
    views = FeatureStore(settings.features_repo.absolute(), tables.features, settings.features_url)
    replay = Replay(tables.registry, tables.prepared, views)
    identical, differ, left_out = 0, Counter[str](), Counter[str]()
    examples: dict[str, str] = {}
    with contextlib.closing(views), progress("replay", total=len(rows), unit="decisions") as advance:
        for row in rows:
            try:
                found = again(replay, tables.registry, row, past, ReplayRequest())
            except ConflictError as why:
                left_out[str(why)] += 1
                examples.setdefault(str(why), row["decision_id"])
            else:
                identical += found.identical
                for one in found.differences:
                    differ[one.name] += 1
                    examples.setdefault(one.name, row["decision_id"])
            advance(1)
    return {
        "replayed": len(rows),
        "identical": identical,
        "differences": dict(differ),
        "left_out": dict(left_out),
        "examples": examples,
        "per_second": round(len(rows) / max(time.monotonic() - begun, 1e-9), 1),
    }


def _first(events: EventLog) -> Any:
    known = pl.DataFrame(pl.from_arrow(events.read()))
    return known.sort("sequence").unique(["actor_id", "event_id"], keep="first").to_arrow()


def _over_http(settings: Settings, rows: Sequence[Mapping[str, Any]], number: int) -> dict[str, Any]:
    """The same of some of them by the endpoint of a service that was started again."""
    some = random.Random(0).sample(list(rows), min(number, len(rows)))
    found: Counter[str] = Counter()
    failures: list[str] = []
    log = settings.tables.root / "process.txt"
    with (
        ServiceProcess(service_config(settings), port=free_port(), log=log) as process,
        Calls(process.url, timeout_seconds=120.0) as client,
    ):
        for row in some:
            try:
                answer = client.replay(row["decision_id"])
            except CallError as error:
                failures.append(str(error)[:300])
                continue
            listed = [item["title_id"] for item in answer["items"]] == [item["title_id"] for item in row["items"]]
            found["identical"] += bool(answer["identical"] and listed)
    return {"replayed": len(some), "identical": found["identical"], "failures": failures[:10]}


def bars_of(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What has to hold; a replay of nothing, or of nothing but the usual, holds nothing."""
    library, http = figures["by_library"], figures["over_http"]
    bars = {
        "share of decisions replayed identically": _all(library),
        "share of them over HTTP": _all(http),
        "decisions that were answered": at_least(figures["decisions"], 1),
        "calls that were refused": none_of(len(figures["refused"])),
        "empty lists": none_of(figures["empty_lists"]),
    }
    mixed = {
        "explored": figures["explored"],
        "of guests": figures["guests"],
        "with a filter, a boost or excluded titles": sum(figures["asked_for"].values()),
        "sorts of fallback": len(figures["fallbacks"]),
    }
    bars |= {f"decisions: {what}": at_least(value, 1) for what, value in mixed.items()}
    return bars | {"releases that answered": at_least(len(figures["models"].keys() - {"None"}), 2)}


def _all(found: Mapping[str, Any]) -> dict[str, Any]:
    share = found["identical"] / found["replayed"] if found["replayed"] else 0.0
    return bar(share, "== 1", bool(found["replayed"]) and found["identical"] == found["replayed"])


def _sections(figures: Mapping[str, Any]) -> list[Section]:
    plain = [(name, value) for name, value in figures.items() if not isinstance(value, dict)]
    counts = [(name, key, number) for name, of in figures.items() if isinstance(of, dict) for key, number in of.items()]
    return [Section("Decisions", "", ("", ""), plain), Section("Of them", "", ("", "", "number"), counts)]
