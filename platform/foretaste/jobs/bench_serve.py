"""`foretaste bench serve`: lists over HTTP under load, beside plain uvicorn and FastAPI doing the same, in one run.

Each service is started on a copy of one workspace and asked by the same generator on the same machine: closed loops of
several sizes, with a share of events among the requests. Bars are ratios within the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.table import Table

from foretaste.contracts.events import GUEST
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.cluster import cluster
from foretaste.jobs.features import features
from foretaste.jobs.imports import import_log
from foretaste.jobs.keys import own_key
from foretaste.jobs.load import Call, Sent, call, closed_loop
from foretaste.jobs.plain_app import MAIN as PLAIN
from foretaste.jobs.prepare import prepare
from foretaste.jobs.processes import MAIN, ServiceProcess
from foretaste.jobs.serve import running
from foretaste.jobs.settings import Settings
from foretaste.jobs.train import train
from foretaste.jobs.workspace import Workspace
from foretaste.ops.memory import tree_bytes
from foretaste.ops.redis_server import free_port
from foretaste.ops.tables import read_prepared, read_titles
from foretaste.ops.telemetry import console, say
from foretaste.serving.config import ServiceConfig

WORLD = {"num_movies": 6_700, "num_shows": 3_300, "num_members": 2_500, "days": 35}
QUICK_WORLD = {"num_members": 300, "days": 21}
CLIENTS, QUICK_CLIENTS = (1, 8, 32), (1, 4)
SECONDS, QUICK_SECONDS = 12.0, 1.5
WARM_UP = 0.25
"""Share of the seconds that is not counted."""
ROUNDS = 2
EVENTS_SHARE = 0.1
CALLS = 20_000
LEAST_EVENTS = 50

FUSED, ALONE = "ray serve, fused", "ray serve, fused, a pass each"
UVICORN = "uvicorn, the same app"
PLAIN_ALONE, PLAIN_SHARED = "plain, a pass each", "plain, shared passes"
SUBJECTS = (FUSED, ALONE, UVICORN, PLAIN_SHARED, PLAIN_ALONE)
QUICK_SUBJECTS = (UVICORN, PLAIN_SHARED, PLAIN_ALONE)

Figures = dict[str, dict[int, dict[str, Any]]]
"""By service and number of clients."""


def serve_bench(settings: Settings, options: BenchOptions) -> dict[str, Any]:
    """Load every service in turn, twice over; returns figures by service and number of clients, and the bars."""
    quick = options.quick
    made = _made(settings, settings.tables.root / "bench" / "serve" / "made", quick=quick)
    clients, seconds = (QUICK_CLIENTS, QUICK_SECONDS) if quick else (CLIENTS, SECONDS)
    rounds: list[dict[str, dict[int, dict[str, Any]]]] = []
    for turn in range(1 if quick else ROUNDS):
        found: Figures = {}
        for name in QUICK_SUBJECTS if quick else SUBJECTS:
            with _running(made, name) as url:
                found[name] = _loaded(made, url, clients, seconds, seed=turn)
            say(f"round {turn + 1}  {name}: " + ", ".join(_short(number, one) for number, one in found[name].items()))
        rounds.append(found)
    figures = _means(rounds)
    _show(figures)
    bars = _bars(figures)
    return {"bench": "serve", "figures": figures, "bars": {} if quick else bars, "measured": bars, "skipped": {}}


def _made(settings: Settings, workspace: Path, *, quick: bool) -> Settings:
    """A workspace with prepared data, slow views, a filled session log and trained models."""
    world = settings.world.model_copy(update=QUICK_WORLD if quick else WORLD)
    log = settings.serving.session_log.model_copy(update={"window_days": None})  # the world is in the past
    serving = settings.serving.model_copy(update={"session_log": log, "audit_share": 0.0})
    update = {"workspace": workspace, "world": world, "serving": serving}
    update["training"] = settings.training.model_copy(update={"epochs": 1})
    update["ranker_training"] = settings.ranker_training.model_copy(update={"epochs": 1})
    settings = settings.model_copy(update=update)
    if (workspace / "made.json").is_file() and json.loads((workspace / "made.json").read_text()) == _about(settings):
        return settings
    shutil.rmtree(workspace, ignore_errors=True)
    with cluster(settings.cluster):
        import_log(settings, "world")
        prepare(settings)
        features(settings)
        train(settings)
    (workspace / "made.json").write_text(json.dumps(_about(settings)))
    return settings


def _about(settings: Settings) -> dict[str, Any]:
    return {"world": settings.world.model_dump(mode="json"), "intent": settings.intent.model_dump(mode="json")}


@contextlib.contextmanager
def _running(settings: Settings, name: str) -> Iterator[str]:
    """One of the services, on a session log and a decision log of its own; gives its address."""
    alone = name in (ALONE, PLAIN_ALONE)
    serving = settings.serving.model_copy(update={"batch_requests": 1} if alone else {})
    tables = settings.tables
    workspace = _run_folder(settings)
    shutil.rmtree(workspace, ignore_errors=True)
    shutil.copytree(tables.root, workspace, ignore=shutil.ignore_patterns("raw", "runs", "mlflow.db", "made.json"))
    own = settings.model_copy(update={"workspace": workspace, "serving": serving})
    if name in (FUSED, ALONE):
        with cluster(own.cluster), running(own, port=free_port()) as url:
            yield url
        return
    config = ServiceConfig(
        workspace=workspace,
        features_repo=own.features_repo.absolute(),
        features_url=own.features_url,
        rule=own.prepare.rule,
        serving=serving.model_copy(update={"api_keys": False}),
    )
    main = MAIN if name == UVICORN else PLAIN
    with ServiceProcess(config, port=free_port(), log=workspace / "service.log", main=main) as process:
        yield process.url


def _loaded(
    settings: Settings, url: str, clients: Sequence[int], seconds: float, *, seed: int
) -> dict[int, dict[str, Any]]:
    host, port = url.removeprefix("http://").split(":")
    calls = _calls(settings, f"{host}:{port}", seed=seed)
    asyncio.run(closed_loop(calls[:50], host=host, port=int(port), clients=2, seconds=min(2.0, seconds)))
    found: dict[int, dict[str, Any]] = {}
    for number in clients:
        sent = asyncio.run(closed_loop(calls, host=host, port=int(port), clients=number, seconds=seconds))
        found[number] = _figures(sent, seconds)
    found[clients[-1]]["tree_mib"] = tree_bytes(psutil.Process()) / 2**20
    return found


def _figures(sent: Sent, seconds: float) -> dict[str, Any]:
    counted = sent.of(after=WARM_UP * seconds)
    return {"all": counted.figures()} | {kind: counted.of(kind).figures() for kind in counted.kinds}


def _calls(settings: Settings, host: str, *, seed: int) -> list[Call]:
    """Requests of members with long histories, a share of them events; the same for every service of a round."""
    rng, at = np.random.default_rng(seed), datetime.now(UTC).isoformat()
    key = own_key(Workspace(_run_folder(settings)))
    headers = [] if key is None else [("X-API-Key", key)]
    rows = read_prepared(settings.tables.prepared, "interactions", columns=["actor_id"])["actor_id"].value_counts()
    counted = {row["values"]: row["counts"] for row in rows.to_pylist() if not row["values"].startswith(GUEST)}
    members = sorted(name for name, count in counted.items() if count >= LEAST_EVENTS) or sorted(counted)
    titles = read_titles(settings.tables.prepared)["title_id"].to_pylist()
    found = []
    for number in range(CALLS):
        who = {"member_id": members[int(rng.integers(len(members)))], "session_id": "load"}
        if rng.random() >= EVENTS_SHARE:
            kind, path, body = "recommend", "/v1/recommend", who | {"k": 10}
        else:
            title = titles[int(rng.integers(len(titles)))]
            event = {"event_id": f"load-{seed}-{number}", "at": at, "action": "detail", "title_id": title} | who
            kind, path, body = "events", "/v1/events", {"events": [event]}
        found.append(call(kind, "POST", path, json.dumps(body).encode(), host=host, headers=headers))
    return found


def _run_folder(settings: Settings) -> Path:
    return settings.tables.root.parent / "run"


def _short(number: int, one: Mapping[str, Any]) -> str:
    return f"{number}: {one['all']['per_second']:.0f}/s p99 {one['recommend']['p99_ms']:.1f} ms"


def _means(rounds: Sequence[Figures]) -> Figures:
    """Medians over the rounds of every figure that is a number; statuses are added up."""

    def merged(parts: Sequence[Any]) -> Any:
        if isinstance(parts[0], dict):
            keys = sorted({key for part in parts for key in part}, key=str)
            return {key: merged([part[key] for part in parts if key in part]) for key in keys}
        return sum(parts) if isinstance(parts[0], int) else statistics.median(parts)

    found: Figures = merged(rounds)
    return found


def _bars(figures: Figures) -> dict[str, Any]:
    bars: dict[str, Any] = {}

    def add(what: str, value: float, want: float, *, least: bool) -> None:
        holds = value >= want if least else value <= want
        bars[what] = {"value": round(value, 3), "want": f"{'>=' if least else '<='} {want}", "holds": bool(holds)}

    def ratio(one: str, other: str, number: int, name: str, kind: str = "recommend") -> float:
        return float(figures[one][number][kind][name] / figures[other][number][kind][name])

    ours = FUSED if FUSED in figures else UVICORN
    for number in (n for n in figures[ours] if n > 1):
        add(f"throughput of {ours} over {PLAIN_ALONE}, {number} clients",
            ratio(ours, PLAIN_ALONE, number, "per_second", "all"), 1.5, least=True)  # fmt: skip
        add(f"p99 of {ours} over {PLAIN_ALONE}, {number} clients", ratio(ours, PLAIN_ALONE, number, "p99_ms"), 0.7,
            least=False)  # fmt: skip
        add(f"throughput of {ours} over {PLAIN_SHARED}, {number} clients",
            ratio(ours, PLAIN_SHARED, number, "per_second", "all"), 0.85, least=True)  # fmt: skip
    add(f"p50 of {ours} over {PLAIN_ALONE}, 1 client", ratio(ours, PLAIN_ALONE, 1, "p50_ms"), 1.3, least=False)
    return bars


def _show(figures: Figures) -> None:
    table = Table("service", "clients", "answers/s", "p50 ms", "p90", "p99", "p99.9", "statuses")
    for name, by_clients in figures.items():
        for number, one in by_clients.items():
            asked = one["recommend"]
            times = (f"{asked[f'{at}_ms']:.1f}" for at in ("p50", "p90", "p99", "p99.9"))
            table.add_row(
                name, str(number), f"{one['all']['per_second']:.0f}", *times, json.dumps(one["all"]["statuses"])
            )
    console.print(table)
