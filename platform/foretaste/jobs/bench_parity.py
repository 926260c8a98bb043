"""`foretaste bench parity`: the synthetic service asked under faults, in both stores, and every answer made again."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from foretaste.contracts.catalogue import catalogue
from foretaste.contracts.events import GUEST
from foretaste.feedback.decision_log import decision_tables
from foretaste.feedback.session_log import LogKind
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs.cluster import cluster
from foretaste.jobs.features import features, publish
from foretaste.jobs.imports import import_log
from foretaste.jobs.parity import DELETED, parity
from foretaste.jobs.prepare import prepare
from foretaste.jobs.processes import ServiceProcess
from foretaste.jobs.settings import Settings
from foretaste.jobs.traffic import Milestone, Sent, World, drive
from foretaste.jobs.train import train
from foretaste.ops.redis_server import free_port, redis_server
from foretaste.ops.tables import read_prepared, read_titles
from foretaste.ops.telemetry import say
from foretaste.serving.config import ServiceConfig

WORLD = {"num_members": 600, "days": 42}
QUICK_WORLD = {"num_members": 150, "days": 21}
QUICK_REQUESTS = 300
EPOCHS = 2
NUM_PROCESSES = 2
DAYS_TO_COME = 6
"""Days of the world that are published and loaded only while traffic goes on."""
KILLS = (0.2, 0.5, 0.8)
PUBLICATIONS = (0.1, 0.3, 0.45, 0.6, 0.7, 0.9)
QUICK_KILLS, QUICK_PUBLICATIONS = (0.3,), (0.05, 0.6)
SERVING = {"audit_share": 1.0, "housekeeping_seconds": 2.0, "title_refresh_seconds": 5.0, "epsilon": 0.2}


def parity_bench(settings: Settings, *, requests: int = 100_000, quick: bool = False) -> dict[str, Any]:
    """Ask two processes of one workspace for `requests` lists, once with SQLite and once with Redis, and compare.

    Faults throughout: events twice, late, in disorder and from the future, at both processes at once, merges and
    deletions, kills and restarts, publications and loads of slow views. Returns figures and bars by store.
    """
    if quick:
        requests = min(requests, QUICK_REQUESTS)
    root = settings.tables.root / "bench" / "parity"
    settings = _made(settings, root / "made", quick=quick)
    figures: dict[str, Any] = {}
    bars: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for kind in LogKind:
        if kind is LogKind.REDIS and shutil.which("redis-server") is None:
            skipped[kind.value] = "redis-server is not installed"
            continue
        say(f"\n{kind.value}: {requests:,} requests")
        with contextlib.ExitStack() as stack:
            url = None if kind is LogKind.SQLITE else stack.enter_context(redis_server("--appendfsync", "everysec"))
            of_store = _of_store(settings, root / kind.value, kind, url)
            faults = (QUICK_KILLS, QUICK_PUBLICATIONS) if quick else (KILLS, PUBLICATIONS)
            figures[kind.value] = _store(of_store, requests, *faults)
        bars |= _bars(kind.value, figures[kind.value])
    return {"bench": "parity", "requests": requests, "figures": figures, "bars": bars, "skipped": skipped}


def _made(settings: Settings, workspace: Path, *, quick: bool) -> Settings:
    """A workspace with prepared data and trained models."""
    shutil.rmtree(workspace, ignore_errors=True)
    world = settings.world.model_copy(update=QUICK_WORLD if quick else WORLD)
    training = settings.training.model_copy(update={"epochs": EPOCHS})
    ranking = settings.ranker_training.model_copy(update={"epochs": EPOCHS})
    update = {"workspace": workspace, "world": world, "training": training, "ranker_training": ranking}
    settings = settings.model_copy(update=update)
    with cluster(settings.cluster):
        import_log(settings, "world")
        prepare(settings)
        features(settings, until=_days(settings, 0))
        train(settings)
    return settings


def _of_store(settings: Settings, workspace: Path, kind: LogKind, url: str | None) -> Settings:
    """The same in a workspace of its own, with nothing served yet and the newest days not yet published."""
    made = settings.tables
    shutil.rmtree(workspace, ignore_errors=True)
    for folder in (made.prepared, made.registry):
        shutil.copytree(folder, workspace / folder.name)
    where: dict[str, Any] = {"kind": kind} | ({} if url is None else {"url": url})
    where |= {"window_days": None, "durable": False}  # the world is in the past, and no power fails here
    log = settings.serving.session_log.model_copy(update=where)
    serving = settings.serving.model_copy(update={**SERVING, "session_log": log, "api_keys": False})
    settings = settings.model_copy(update={"workspace": workspace, "features_url": url, "serving": serving})
    features(settings, until=_days(settings, DAYS_TO_COME))
    return settings


def _store(settings: Settings, requests: int, kills: Sequence[float], publications: Sequence[float]) -> dict[str, Any]:
    sent = _served(settings, requests, kills, publications)
    found = parity(settings)
    logged, missing = _logged(settings, sent)
    return {
        "mismatching_values": sum(one["count"] for one in found["mismatches"].values()),
        "mismatches": found["mismatches"],
        "requests_left_out": sum(found["left_out"].values()),
        "left_out": found["left_out"],
        "answered": len(sent.answered),
        "answered_and_not_logged": missing,
        "logged": logged,
        "compared": found["decisions"],
        "of_deleted_members": found["set_aside"].get(DELETED, 0),
        "values_compared": found["compared"]["values"],
        "values_by_group": found["compared"]["groups"],
        "failed_inputs": found["failed_inputs"],
        "fallbacks": found["fallbacks"],
        "faults": dict(sent.counts),
        "kills_and_publications": sent.num_milestones,
        "refused": sent.refused[:20],
        "served_per_second": round(sent.requests_per_second, 1),
        "replayed_per_second": found["requests_per_second"],
        "serving_seconds": round(sent.seconds, 1),
        "replay_seconds": found["seconds"],
    }


def _served(settings: Settings, requests: int, kills: Sequence[float], publications: Sequence[float]) -> Sent:
    tables = settings.tables
    members = read_prepared(tables.prepared, "interactions", columns=["actor_id"])["actor_id"].unique().to_pylist()
    world = World(
        [*sorted(name for name in members if not name.startswith(GUEST)), *(f"new-{n}" for n in range(20))],
        catalogue(read_titles(tables.prepared)).ids,
    )
    config = ServiceConfig(
        workspace=tables.root,
        features_repo=settings.features_repo.absolute(),
        features_url=settings.features_url,
        rule=settings.prepare.rule,
        serving=settings.serving,
    )
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(ServiceProcess(config, port=free_port(), log=tables.root / f"process-{number}.txt"))
            for number in range(NUM_PROCESSES)
        ]
        urls = [process.url for process in processes]
        milestones = _milestones(settings, processes, kills, publications)
        return drive(urls, world, requests=requests, threads=8, milestones=milestones)


def _milestones(
    settings: Settings, processes: Sequence[ServiceProcess], kills: Sequence[float], publications: Sequence[float]
) -> list[Milestone]:
    def restart(process: ServiceProcess) -> None:
        process.kill()
        time.sleep(0.5)
        process.start()

    found: list[Milestone] = [
        (share, partial(restart, processes[number % len(processes)])) for number, share in enumerate(kills)
    ]
    for number, share in enumerate(publications, start=1):
        left = DAYS_TO_COME - DAYS_TO_COME * number // len(publications)
        found.append((share, partial(_publish, settings, left)))
    return found


def _publish(settings: Settings, left: int) -> None:
    publish(settings, until=_days(settings, left))


def _days(settings: Settings, before: int) -> str:
    """The last midnight of the log, or one so many days before it."""
    newest: datetime = pc.max(read_prepared(settings.tables.prepared, "interactions", columns=["at"])["at"]).as_py()
    midnight = newest.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1, minutes=1)
    return (midnight - timedelta(days=before)).isoformat()


def _logged(settings: Settings, sent: Sent) -> tuple[int, int]:
    """Number of decisions in the log, and of answers whose decision is not there though nobody deleted its actor."""
    names: set[str] = set()
    for table in decision_tables(settings.tables.serving / "decisions"):
        names.update(table["decision_id"].to_pylist())
    deleted = Tombstones(settings.tables.serving / TOMBSTONES_FILE).read()
    return len(names), sum(name not in names and actor not in deleted for name, actor in sent.answered.items())


def _bars(store: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """What has to hold; a request of a deleted member has nothing left to be compared with and is not left out."""
    zeros = {
        "mismatching values": found["mismatching_values"],
        "requests left out": found["requests_left_out"],
        "answers not in the decision log": found["answered_and_not_logged"],
        "refused calls": len(found["refused"]),
        "requests neither compared nor of deleted members": found["logged"]
        - found["compared"]
        - found["of_deleted_members"],
    }
    return {f"{name}, {store}": {"value": value, "want": "== 0", "holds": value == 0} for name, value in zeros.items()}
