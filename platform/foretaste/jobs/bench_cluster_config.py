"""What `foretaste bench cluster` starts, and the load under which it is hurt."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from foretaste.contracts.config import Frozen


class ClusterBenchConfig(Frozen):
    """The cluster, and how long each thing that comes over it lasts."""

    deployment: Path = Field(
        Path("deployments/prod"), description="folder of the deployment whose application and environment are started"
    )
    workers: int = Field(2, ge=2, description="workers, each with a replica")
    worker_cpus: int = Field(2, ge=1, description="processors that a worker says it has")
    per_second: float = Field(15.0, gt=0, description="requests a second, open loop")
    events_share: float = Field(0.4, ge=0, lt=1, description="share of requests that send an event")
    probe_seconds: float = Field(1.0, gt=0, description="seconds between two looks at whether a worker takes requests")
    lead_seconds: float = Field(10.0, gt=0, description="seconds of load before anything happens")
    settle_seconds: float = Field(20.0, gt=0, description="seconds after it within which all has to be well")
    outage_seconds: float = Field(20.0, ge=0, description="seconds that the head is gone before it is started again")
    unplug: bool = Field(True, description="whether a worker is cut off the network, too, which tells nobody")
    redis_restarts: int = Field(3, ge=1, description="times that Redis is killed and started again")
    redis_seconds: float = Field(3.0, ge=0, description="seconds that it is gone each time")
    ready_seconds: float = Field(300.0, gt=0, description="seconds within which a cluster or a change has to stand")


_QUICK: dict[str, object] = {
    "per_second": 10.0,
    "lead_seconds": 3.0,
    "settle_seconds": 6.0,
    "outage_seconds": 3.0,
    "unplug": False,
    "redis_seconds": 1.0,
}


def sized(config: ClusterBenchConfig, *, quick: bool) -> ClusterBenchConfig:
    """The settings, or the size that the tests run."""
    return ClusterBenchConfig.model_validate(config.model_dump() | (_QUICK if quick else {}))
