"""One environment on a cluster: sizes, jobs, places. What all files of `deployments/NAME` are made of."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from foretaste.contracts.config import Frozen

SHELL = ("&&", "||", ";", "|", ">", "<", "$", "`", "\n")
"""What a shell would act upon; the operator cuts an entrypoint into words, and none of it would arrive as meant."""
RAY_DRAINS_SECONDS = 30
RAY_OBJECTS_SHARE = 0.3
"""Of a node's memory for objects, unless it is told otherwise."""
SHARED_SHARE = RAY_OBJECTS_SHARE / 0.9
"""Of a node's memory for /dev/shm, of which Ray leaves a tenth free. With less objects go to the disk, and a node whose
objects want 10 GB does not start."""
HAPROXY, LINGERS = "RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
LINGERS_SECONDS, ENDS_SECONDS = 30.0, 5.0
"""Behind HAProxy a replica that goes is reached for so long where `variables` do not say, and then ends what it began.

Ray sees to it that `graceful_shutdown_timeout_s` is long enough, but not to what a file says of it.
"""


class PodSize(Frozen):
    """What one pod books; limits equal requests, since Ray plans by limits and the kernel kills by them."""

    cpus: int = Field(ge=1, description="processors, whole: Ray rounds a share up and would book more than there is")
    memory_gib: int = Field(ge=1, description="GiB of memory, shared memory included")
    ephemeral_gib: int = Field(10, ge=1, description="GiB of the node's disk: logs, spilled objects")
    shm_gib: int | None = Field(
        None,
        ge=1,
        description="GiB of /dev/shm, Ray's object store; counted in memory_gib. Null: the share of memory that Ray "
        "takes for it; with less it goes to the disk",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.shared_gib >= self.memory_gib:
            raise ValueError(f"shm_gib: {self.shared_gib} leaves nothing of memory_gib, {self.memory_gib}")
        if self.shared_gib < SHARED_SHARE * self.memory_gib - 1e-9:
            raise ValueError(
                f"shm_gib: {self.shared_gib} is less than {SHARED_SHARE:.0%} of memory_gib, {self.memory_gib}: "
                "Ray's objects would go to the disk"
            )
        return self

    @property
    def shared_gib(self) -> int:
        """GiB of /dev/shm."""
        return self.shm_gib if self.shm_gib is not None else math.ceil(SHARED_SHARE * self.memory_gib - 1e-9)


class WorkersSize(PodSize):
    """The same of a group of workers, and how many of them."""

    fewest: int = Field(1, ge=0, description="workers that are always there")
    most: int = Field(1, ge=1, description="workers at most, where the cluster scales")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.most < self.fewest:
            raise ValueError(f"most: {self.most} is below fewest, {self.fewest}")
        return self


class ReplicasConfig(Frozen):
    """How many replicas of the service answer; Ray Serve scales between the two."""

    fewest: int = Field(2, ge=1, description="replicas that are always there; one alone is an outage waiting")
    most: int = Field(2, ge=1, description="replicas at most")
    per_node: int = Field(1, ge=1, description="replicas of one worker at most, so that no node holds all of them")
    target_ongoing_requests: float = Field(8.0, gt=0, description="requests of one replica at a time, aimed at")
    upscale_delay_seconds: float = Field(15.0, ge=0, description="seconds of more load before a replica is added")
    downscale_delay_seconds: float = Field(300.0, ge=0, description="seconds of less load before one is removed")
    drain_seconds: float = Field(20.0, ge=0, description="seconds that a replica has to end what it began")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.most < self.fewest:
            raise ValueError(f"most: {self.most} is below fewest, {self.fewest}")
        return self


class ServiceDeployment(Frozen):
    """The cluster that serves."""

    port: int = Field(8000, ge=1, le=65_535, description="port of the service on every worker")
    replicas: ReplicasConfig = ReplicasConfig()
    head: PodSize = Field(PodSize(cpus=2, memory_gib=4), description="the head; it runs no work, and its memory grows")
    workers: WorkersSize = Field(WorkersSize(cpus=2, memory_gib=4, fewest=2, most=2), description="the workers")
    idle_seconds: int = Field(300, ge=0, description="seconds without work after which a worker is given back")
    grace_seconds: int = Field(60, gt=RAY_DRAINS_SECONDS, description="seconds between SIGTERM and SIGKILL of a pod")
    fewest_through_disruption: int = Field(1, ge=1, description="workers that a drain of nodes has to leave standing")

    @model_validator(mode="after")
    def _replicas_have_a_place(self) -> Self:
        places = min(self.replicas.per_node, self.workers.cpus)  # a replica books one processor
        for which in ("fewest", "most"):
            wanted, there = getattr(self.replicas, which), getattr(self.workers, which) * places
            if wanted > there:
                raise ValueError(f"replicas.{which}: {wanted} do not fit on the workers, which have room for {there}")
        if self.grace_seconds <= self.replicas.drain_seconds:
            raise ValueError(f"grace_seconds: {self.grace_seconds} is not above replicas.drain_seconds")
        if self.head.memory_gib < 4:
            raise ValueError(f"head.memory_gib: wanted at least 4, got {self.head.memory_gib}")
        if self.fewest_through_disruption >= self.workers.fewest and self.workers.fewest > 1:
            raise ValueError("fewest_through_disruption: wanted below workers.fewest, else no node could be drained")
        return self


class JobConfig(Frozen):
    """A verb of the command line as a job of the cluster."""

    arguments: tuple[str, ...] = Field(min_length=1, description="verb and flags; the settings file is added")
    workers: WorkersSize = Field(WorkersSize(cpus=2, memory_gib=4), description="the workers of its cluster")
    cpus: float = Field(1.0, gt=0, description="processors that the verb itself books; above 0: not on the head")
    variables: dict[str, str] = Field({}, description="environment of the verb and of its tasks")
    deadline_seconds: int = Field(14_400, gt=0, description="seconds after which it is given up")
    start_deadline_seconds: int = Field(900, gt=0, description="seconds that its cluster may take to stand")
    retries: int = Field(2, ge=0, description="new clusters after failures; training goes on from its checkpoint")
    keep_seconds: int = Field(3_600, ge=0, description="seconds that an ended job's cluster stays for who looks at it")
    schedule: str | None = Field(
        None, description="when it starts by itself, as cron says it, UTC; null: when asked to"
    )

    @field_validator("arguments")
    @classmethod
    def _without_shell(cls, arguments: tuple[str, ...]) -> tuple[str, ...]:
        for one in arguments:
            if not one or any(sign in one for sign in (*SHELL, " ", '"', "'")):
                raise ValueError(f"{one!r}: wanted plain words, since the operator cuts the entrypoint at blanks")
        return arguments


class StorageConfig(Frozen):
    """Where what outlives pods is kept."""

    class_name: str = Field(description="storage class of the workspace; across nodes one with ReadWriteMany and locks")
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = Field("ReadWriteMany", description="Once: one node alone")
    workspace_gib: int = Field(50, ge=1, description="GiB of the workspace: tables, models, logs")
    redis_class_name: str = Field(description="storage class of Redis and of the registry; a local, fast one")
    redis_gib: int = Field(10, ge=1, description="GiB of Redis' append-only file, at least twice its memory")
    redis_memory_gib: int = Field(2, ge=1, description="GiB that Redis may hold before it refuses writes")

    @model_validator(mode="after")
    def _room_to_rewrite(self) -> Self:
        if self.redis_gib < 2 * self.redis_memory_gib:
            raise ValueError(f"redis_gib: wanted at least twice redis_memory_gib, got {self.redis_gib}")
        return self


class PlacesConfig(Frozen):
    """What of the cluster belongs to others, by the name of its namespace; network policies let only these in."""

    operator_namespace: str = Field("kuberay-system", description="of the KubeRay operator")
    monitoring_namespace: str = Field("monitoring", description="of Prometheus")
    ingress_namespace: str = Field("ingress-nginx", description="of the ingress controller")
    ingress_class: str = Field("nginx", description="class of the ingress")
    host: str = Field(description="name under which the service is reached")


class Deployment(Frozen):
    """An environment. Everything else in its folder is made of this by `make deployments`."""

    environment: Literal["local", "staging", "prod"] = Field(description="which one")
    namespace: str = Field(pattern=r"^[a-z]([-a-z0-9]{0,40}[a-z0-9])?$", description="namespace of all objects")
    ray_version: str = Field(description="of the image, and of the operator's idea of it")
    based_on: Path | None = Field(None, description="settings file beside this one that `settings` adds to")
    settings: dict[str, Any] = Field({}, description="sections of the settings file; ${NAME} stands for a secret")
    settings_path: str = Field("/etc/foretaste/foretaste.yaml", description="where pods find the settings file")
    variables: dict[str, str] = Field({}, description="environment where Ray starts; read once")
    service: ServiceDeployment = ServiceDeployment()
    batch_head: PodSize = Field(PodSize(cpus=2, memory_gib=4), description="the head of a job's cluster")
    jobs: dict[str, JobConfig] = Field({}, description="by name")
    storage: StorageConfig
    places: PlacesConfig
    machine: bool = Field(False, description="whether serve.yaml of one machine is made, too, of `based_on` alone")

    @model_validator(mode="after")
    def _replicas_end_what_they_began(self) -> Self:
        lingers = float(self.variables.get(LINGERS, LINGERS_SECONDS))
        drains = self.service.replicas.drain_seconds
        if self.variables.get(HAPROXY) == "1" and drains < lingers + ENDS_SECONDS:
            raise ValueError(
                f"service.replicas.drain_seconds: wanted at least {lingers + ENDS_SECONDS:g}, {ENDS_SECONDS:g} above "
                f"variables.{LINGERS}, got {drains:g}; replicas would be killed with requests in hand"
            )
        return self

    @field_validator("jobs")
    @classmethod
    def _short_names(cls, jobs: dict[str, JobConfig]) -> dict[str, JobConfig]:
        for name in jobs:
            if len(f"foretaste-{name}") > 47:
                raise ValueError(f"{name}: a job's name has at most 47 characters, foretaste- included")
        return jobs
