"""A real Prometheus scrapes a running service: panels have data, alerts are silent in health and fire when provoked."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import uvicorn
import yaml
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.wire_models import PromoteRequest
from foretaste.jobs.dashboards import boards
from foretaste.ops.bundles import fetch_bundle
from foretaste.ops.job_metrics import FOLDER as JOB_METRICS
from foretaste.ops.job_metrics import TrainingMetrics, counted
from foretaste.ops.redis_server import free_port
from foretaste.ops.releases import file_release, promote_release
from foretaste.serving import audit
from foretaste.serving.config import ServiceConfig, ServingConfig
from foretaste.serving.ingress import build_app
from foretaste.serving.service import Service, open_service, utc_now
from foretaste.serving.shedding import Admission, SheddingConfig
from foretaste.signals.views import MemberView, TitleView
from foretaste.testing.bundles import file_intent, file_ranker
from foretaste.testing.fakes import FakeViews, two_genre_titles

FOLDER = Path(__file__).parents[2] / "deployments" / "dashboards"
MEMBERS = 8
SLOW_SECONDS = 0.2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="prometheus is not installed; `make servers` installs Debian's"
    ),
]


class Views(FakeViews):
    """Slow views of one version, which can be read again by it; `drifted` they are not what was served."""

    drifted = False

    def members_at(
        self, ids: Sequence[str | None], asof_ms_B: NDArray[np.int64], generation: str | None = None
    ) -> MemberView:
        return self.members(ids, 0)

    def titles_at(
        self,
        catalogue: Catalogue,
        codes_C: NDArray[Any],
        asof_ms_C: NDArray[np.int64] | int,
        generation: str | None = None,
    ) -> TitleView:
        view = self.titles(catalogue, 0)
        if self.drifted:
            view.plays_all[:] += 1
        return view


class Watched:
    """A service that is running, and the Prometheus that scrapes it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.num_events, self.slowest = folder, 0, 0.0
        now = utc_now() - timedelta(minutes=5)
        self.releases = [self.release(seed, at=now + timedelta(minutes=seed)) for seed in range(3)]
        promote_release(folder / "registry", self.releases[0], at=now)
        self.views = Views(catalogue(two_genre_titles()), asof=now)
        self.service = self.open()
        self.service.promote(self.releases[1], PromoteRequest(share=0.5, arm="b"))
        self.service.promote(self.releases[2], PromoteRequest(shadow=True))
        with counted(folder / JOB_METRICS, "prepare", clock=utc_now) as job:
            job.ended(ok=True, result={"num_events": 5, "sessions": {"num": 3}})
        for name in ("intent", "ranker"):
            told = TrainingMetrics(folder / JOB_METRICS, name)
            told.epoch(1, of=2, loss=0.5, rate=1e4, metrics={"ndcg@10": 0.1})

    def release(self, seed: int, *, at: datetime) -> str:
        registry = self.folder / "registry"
        intent = file_intent(registry, two_genre_titles(), at=at, seed=seed)
        file_ranker(registry, intent=intent.fingerprint, at=at, seed=seed, by_dice=True)
        models = {name: fetch_bundle(registry, name).version for name in ("intent", "ranker")}
        return file_release(registry, models, at=at, about={}).name

    def open(self) -> Service:
        known: dict[str, Any] = {"audit_share": 1.0, "budget_ms": 60_000, "epsilon": 0.2, "api_keys": False}
        known |= {"housekeeping_seconds": 0.5, "session_log": {"durable": False}}
        known["decision_log"] = {"target": (self.folder / "target").as_uri(), "roll_decisions": 20}
        known |= {
            "breaker": {"failures": 3, "rest_seconds": 60},
            "exploring": {"bounds": {"epsilon": 0.1, "budget": 0.05}},
        }
        serving = ServingConfig.model_validate(known)
        config = ServiceConfig(workspace=self.folder, features_repo=Path("features"), serving=serving)
        return open_service(config, source=self.views, clock=utc_now)

    def ask(self, client: httpx.Client, number: int, **more: Any) -> int:
        """Send an event and ask for a list; the status of that."""
        self.num_events += 1
        who = {"member_id": f"m{number % MEMBERS}", "session_id": f"s{number % MEMBERS}"}
        event = who | {"event_id": f"e{self.num_events}", "action": "play", "at": datetime.now(UTC).isoformat()}
        client.post("/v1/events", json={"events": [event | {"title_id": f"t{number % 40:02d}"}]}).raise_for_status()
        begun = time.monotonic()
        status = client.post("/v1/recommend", json=who | {"k": 5} | more).status_code
        self.slowest = max(self.slowest, time.monotonic() - begun)
        return status


class Prometheus:
    """Asks a Prometheus."""

    def __init__(self, port: int) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def values(self, expression: str) -> dict[str, float]:
        """Finite values by labels. Raises AssertionError for what Prometheus does not understand."""
        found = self._client.get("/api/v1/query", params={"query": expression}).json()
        assert found["status"] == "success", (expression, found)
        values = {str(sorted(one["metric"].items())): float(one["value"][1]) for one in found["data"]["result"]}
        return {labels: value for labels, value in values.items() if np.isfinite(value)}

    def firing(self) -> set[str]:
        found = self._client.get("/api/v1/alerts").json()["data"]["alerts"]
        return {one["labels"]["alertname"] for one in found if one["state"] == "firing"}

    def close(self) -> None:
        self._client.close()


def until(holds: Callable[[], bool], *, what: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.2)


class Missing:
    """Says what was not seen at the time when somebody asks."""

    def __init__(self, wanted: set[str], seen: set[str]) -> None:
        self._wanted, self._seen = wanted, seen

    def __str__(self) -> str:
        return f"{sorted(self._wanted - self._seen)} did not fire, {sorted(self._seen)} did"


@contextlib.contextmanager
def listening(watched: Watched) -> Iterator[int]:
    """The app under uvicorn, in a thread of this process, so that what is under it can be made to fail."""
    port = free_port()
    app = build_app(
        watched.service,
        max_body_bytes=100_000,
        housekeeping_seconds=0.5,
        admission=Admission(SheddingConfig(), timer=time.perf_counter),
        metrics=watched.service.metrics,
    )
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", access_log=False, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started, what="uvicorn")
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(30)


@contextlib.contextmanager
def prometheus(folder: Path, target: int) -> Iterator[Prometheus]:
    """A Prometheus with the rules of the repository; alerts do not wait here, but count from the first moment on."""
    folder.mkdir()
    (folder / "rules.yaml").write_text(
        re.sub(r"^ +for: .*\n", "", (FOLDER / "rules.yaml").read_text(), flags=re.MULTILINE)
    )
    scraped = [{"job_name": "foretaste", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}]
    every = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    (folder / "prometheus.yaml").write_text(
        yaml.safe_dump({"global": every, "rule_files": ["rules.yaml"], "scrape_configs": scraped})
    )
    port = free_port()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        asked = Prometheus(port)
        try:
            until(asked.ready, what="prometheus")
            yield asked
        finally:
            asked.close()
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Watched, Prometheus, httpx.Client]]:
    folder = tmp_path_factory.mktemp("watched")
    rest, audit.REST = audit.REST, 1.0  # an audit that may take more time has something to tell sooner
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    watched = Watched(folder)
    with (
        listening(watched) as port,
        prometheus(folder / "prometheus", port) as asked,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        for number in range(60):
            assert watched.ask(client, number) == 200
            if number % 20 == 0:
                time.sleep(1.0)  # rates need scrapes in between
        num = 'sum(foretaste_audit{what="decisions"}) > 15 and sum(foretaste_shadow{what="scored"}) > 0'
        until(lambda: bool(asked.values(num)), what="audit and shadow")
        until(lambda: bool(asked.values("sum(foretaste_answers_total) >= 60")), what="scrape")
        yield watched, asked, client
    audit.REST = rest
    torch.set_num_threads(threads)


def test_every_panel_of_every_board_has_data(running: tuple[Watched, Prometheus, httpx.Client]) -> None:
    watched, asked, client = running
    panels = [panel for board in boards(FOLDER).values() for row in board.rows for panel in row.panels]
    assert len(panels) > 40

    def empty() -> list[tuple[str, str]]:
        return [
            (panel.title, expression)
            for panel in panels
            for expression in panel.queries.values()
            if not asked.values(expression) and not panel.optional
        ]

    end, number = time.monotonic() + 60.0, 60
    while (found := empty()) and time.monotonic() < end:  # rates need scrapes before and after something happened
        assert watched.ask(client, number) == 200
        number += 1
        time.sleep(0.5)
    assert found == []


def test_alerts_are_silent_in_health_and_fire_where_their_cause_is_provoked(
    running: tuple[Watched, Prometheus, httpx.Client],
) -> None:
    watched, asked, client = running
    rules = [rule for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"] for rule in group["rules"]]
    for rule in rules:
        asked.values(rule["expr"])  # is understood
    late = {"ForetasteSlow"} if watched.slowest > SLOW_SECONDS else set()  # a busy machine really is slow
    assert asked.firing() - late == set()
    seen: set[str] = set()

    def fired(wanted: set[str]) -> None:
        def all_seen() -> bool:
            seen.update(asked.firing())
            return wanted <= seen

        until(all_seen, what=Missing(wanted, seen))

    watched.views.drifted = True
    for number in range(10):
        watched.ask(client, number)
    fired({"ForetasteParityMismatch"})
    provoke(watched, client)
    wanted = {
        "ForetasteBreakerOpen",
        "ForetasteDegraded",
        "ForetasteErrors",
        "ForetasteEventsRejected",
        "ForetasteFallbacks",
        "ForetasteFeaturesStale",
        "ForetasteJobFailed",
        "ForetasteReleaseRefused",
        "ForetasteShedding",
    }
    fired(wanted)


def provoke(watched: Watched, client: httpx.Client) -> None:
    """Let much go wrong at once."""
    with (
        contextlib.suppress(RuntimeError),
        counted(watched.folder / JOB_METRICS, "train", clock=lambda: utc_now() + timedelta(seconds=5)),
    ):
        raise RuntimeError("no training today")
    client.post("/v1/events", json={"events": [{"event_id": f"bad{number}"} for number in range(60)]})
    watched.views.failure = ConnectionError("the store is gone")
    for number in range(20):
        watched.ask(client, number)
    decisions = watched.service._decisions
    taking = decisions.append
    decisions.append = _full  # type: ignore[method-assign]
    statuses = {watched.ask(client, number) for number in range(12)}
    assert 503 in statuses
    decisions.append = taking  # type: ignore[method-assign]
    refused = watched.release(3, at=utc_now())
    for weights in (watched.folder / "registry" / "intent").glob("*/weights.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    file = watched.folder / "registry" / "releases" / "rollout.json"
    file.write_text(file.read_text().replace(watched.releases[0], refused))


def _full(decision: Any) -> None:
    raise OSError("no space left on device")
