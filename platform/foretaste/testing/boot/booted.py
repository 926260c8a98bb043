"""A rendered Ray object, booted: the stores that its pods reach, its head, its workers, and what is asked of them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from foretaste.jobs.deployment_config import RAY_OBJECTS_SHARE
from foretaste.testing.boot import operator
from foretaste.testing.boot.laptop import IMAGE, IMAGE_ENVIRONMENT, IMAGE_FOLDER, WAITS
from foretaste.testing.boot.machine import Machine, Pod, PodSpec
from foretaste.testing.manifests.objects import RAY_KINDS, Manifests, Object, quantity

Secrets = Mapping[str, Mapping[str, str]]
"""Values of Secrets: by name, then by key."""
UP_SECONDS = 600.0
AGAIN = "for again in 1 2 3 4 5; do {} && break; sleep 2; done"


class Booted:
    """One Ray object of an overlay as pods of a machine."""

    def __init__(
        self, machine: Machine, manifests: Manifests, *, secrets: Secrets, claims: Mapping[str, Path], scratch: Path
    ) -> None:
        """`claims` are folders by the names of PersistentVolumeClaims; what pods keep for themselves is in `scratch`.

        Raises ValueError naming a Secret that a manifest wants and `secrets` lacks.
        """
        self._machine, self._manifests = machine, manifests
        self._secrets, self._claims, self._scratch = secrets, claims, scratch
        self.pods: dict[str, Pod] = {}
        self.head: Pod
        self.workers: list[Pod] = []

    def store(self, name: str) -> Pod:
        """Boot a StatefulSet of one replica, and wait until its readinessProbe holds."""
        one = self._manifests.named("StatefulSet", name)
        container = one["spec"]["template"]["spec"]["containers"][0]
        volumes = one["spec"]["template"]["spec"].get("volumes", [])
        volumes = [*volumes, *({"name": c["metadata"]["name"]} for c in one["spec"]["volumeClaimTemplates"])]
        pod = self._start(name, container, volumes, command=[*container["command"], *container.get("args", ())])
        self.until(lambda: pod.run(container["readinessProbe"]["exec"]["command"]).returncode == 0, pod)
        return pod

    def ray(self, one: Object) -> None:
        """Boot the head and the workers of a RayService or RayJob, and wait until the operator's probes hold."""
        cluster = cluster_of(one)
        self.head = self._node(one, cluster, cluster["headGroupSpec"], name=f"{one['metadata']['name']}-head")
        self.until(partial(probed, self.head, operator.HEAD_PROBE), self.head)
        for group in cluster["workerGroupSpecs"]:
            for number in range(group["replicas"]):
                worker = self._node(
                    one, cluster, group, name=f"{one['metadata']['name']}-{group['groupName']}-{number}"
                )
                self.until(partial(probed, worker, operator.NODE_PROBE), worker)
                self.workers.append(worker)

    def submitted(self, job: Object, name: str) -> Pod:
        """Boot the submitter of a RayJob; it ends with the job that it tells the cluster of."""
        spec = job["spec"]["submitterPodTemplate"]["spec"]
        added = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token(job)}
        command = ["/bin/bash", "-c", operator.submission(job, name)]
        return self._start(
            f"{name}-submitter", spec["containers"][0], spec.get("volumes", ()), command=command, added=added
        )

    def token(self, one: Object) -> str:
        """The token that a cluster's dashboard asks for."""
        return self._secret(cluster_of(one)["authOptions"]["secretName"], "auth_token")

    def dashboard(self, path: str, *, method: str = "GET", body: Any = None, token: str | None) -> tuple[int, str]:
        """Ask the dashboard as the operator does, from another pod; returns status and text."""
        words = ["curl", "-s", "-m", "60", "-w", "\n%{http_code}", "-X", method]
        words += [f"http://{self.head.spec.name}:{operator.DASHBOARD_PORT}{path}"]
        if token is not None:
            words += ["-H", f"authorization: Bearer {token}"]
        if body is not None:
            words += ["-H", "content-type: application/json", "-d", json.dumps(body)]
        done = (self.workers[0] if self.workers else self.head).run(words)
        text, _, status = done.stdout.rpartition("\n")
        return int(status or 0), text

    def until(self, holds: Callable[[], bool], *pods: Pod, seconds: float = UP_SECONDS) -> None:
        """Wait. Raises ConnectionError with what the pods said where one ends or time is over."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline or not all(pod.runs for pod in pods):
                raise ConnectionError("\n".join(f"{pod.spec.name}: {pod.log[-3000:]}" for pod in pods))
            time.sleep(0.3)

    def _node(self, one: Object, cluster: Mapping[str, Any], group: Mapping[str, Any], *, name: str) -> Pod:
        head = group is cluster["headGroupSpec"]
        spec = group["template"]["spec"]
        container = spec["containers"][0]
        parameters = operator.start_parameters(
            group,
            head=None if head else operator.head_service(one),
            autoscaled=bool(cluster.get("enableInTreeAutoscaling")),
        )
        parameters.setdefault("object-store-memory", str(int(RAY_OBJECTS_SHARE * float(parameters["memory"]))))
        added = operator.environment(one, cluster, head=head) | WAITS
        if (auth := cluster.get("authOptions") or {}).get("mode") == "token":
            added["RAY_AUTH_TOKEN"] = self._secret(auth["secretName"], "auth_token")
        if head and (tolerant := cluster.get("gcsFaultToleranceOptions")):
            reference = tolerant["redisPassword"]["valueFrom"]["secretKeyRef"]
            parameters["redis-password"] = self._secret(reference["name"], reference["key"])
        line = operator.start_command(parameters, head=head)
        before = "" if head else operator.waited_for(one) + "; "
        aliases = (operator.head_service(one), f"{one['metadata']['name']}-head-svc") if head else ()
        return self._start(
            name,
            container,
            spec["volumes"],
            command=["/bin/bash", "-c", f"{before}{AGAIN.format(line)}"],
            added=added,
            aliases=aliases,
        )

    def _start(
        self,
        name: str,
        container: Mapping[str, Any],
        volumes: Sequence[Mapping[str, Any]],
        *,
        command: Sequence[str],
        added: Mapping[str, str] | None = None,
        aliases: Sequence[str] = (),
    ) -> Pod:
        home = self._scratch / name / "home"
        home.mkdir(parents=True, exist_ok=True)
        by_name = {volume["name"]: volume for volume in volumes}
        mounts, memory = list[tuple[str, Path]](IMAGE), list[tuple[str, int]]()
        for mount in container.get("volumeMounts", ()):
            volume = by_name[mount["name"]]
            if (volume.get("emptyDir") or {}).get("medium") == "Memory":
                memory.append((mount["mountPath"], int(quantity(volume["emptyDir"]["sizeLimit"]))))
            else:
                mounts.append((mount["mountPath"], self._folder(name, volume)))
        environment = IMAGE_ENVIRONMENT | {"HOME": str(home)} | dict(self._environment(container)) | dict(added or {})
        spec = PodSpec(name, command, environment, mounts, memory, tuple(aliases), folder=IMAGE_FOLDER)
        self.pods[name] = self._machine.start(spec)
        return self.pods[name]

    def _environment(self, container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for source in container.get("envFrom", ()):
            if "configMapRef" in source:
                yield from self._manifests.named("ConfigMap", source["configMapRef"]["name"])["data"].items()
            else:
                yield from self._of_secret(source["secretRef"]["name"]).items()
        for variable in container.get("env", ()):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            value = (
                variable.get("value", "") if reference is None else self._secret(reference["name"], reference["key"])
            )
            yield variable["name"], value

    def _folder(self, pod: str, volume: Mapping[str, Any]) -> Path:
        if "persistentVolumeClaim" in volume:
            return self._claims[volume["persistentVolumeClaim"]["claimName"]]
        folder = self._scratch / pod / str(volume["name"])
        folder.mkdir(parents=True, exist_ok=True)
        if "configMap" in volume:
            data = self._manifests.named("ConfigMap", volume["configMap"]["name"])["data"]
            _write(folder, data)
        if "secret" in volume:
            data = dict(self._of_secret(volume["secret"]["secretName"]))
            items = volume["secret"].get("items") or [{"key": key, "path": key} for key in data]
            _write(folder, {item["path"]: data[item["key"]] for item in items})
        return folder

    def _of_secret(self, name: str) -> Mapping[str, str]:
        if name not in self._secrets:
            raise ValueError(f"Secret {name}: wanted by the manifests, not given; there are {sorted(self._secrets)}")
        return self._secrets[name]

    def _secret(self, name: str, key: str) -> str:
        return self._of_secret(name)[key]


def cluster_of(one: Object) -> dict[str, Any]:
    """The specification of a Ray object's cluster."""
    cluster: Any = one
    for key in RAY_KINDS[one["kind"]]:
        cluster = cluster[key]
    return dict(cluster)


def probed(pod: Pod, probe: str) -> bool:
    """Whether a probe of the operator holds, run where it would be."""
    return pod.run(["/bin/bash", "-c", probe]).returncode == 0


def application(one: Object) -> dict[str, Any]:
    """What the operator sends to the dashboard of a RayService."""
    told: dict[str, Any] = yaml.safe_load(one["spec"]["serveConfigV2"])
    return told


def certificates(folder: Path, *names: str) -> dict[str, str]:
    """A Secret's ca.crt, tls.crt and tls.key for names, signed by an authority of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    called = f"-subj /CN={names[0]} -addext subjectAltName={','.join(f'DNS:{name}' for name in names)}"
    for line in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt",
        f"req -newkey rsa:2048 -nodes {called} -keyout tls.key -out tls.csr",
        "x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy -out tls.crt",
    ):
        subprocess.run(["openssl", *line.split()], cwd=folder, check=True, capture_output=True)
    return {name: (folder / name).read_text() for name in ("ca.crt", "tls.crt", "tls.key")}


def _write(folder: Path, data: Mapping[str, str]) -> None:
    for name, text in data.items():
        (folder / name).write_text(text)
