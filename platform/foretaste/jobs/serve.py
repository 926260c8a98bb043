"""`foretaste serve`: the request path on Ray Serve, for as long as it is wanted."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
import warnings
from collections.abc import Iterator

from foretaste.client.calls import Calls
from foretaste.jobs.cluster import cluster
from foretaste.jobs.keys import first_key
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.ops.telemetry import say

APPLICATION = "foretaste"
READY_WITHIN_SECONDS = 120.0


def serve(settings: Settings, *, host: str | None = None, port: int | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises ValueError when the port is taken."""
    with cluster(settings.cluster), running(settings, host=host, port=port) as url:
        wait_for_interrupt(url)


@contextlib.contextmanager
def running(settings: Settings, *, host: str | None = None, port: int | None = None) -> Iterator[str]:
    """Run the application on the Ray that is there and give its address; it stops with the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Serve's own, of pydantic
        from ray import serve as ray_serve
        from ray.serve.config import HTTPOptions

        from foretaste.serving.graph import build

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    needed(settings.tables.prepared, made_by="prepare")
    address, number = host or settings.serving.host, free_port(host or settings.serving.host, port, settings)
    url = f"http://{address}:{number}"
    if settings.serving.api_keys:
        first_key(settings, address)
    arguments = {
        "workspace": str(settings.tables.root),
        "features_repo": str(settings.features_repo.absolute()),
        "features_url": settings.features_url,
        "features_registry_url": settings.features_registry_url,
        "rule": settings.prepare.rule.model_dump(mode="json"),
        "serving": settings.serving.model_dump(mode="json"),
    }
    try:
        ray_serve.start(http_options=HTTPOptions(host=address, port=number, access_log=False))
        ray_serve.run(build(arguments), name=APPLICATION, route_prefix="/")
        wait_until_ready(url)
        yield url
    finally:
        ray_serve.shutdown()


def free_port(host: str, port: int | None, settings: Settings) -> int:
    """The port asked for, or one that the system gives where that is 0. Raises ValueError when it is taken."""
    wanted = settings.serving.port if port is None else port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except OSError as error:
            raise ValueError(
                f"cannot listen on {host}:{wanted}: {error}; choose another with --set serving.port=..."
            ) from error
        return int(probe.getsockname()[1])


def wait_until_ready(url: str) -> None:
    """Return once the service takes requests. Raises ConnectionError when it does not within two minutes."""
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    with Calls(url) as client:
        while not client.ready():
            if time.monotonic() > deadline:
                raise ConnectionError(f"{url} was not ready after {READY_WITHIN_SECONDS:.0f} s")
            time.sleep(0.1)


def wait_for_interrupt(url: str) -> None:
    """Block until Ctrl-C or SIGTERM."""
    say(f"serving on {url}; stop with Ctrl-C")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
