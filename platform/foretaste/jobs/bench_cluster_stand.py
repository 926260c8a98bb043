"""The application of a deployment on a head and workers of one machine, with both Redis and a token, as in production.

The application, its replicas and the environment where Ray starts are those of `deployments/NAME`: places alone differ.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from foretaste.feedback.session_log import LogKind
from foretaste.jobs.bench_cluster_config import ClusterBenchConfig
from foretaste.jobs.deployment_config import Deployment
from foretaste.jobs.deployments import read, served
from foretaste.jobs.features import features
from foretaste.jobs.keys import first_key
from foretaste.jobs.machines import Machine, Network, network
from foretaste.jobs.serve import APPLICATION
from foretaste.jobs.settings import Settings
from foretaste.ops.redis_server import RedisServer
from foretaste.ops.telemetry import say
from foretaste.serving.config import ServingConfig

PASSWORD, TOKEN = "FORETASTE_REDIS_PASSWORD", "RAY_AUTH_TOKEN"
GCS_PORT, DASHBOARD_PORT = 6379, 8265
APPLICATIONS = "/api/serve/applications/"
RUNNING = "RUNNING"
PORTS = (
    "--metrics-export-port=8080",
    "--dashboard-agent-listen-port=52365",
    "--dashboard-agent-grpc-port=52366",
    "--runtime-env-agent-port=52367",
)
"""Of what runs beside a node: it waits for those that it does not know, and ends where that takes long."""
RESTARTS = 8
"""Of nodes that ended by themselves, in all."""
PLACES = ("session_log", "decision_log")
"""Sections of serving in which a deployment says where things are."""
OF_OPERATOR = {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
"""What KubeRay puts where fault tolerance of the head is on, so that workers wait for it."""
PATIENCE = {
    "RAY_raylet_start_wait_time_s": "60",
    "RAY_agent_register_timeout_ms": "200000",
    "RAY_GCS_SERVER_REQUEST_TIMEOUT_SECONDS": "60",
}
"""For three machines that share two processors."""


class Stand:
    """A cluster that serves; `settings` are those of its workspace, with the password filled in."""

    def __init__(
        self,
        settings: Settings,
        config: ClusterBenchConfig,
        net: Network,
        redis: RedisServer,
        environment: Mapping[str, str],
    ) -> None:
        """`environment` is that of Ray, with its token and the password of `redis`."""
        self.settings, self.config, self.redis = settings, config, redis
        self._environment = environment
        self._net, self._given = net, 0
        self.serving: dict[str, Any] = {}  # settings of serving that an upgrade brings
        self._arguments: dict[str, Any] | None = None  # that it was deployed with
        self.given_up, self._left = False, RESTARTS
        self._options: dict[str, tuple[str, ...]] = {}  # of each node, by its machine
        self.head = net.machine("head")
        self.workers = [net.machine(f"worker-{number}") for number in range(config.workers)]
        self.deployment = _deployment(config)
        self._password = environment[PASSWORD]
        self.url = f"http://{self.head.address}:{DASHBOARD_PORT}"
        self._dashboard = httpx.Client(base_url=self.url, headers=self.authorised, timeout=60.0)

    @property
    def authorised(self) -> dict[str, str]:
        """Headers of who has the token."""
        return {"Authorization": f"Bearer {self._environment[TOKEN]}"}

    def start(self) -> None:
        """Start head and workers, deploy, and return once all workers take requests."""
        began = time.monotonic()
        self.start_head()
        for worker in self.workers:
            self.start_worker(worker)
        self.wait(lambda: len(self.alive()) == 1 + len(self.workers), "all nodes are there")
        say(f"{1 + len(self.workers)} nodes after {time.monotonic() - began:.0f} s")
        self.deploy()
        say(f"the application runs after {time.monotonic() - began:.0f} s")

    def start_head(self) -> None:
        """Start the head, and return once it is known as a node: workers that come before that end."""
        size = ["--num-cpus=0", f"--port={GCS_PORT}", "--dashboard-host=0.0.0.0", f"--dashboard-port={DASHBOARD_PORT}"]
        self._ray(self.head, "--head", f"--redis-password={self._password}", *size)
        self.wait(lambda: self.head.address in self.alive().values(), "the head answers")

    def start_worker(self, worker: Machine) -> None:
        """Start a worker; it joins by itself."""
        self._ray(worker, f"--address={self.head.address}:{GCS_PORT}", f"--num-cpus={self.config.worker_cpus}")

    def another(self) -> Machine:
        """One more worker, started."""
        worker = self._net.machine(f"worker-{len(self.workers)}")
        self.workers.append(worker)
        self.start_worker(worker)
        return worker

    def addresses(self) -> list[str]:
        """Where workers are."""
        return [worker.address for worker in self.workers]

    def unused(self, name: str) -> str:
        """A name that begins with this one and was not given before."""
        self._given += 1
        return f"{name}-{self._given}"

    def whole(self, *, without: str | None = None) -> bool:
        """Whether all nodes are alive, `without` not being one of them, and a replica runs for every worker."""
        nodes = self.alive()
        return without not in nodes and len(nodes) == 1 + len(self.workers) and self.serves(len(self.workers))

    def node_at(self, address: str) -> str:
        """Id of the node that is alive at an address. Raises ConnectionError where there is none."""
        self.wait(lambda: address in self.alive().values(), f"a node is alive at {address}")
        return next(node for node, at in self.alive().items() if at == address)

    def application(self, *, replicas: int | None = None) -> dict[str, Any]:
        """What is deployed: the deployment's application with so many replicas, by default one a worker."""
        number = replicas or self.config.workers
        own = self.settings.serving.model_copy(update=self.serving)
        log = own.session_log.model_copy(update={"url": password_named(own.session_log.url, self._password)})
        url = password_named(str(self.settings.features_url), self._password)
        own = own.model_copy(update={"session_log": log})
        settings = self.settings.model_copy(update={"serving": own, "features_url": url})
        service = self.deployment.service
        sized = service.replicas.model_copy(update={"fewest": number, "most": number})
        service = service.model_copy(update={"replicas": sized})
        return served(self.deployment.model_copy(update={"service": service}), settings)

    def deploy(self, *, replicas: int | None = None) -> None:
        """Deploy the application with what `serving` says, and return once it runs so."""
        wanted = self.application(replicas=replicas)
        before, arguments = self.replicas(), wanted["applications"][0]["args"]
        same = arguments == self._arguments
        answer = self._dashboard.put(APPLICATIONS, json=wanted)
        if answer.status_code != 200:
            raise ConnectionError(f"{self.url}{APPLICATIONS}: {answer.status_code}: {answer.text}")
        number = replicas or self.config.workers
        self.wait(
            lambda: self.serves(number) and (same or not self.replicas().keys() & before.keys()),
            f"{number} replicas run" + ("" if same else ", all of them new"),
        )
        self._arguments = arguments

    def serves(self, number: int) -> bool:
        """Whether the application runs, with so many replicas."""
        found = self._found()
        if found.get("status") == "DEPLOY_FAILED":
            raise ConnectionError(f"the application cannot be deployed: {found.get('message')}")
        return found.get("status") == RUNNING and list(self.replicas().values()) == [RUNNING] * number

    def replicas(self) -> dict[str, str]:
        """State by id of every replica."""
        parts = self._found().get("deployments", {}).values()
        return {replica["replica_id"]: replica["state"] for part in parts for replica in part["replicas"]}

    def _found(self) -> dict[str, Any]:
        found = self.asked(APPLICATIONS)
        one: dict[str, Any] = {} if found is None else found["applications"].get(APPLICATION, {})
        return one

    def alive(self) -> dict[str, str]:
        """Address by id of every node that is alive."""
        found = self.asked("/nodes?view=summary")
        nodes = [] if found is None else [one["raylet"] for one in found["data"]["summary"]]
        return {one["nodeId"]: one["nodeManagerAddress"] for one in nodes if one.get("state") == "ALIVE"}

    def asked(self, path: str) -> Any:
        """What the dashboard answers, None where it does not."""
        try:
            answer = self._dashboard.get(path)
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == 200 else None

    def give_up(self) -> None:
        """Have who waits in another thread do so no longer: nobody asks any more."""
        self.given_up = True

    def wait(self, met: Callable[[], bool], what: str) -> None:
        """Return once it is so. Raises ConnectionError where it is not in time, or a machine has ended."""
        deadline = time.monotonic() + self.config.ready_seconds
        while not met():
            if self.given_up:
                raise ConnectionError(f"given up: {what}")
            for machine in (self.head, *self.workers):
                if machine.ended:
                    self._once_more(machine)
            if time.monotonic() > deadline:
                raise ConnectionError(f"not in {self.config.ready_seconds:g} s: {what}")
            time.sleep(0.5)

    def close(self) -> None:
        """Close the connections to the dashboard."""
        self._dashboard.close()

    def _once_more(self, machine: Machine) -> None:
        """Start a node again that ended by itself, as the kubelet does: Ray gives up where a start takes long."""
        self._left -= 1
        if self._left < 0:
            raise ConnectionError(f"{machine.name} ended: {machine.log.read_text()[-2000:]}")
        say(f"{machine.name} ended, and is started again")
        self._ray(machine, *self._options[machine.name])

    def _ray(self, machine: Machine, *options: str) -> None:
        self._options[machine.name] = options
        ray = Path(sys.executable).parent / "ray"
        usual = [f"--node-ip-address={machine.address}", *PORTS, "--memory=2000000000"]
        usual += ["--object-store-memory=100000000", "--disable-usage-stats", "--block"]
        machine.start([str(ray), "start", *options, *usual], self._environment)


@contextlib.contextmanager
def standing(settings: Settings, config: ClusterBenchConfig) -> Iterator[Stand]:
    """The cluster on a workspace of its own, started and deployed; all of it ends with the block."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="foretaste-cluster-")))
        secret = {PASSWORD: secrets.token_hex(16), TOKEN: secrets.token_hex(32)}
        net = stack.enter_context(network(folder / "machines"))
        redis, kept = (_redis(stack, folder / name, net.host, secret[PASSWORD]) for name in ("redis", "gcs-redis"))
        settings = _in_redis(settings, with_password(redis.url, secret[PASSWORD]), _deployment(config))
        first_key(settings, "127.0.0.1")
        environment = dict(os.environ) | _deployment(config).variables | OF_OPERATOR | PATIENCE | secret
        environment |= {"RAY_AUTH_MODE": "token", "RAY_REDIS_ADDRESS": kept.url.removesuffix("/0")}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        stand = Stand(settings, config, net, redis, environment)
        stack.callback(stand.close)
        stand.start()
        yield stand


def with_password(url: str, password: str) -> str:
    """The URL of a Redis with its password."""
    return url.replace("redis://", f"redis://:{password}@")


def password_named(url: str, password: str) -> str:
    """The same with the name of its variable, as a replica fills it in: Ray Serve shows what it is given."""
    return url.replace(f":{password}@", f":${{{PASSWORD}}}@")


def _deployment(config: ClusterBenchConfig) -> Deployment:
    return read(config.deployment / "deployment.yaml")


def _redis(stack: contextlib.ExitStack, folder: Path, host: str, password: str) -> RedisServer:
    folder.mkdir()
    server = RedisServer(folder, "--requirepass", password, "--maxmemory-policy", "noeviction", host=host)
    stack.callback(server.stop)
    return server


def _in_redis(settings: Settings, url: str, deployment: Deployment) -> Settings:
    """The same with session log and online features in Redis, both filled anew, and serving as it is deployed."""
    log = settings.serving.session_log.model_copy(update={"kind": LogKind.REDIS, "url": url})
    own = settings.serving.model_copy(update={"session_log": log}).model_dump(mode="json", exclude_unset=True)
    said = {name: value for name, value in deployment.settings["serving"].items() if name not in PLACES}
    places = {"workspace": settings.tables.root.absolute(), "features_repo": settings.features_repo.absolute()}
    urls = {"features_url": f"{url.removesuffix('/0')}/1"}
    serving = {"serving": ServingConfig.model_validate(own | said)}
    settings = settings.model_copy(update=places | urls | serving)
    shutil.rmtree(settings.tables.features, ignore_errors=True)
    shutil.rmtree(settings.tables.serving, ignore_errors=True)
    features(settings)
    return settings
