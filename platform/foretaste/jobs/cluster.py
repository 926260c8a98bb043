"""The Ray that a job runs on: the one it was submitted to, or one of its own for as long as it lasts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from foretaste.contracts.config import Frozen


class ClusterConfig(Frozen):
    """Which Ray to use."""

    address: str | None = Field(None, description="Ray address to join; by default RAY_ADDRESS, else a local Ray")
    num_cpus: int = Field(2, ge=1, description="CPUs of a local Ray")
    object_store_mib: int = Field(512, ge=100, description="shared memory of a local Ray, in MiB")
    data_cpus: float | None = Field(
        None,
        gt=0,
        description="CPUs that this verb's Ray Data tasks take at most at a time, so that others on the cluster, "
        "training above all, find some free; null: all that nobody else takes",
    )
    data_store_mib: int | None = Field(
        None, ge=1, description="shared memory that their rows take at most, in MiB; null: half of the cluster's"
    )
    haproxy: bool = Field(
        False,
        description="whether HAProxy stands in front of a local Ray Serve: faster, and it asks another replica where "
        "one dies; its ports of metrics and statistics listen on all interfaces, so firewall them",
    )


LOCAL_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # loopback only, no dashboard; otherwise Ray would write a token file to HOME
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # reports are paced by it
    "RAY_worker_niceness": "0",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}
HAPROXY_ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",  # events are safe to repeat, and so are lists
}


def environment(config: ClusterConfig) -> dict[str, str]:
    """What has to stand in the environment where a local Ray is started."""
    return LOCAL_ENVIRONMENT | (HAPROXY_ENVIRONMENT if config.haproxy else {})


@contextlib.contextmanager
def cluster(config: ClusterConfig) -> Iterator[None]:
    """Join the given Ray, or run a local one on loopback that ends with the block; inside another, use that.

    What Ray Data takes of it is bounded for as long.
    """
    with _joined(config), _bounded(config):
        yield


@contextlib.contextmanager
def _bounded(config: ClusterConfig) -> Iterator[None]:
    if config.data_cpus is None and config.data_store_mib is None:
        yield
        return
    from ray.data import DataContext, ExecutionResources

    store = None if config.data_store_mib is None else config.data_store_mib * 2**20
    options = DataContext.get_current().execution_options
    before = options.resource_limits
    options.resource_limits = ExecutionResources(cpu=config.data_cpus, object_store_memory=store)
    try:
        yield
    finally:
        options.resource_limits = before


@contextlib.contextmanager
def _joined(config: ClusterConfig) -> Iterator[None]:
    import ray

    if ray.is_initialized():
        yield
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    on_stop = signal.getsignal(signal.SIGTERM)
    if address is not None:
        ray.init(address=address, log_to_driver=False)
        try:
            _keep(on_stop)
            yield
        finally:
            ray.shutdown()
        return
    for name, value in environment(config).items():
        os.environ.setdefault(name, value)
    folder = tempfile.mkdtemp(prefix="foretaste-ray-")
    try:
        ray.init(
            num_cpus=config.num_cpus,
            object_store_memory=config.object_store_mib * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
        _keep(on_stop)
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _keep(on_stop: Any) -> None:
    """Put the program's own answer to SIGTERM back: Ray's prints a stack trace and skips what is to be stopped."""
    if threading.current_thread() is threading.main_thread() and on_stop is not None:
        signal.signal(signal.SIGTERM, on_stop)
