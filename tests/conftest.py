"""Fixtures that start something, once a run, and stop it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Run a local Ray of two CPUs for the whole test run."""
    import ray

    folder = Path(tempfile.mkdtemp(prefix="ft-", dir="/tmp"))
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=400 * 1024**2,
        _temp_dir=str(folder),
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Run a real Redis on a free loopback port for the whole test run; each test takes a prefix of its own."""
    from foretaste.testing.redis_server import redis_server

    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed; `make setup` installs Debian's")
    with redis_server() as url:
        yield url
