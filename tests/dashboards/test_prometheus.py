"""A real Prometheus scrapes a running service: panels have data, alerts are silent in health and fire when provoked."""

from __future__ import annotations

import contextlib
import itertools
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
import psutil
import pytest
import torch
import uvicorn
import yaml
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.wire_models import PromoteRequest
from foretaste.feedback import arms, decision_log
from foretaste.jobs.dashboards import boards
from foretaste.ops.bundles import fetch_bundle
from foretaste.ops.job_metrics import FOLDER as JOB_METRICS
from foretaste.ops.job_metrics import JobMetrics, TrainingMetrics, counted
from foretaste.ops.redis_server import free_port
from foretaste.ops.releases import file_release, promote_release, rollout
from foretaste.ops.rollouts import arm_of
from foretaste.serving import audit, production, propensities, steadied
from foretaste.serving import recommender as serving_recommender
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
WIDE = "artwork"
"""A surface on which dice may do what they like."""
LISTS = "/v1/recommend"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="prometheus is not installed; `make servers` installs Debian's"
    ),
]


class Views(FakeViews):
    """Slow views of one version, which can be read again by it; `drifted` they are not what was served."""

    drifted = False
    slow_seconds = 0.0

    def members(self, ids: Sequence[str | None], at: int) -> MemberView:
        time.sleep(self.slow_seconds)
        return super().members(ids, at)

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

    def __init__(self, folder: Path, **serving: Any) -> None:
        self.folder, self.num_events, self.slowest = folder, 0, 0.0
        self._serving = serving
        now = utc_now() - timedelta(minutes=5)
        self.old = self.release(9, at=now - timedelta(days=15))
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
        serving = ServingConfig.model_validate(known | self._serving)
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
def prometheus(folder: Path, target: int | str, shorter: Sequence[tuple[str, str]] = ()) -> Iterator[Prometheus]:
    """A Prometheus with the rules of the repository; alerts do not wait here, but count from the first moment on.

    `shorter` are changes of the rules' text. What targets.yaml of the folder lists is scraped, too.
    """
    folder.mkdir()
    rules = re.sub(r"^ +for: .*\n", "", (FOLDER / "rules.yaml").read_text(), flags=re.MULTILINE)
    for before, after in shorter:
        assert before in rules
        rules = rules.replace(before, after)
    (folder / "rules.yaml").write_text(rules)
    where = f"127.0.0.1:{target}" if isinstance(target, int) else target
    (folder / "targets.yaml").write_text(yaml.safe_dump([{"targets": [where]}]))
    found = {"files": [str(folder / "targets.yaml")], "refresh_interval": "1s"}
    scraped = [{"job_name": "foretaste", "file_sd_configs": [found]}]
    every = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    if shorter:  # what is compared over a while may be looked at less often, and a node of Ray says much
        every |= {"scrape_interval": "2s", "scrape_timeout": "2s"}
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


SHORTER = (
    ("offset 1d", "offset 12s"), ("[14d]", "[60s]"), ("[1d]", "[60s]"), ("[6h]", "[12s]"), ("[1h]", "[12s]"),
    ("[30m]", "[12s]"), ("[15m]", "[12s]"), ("[5m]", "[12s]"),
    ("> 10000", "> 20"), (">= 1000", ">= 5"), (">= 500", ">= 5"), ("> 9)", "> 2)"),
)  # fmt: skip
"""Days, hours and minutes as seconds, thousands as tens, so that what is provoked is seen while one waits."""


QUIET = {f"Foretaste{name}" for name in ("Slow", "Down", "ListsJump", "Concentrated", "NoEvents")}
"""What may fire before its time: a busy machine is slow, to Prometheus too, and of few lists shares jump."""


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Watched, Prometheus, httpx.Client]]:
    """A service whose windows are short, and a Prometheus whose days are."""
    monkeypatch.setattr(audit, "REST", 0.1)
    monkeypatch.setattr(production, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(production, "REST", 0.1)
    monkeypatch.setattr(arms, "GRACE", timedelta())
    monkeypatch.setattr(steadied.Steadied.__init__, "__kwdefaults__", {"window": 6})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    wide = {"bounds": {"epsilon": 0.1, "budget": 0.05}, "surfaces": {WIDE: {"epsilon": 1.0, "budget": 1.0}}}
    log = {"target": (tmp_path / "target").as_uri(), "roll_decisions": 10, "max_backlog_mb": 2.0}
    watched = Watched(tmp_path, exploring=wide, decision_log=log)
    with (
        listening(watched) as port,
        prometheus(tmp_path / "prometheus", port, SHORTER) as asked,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        yield watched, asked, client
    torch.set_num_threads(threads)


class Provoked:
    """Sends requests until alerts fire that were silent before."""

    def __init__(self, watched: Watched, asked: Prometheus, client: httpx.Client) -> None:
        self.watched, self.asked, self.client = watched, asked, client
        self.fired: set[str] = set()
        self._number = 0

    def load(self, seconds: float, **more: Any) -> None:
        """Ask as in health."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.step(**more)

    def step(self, *, path: str = LISTS, events: bool = True, member: str | None = None, **more: Any) -> dict[str, Any]:
        """One request; without `events` nobody does anything."""
        self._number += 1
        if path != LISTS:
            answer = self.client.post(path, json={"session_id": "s", "member_id": "m1"} | more)
            answer.raise_for_status()
            return dict(answer.json())
        if events:
            self.watched.ask(self.client, self._number, **more)
            return {}
        who = {"member_id": member or f"m{self._number % MEMBERS}", "session_id": f"s{self._number % MEMBERS}"}
        answer = self.client.post(path, json=who | {"k": 5} | more)
        return dict(answer.json()) if answer.status_code == 200 else {}

    def until(self, *wanted: str, seconds: float = 120.0, **more: Any) -> None:
        """Go on until all of them have fired, and none did before."""
        names = {f"Foretaste{name}" for name in wanted}
        assert names & self.fired <= QUIET, self.fired
        seen: set[str] = set()
        end = time.monotonic() + seconds
        while not names <= seen:
            assert time.monotonic() < end, f"{sorted(names - seen)} did not fire, {sorted(seen)} did"
            self.step(**more)
            seen |= self.asked.firing()
            time.sleep(0.05)
        self.fired |= seen


def test_alerts_that_look_back_on_minutes_hours_and_days_fire_by_their_causes(
    hasty: tuple[Watched, Prometheus, httpx.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, asked, _ = hasty
    provoked, service, now = Provoked(*hasty), watched.service, utc_now
    recommender = service._recommender
    provoked.load(25.0)
    assert asked.firing() - QUIET == set()

    JobMetrics(watched.folder / JOB_METRICS, "features", clock=lambda: now() - timedelta(hours=7)).started()
    late = JobMetrics(watched.folder / JOB_METRICS, "prepare", clock=lambda: now() - timedelta(hours=40))
    late.started()
    late.ended(ok=True)
    slow = TrainingMetrics(watched.folder / JOB_METRICS, "intent")
    slow.epoch(1, of=2, loss=0.5, rate=1e3, metrics={})
    provoked.until("JobHangs", "JobLate", "TrainingSlow")

    titles = [f"t{number:02d}" for number in range(40)]
    provoked.until("ExplorationPrice", path="/v1/rank", surface=WIDE, policy="plackett_luce", candidates=titles)

    with monkeypatch.context() as patched:  # propensities are logged that are not the policy's
        held = propensities.draw
        patched.setattr(
            serving_recommender,
            "draw",
            lambda said_C, *, chosen, propensity: held(said_C, chosen=chosen, propensity=0.9 * propensity),
        )
        provoked.until("PropensityOff")

    with monkeypatch.context() as patched:  # dice that always fall alike, on a title that is rarely shown first
        patched.setattr(recommender, "_seeds", itertools.count().__next__)
        seed = next(
            number
            for number in range(500)
            if (items := provoked.step(events=False, member="m0").get("items")) and items[0]["propensity"] < 0.05
        )
        patched.setattr(recommender, "_seeds", itertools.repeat(seed).__next__)
        provoked.until("DiceOff")

    with monkeypatch.context() as patched:  # nobody does anything, no dice fall, nothing is audited
        assert service._audit is not None
        patched.setattr(service._audit, "take", list)
        provoked.until("NoEvents", "NoExploration", "AuditStands", events=False, policy="greedy")

    provoked.load(15.0)
    thirds = itertools.cycle([titles[13:], titles[:13] + titles[26:], titles[:26]])
    end = time.monotonic() + 120
    while "ForetasteListsJump" not in asked.firing():  # each list has nothing of the one before
        assert time.monotonic() < end
        provoked.step(events=False, member="m2", policy="greedy", exclude_ids=next(thirds))

    shadow = service._production._shadow if service._production else None
    assert shadow is not None
    with monkeypatch.context() as patched:
        patched.setattr(shadow, "_score", _raise)
        provoked.until("ShadowFails")

    known = rollout(watched.folder / "registry")
    assert known is not None
    salt = known.salt
    in_b = [f"x{number}" for number in range(400) if arm_of(f"x{number}", known.arms, salt=salt) is not None]
    members = itertools.cycle(in_b)
    end = time.monotonic() + 120
    while "ForetasteSampleRatio" not in asked.firing():  # only members of one arm come
        assert time.monotonic() < end
        provoked.step(events=False, member=next(members))

    other = watched.open()  # a process that does not take up what is rolled out
    try:
        service.promote(watched.old, PromoteRequest())
        end = time.monotonic() + 120
        while "ForetasteReplicasDiffer" not in asked.firing():
            assert time.monotonic() < end, asked.firing()
            assert other._shared is not None
            other._shared.publish()
            provoked.step()
    finally:
        other.close()
    provoked.until("ModelOld")  # what the other process answered with was newer

    held_bytes = np.ones(max(10**8, int(0.8 * psutil.Process().memory_info().rss)), dtype=np.uint8)
    watched.views.slow_seconds = 0.4
    provoked.until("Slow", "MemoryGrows")
    watched.views.slow_seconds = 0.0
    del held_bytes

    shutil.rmtree(watched.folder / "target", ignore_errors=True)
    (watched.folder / "target").write_text("in the way")
    provoked.until("DecisionsNotShipped")
    with monkeypatch.context() as patched:
        patched.setattr(decision_log, "write_parquet", _raise)
        provoked.until("DecisionLogFails", "DecisionLogFills")
    with monkeypatch.context() as patched:
        patched.setattr(service, "_refresh", _raise)
        provoked.until("HousekeepingFails")

    nobody = f"127.0.0.1:{free_port()}"
    (watched.folder / "prometheus" / "targets.yaml").write_text(yaml.safe_dump([{"targets": [nobody]}]))
    until(lambda: "ForetasteDown" in asked.firing(), what="ForetasteDown")


@pytest.mark.cluster
def test_rays_own_metrics_are_scraped_and_the_alert_on_the_head_reads_them(local_ray: None, tmp_path: Path) -> None:
    """The memory of a whole machine is not filled here: the alert's bound is lowered instead."""
    import ray

    (node,) = ray.nodes()
    target = f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
    with prometheus(tmp_path / "low", target, (("> 0.85", "> 0.0001"),)) as asked:
        until(lambda: "ForetasteHeadMemory" in asked.firing(), what="ForetasteHeadMemory")
        (used,) = asked.values('ray_node_mem_used{IsHeadNode="true"} / ray_node_mem_total{IsHeadNode="true"}').values()
        assert 0 < used < 1
        assert "ForetasteDown" not in asked.firing()


def _raise(*_: Any, **__: Any) -> None:
    raise OSError("no space left on device")
