"""The workspace that `bench serve` serves, made once, and the services that are started on copies of it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from foretaste.feedback.event_log import EVENTS_FOLDER, EventLog
from foretaste.feedback.session_log import open_session_log
from foretaste.jobs.bench_serve_config import ServeBenchConfig
from foretaste.jobs.cluster import cluster
from foretaste.jobs.faulty import FAULTS, faulty_replica
from foretaste.jobs.features import features
from foretaste.jobs.imports import import_log
from foretaste.jobs.plain_app import MAIN as PLAIN
from foretaste.jobs.prepare import prepare
from foretaste.jobs.processes import MAIN, ServiceProcess
from foretaste.jobs.serve import running
from foretaste.jobs.settings import Settings
from foretaste.jobs.train import train
from foretaste.ops.redis_server import free_port
from foretaste.serving.config import ServiceConfig

FUSED, ALONE = "ray serve, fused", "ray serve, fused, a pass each"
UVICORN = "uvicorn, the same app"
PLAIN_ALONE, PLAIN_SHARED = "plain, a pass each", "plain, shared passes"
PLAIN_PROCESSES = "plain, a pass each, as many processes"
SUBJECTS = (FUSED, ALONE, UVICORN, PLAIN_SHARED, PLAIN_PROCESSES, PLAIN_ALONE)
QUICK_SUBJECTS = (UVICORN, PLAIN_SHARED, PLAIN_ALONE)

_ABOUT = "made.json"
_NOT_SERVED = shutil.ignore_patterns("raw", "runs", "mlflow.db", _ABOUT)


def folder_of(settings: Settings) -> Path:
    """Where `bench serve` keeps everything."""
    return settings.tables.root / "bench" / "serve"


def made(settings: Settings, config: ServeBenchConfig) -> Settings:
    """A workspace with prepared data, slow views, a filled session log and trained models; kept for the next run."""
    size = {"num_movies": config.movies, "num_shows": config.shows, "num_members": config.members, "days": config.days}
    log = settings.serving.session_log.model_copy(update={"window_days": None})  # the world is in the past
    serving = settings.serving.model_copy(update={"session_log": log, "audit_share": 0.0})
    workspace = folder_of(settings) / "made"
    update: dict[str, Any] = {"workspace": workspace, "serving": serving}
    update["world"] = settings.world.model_copy(update=size)
    update["training"] = settings.training.model_copy(update={"epochs": 1})
    update["ranker_training"] = settings.ranker_training.model_copy(update={"epochs": 1})
    settings = settings.model_copy(update=update)
    about = {"world": settings.world.model_dump(mode="json"), "intent": settings.intent.model_dump(mode="json")}
    if (workspace / _ABOUT).is_file() and json.loads((workspace / _ABOUT).read_text()) == about:
        return settings
    shutil.rmtree(workspace, ignore_errors=True)
    with cluster(settings.cluster):
        import_log(settings, "world")
        prepare(settings)
        features(settings)
        train(settings)
    _shipped(settings)
    (workspace / _ABOUT).write_text(json.dumps(about))
    return settings


def _shipped(settings: Settings) -> None:
    """Ship the events that the session log was filled with: otherwise every service would, in the middle of a load."""
    folder = settings.tables.serving
    events = EventLog(folder / EVENTS_FOLDER)
    with contextlib.closing(open_session_log(settings.serving.session_log, folder)) as log:
        events.ship(log)
    events.compact()


def copied(settings: Settings, **serving: Any) -> Settings:
    """The same in a copy of the workspace, where nothing was served yet; with other settings of serving."""
    made_at = settings.tables.root
    workspace = made_at.parent / "run"
    shutil.rmtree(workspace, ignore_errors=True)
    shutil.copytree(made_at, workspace, ignore=_NOT_SERVED)
    changed = settings.serving.model_copy(update=serving)
    return settings.model_copy(update={"workspace": workspace, "serving": changed})


def service_config(settings: Settings) -> ServiceConfig:
    """What a process without Ray is given; it asks for no keys."""
    return ServiceConfig(
        workspace=settings.tables.root,
        features_repo=settings.features_repo.absolute(),
        features_url=settings.features_url,
        rule=settings.prepare.rule,
        serving=settings.serving.model_copy(update={"api_keys": False}),
    )


@contextlib.contextmanager
def serving(settings: Settings, name: str, *, replicas: int) -> Iterator[tuple[Settings, str]]:
    """One of SUBJECTS, on a session log and a decision log of its own; gives its settings and its address.

    Those on Ray Serve have `replicas`, and PLAIN_PROCESSES as many processes; the others are one process.
    """
    alone = name in (ALONE, PLAIN_ALONE, PLAIN_PROCESSES)
    several = name in (FUSED, ALONE, PLAIN_PROCESSES)
    own = copied(settings, num_replicas=replicas if several else 1, **({"batch_requests": 1} if alone else {}))
    if name in (FUSED, ALONE):
        with on_ray(own) as url:
            yield own, url
        return
    main = MAIN if name == UVICORN else PLAIN
    log = own.tables.root / "service.log"
    with ServiceProcess(service_config(own), port=free_port(), log=log, main=main) as process:
        yield own, process.url


@contextlib.contextmanager
def on_ray(settings: Settings, *, faulty: bool = False) -> Iterator[str]:
    """The service on a Ray of its own; with `faulty` its replicas have the switches of `faulty.Faults`."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(cluster(settings.cluster))
        if faulty:
            from foretaste.serving import graph

            (settings.tables.root / FAULTS).mkdir(exist_ok=True)
            stack.enter_context(mock.patch.object(graph, "Replica", faulty_replica()))
        yield stack.enter_context(running(settings, port=free_port()))
