"""The service of a workspace as an app, for a Serve replica or any ASGI server."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from fastapi import FastAPI

from foretaste.serving.browsers import allow_browsers
from foretaste.serving.config import ServiceConfig
from foretaste.serving.garbage import set_apart
from foretaste.serving.ingress import build_app
from foretaste.serving.keys import KEYS_FILE, KeyRing
from foretaste.serving.logs import configure
from foretaste.serving.shedding import Admission
from foretaste.serving.slow import ViewSource
from foretaste.serving.topology import Topology
from foretaste.serving.tracing import TRACES_FOLDER, open_tracing

if TYPE_CHECKING:
    from foretaste.serving.composed import There

SWITCH_SECONDS = 0.0005
"""How long a thread has the interpreter while others want it; by default ten times that, which the event loop waits for
each time that it is its turn.
"""


def open_app(config: ServiceConfig, *, echo_request_id: bool = True, stages: There | None = None) -> FastAPI:
    """Open the service; the app closes it when it shuts down. `stages` are those of the composed topology.

    Raises what `service.open_service` raises, ValueError where the topology is not that of what is given.
    """
    import torch

    from foretaste.serving.service import open_service

    torch.set_num_threads(1)  # replicas scale by their number; threads of one fight those of another
    sys.setswitchinterval(SWITCH_SECONDS)
    configure(config.serving.log_format)
    if (stages is not None) != (config.serving.topology is Topology.COMPOSED):
        raise ValueError(f"serving.topology: {config.serving.topology.value} is run by foretaste.serving.graph")
    again = None
    if stages is not None:
        stages.wait(config.serving.composed.start_seconds)
        again = stages.patient(config.serving.composed.replay_seconds)
    service = open_service(config, source=view_source(config), parts=stages, replay_parts=again)
    keys = KeyRing(config.workspace / "serving" / KEYS_FILE) if config.serving.api_keys else None
    app = build_app(
        service,
        max_body_bytes=config.serving.max_body_bytes,
        echo_request_id=echo_request_id,
        housekeeping_seconds=config.serving.housekeeping_seconds,
        keys=keys,
        rate_share=1 / config.serving.num_replicas,
        admission=Admission(config.serving.shedding, timer=time.perf_counter),
        metrics=service.metrics,
        tracing=open_tracing(config.serving.tracing, config.workspace / "serving" / TRACES_FOLDER),
    )
    allow_browsers(app, config.serving.cors_origins)
    set_apart()
    return app


def view_source(config: ServiceConfig) -> ViewSource | None:
    """The feature store, or None where nothing was ever materialised; its first read imports Feast, which is slow."""
    from foretaste.signals.store import ONLINE, FeatureStore

    data = config.workspace / "features"
    if not (data / ONLINE).is_file():
        return None
    return FeatureStore(config.features_repo, data, config.features_url, config.features_registry_url)
