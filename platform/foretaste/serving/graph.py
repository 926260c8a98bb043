"""The service on Ray Serve: `serve run foretaste.serving.graph:build workspace=... features_repo=...`.

Fused: one deployment holds the whole chain, because a hop between deployments costs more than the models do on a
processor. Composed: the models have deployments of their own, with their own replicas and GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.config import BackpressureConfig
from ray.serve.exceptions import BackPressureError

from foretaste.serving.budget import INTENT, RANKER
from foretaste.serving.config import ServiceConfig, of_replica
from foretaste.serving.topology import Topology

DEPLOYMENT = "foretaste"
RETRY_AFTER_SECONDS = 1


class Replica:
    """The service in a replica: opened once, here, so that slow imports are not paid by a request."""

    def __init__(self, config: Mapping[str, Any], handles: Mapping[str, Any] | None = None) -> None:
        """`handles` are those of the composed topology's stages, by name."""
        self._config = of_replica(config)
        self._handles = handles

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Open the service and put HTTP in front; called by Serve once the replica is made."""
        from foretaste.serving.app import open_app

        if self._handles is None:
            return open_app(self._config, echo_request_id=False)
        from foretaste.serving.composed import HandleLoop, stages_behind

        stages = stages_behind(self._handles, self._config, loop=HandleLoop(), busy=(BackPressureError,))
        return open_app(self._config, echo_request_id=False, stages=stages)


def build(args: Mapping[str, Any]) -> serve.Application:
    """Make the application of ServiceConfig's values; paths are made absolute, for replicas run elsewhere."""
    config = ServiceConfig.model_validate(dict(args))
    absolute = {"workspace": config.workspace.absolute(), "features_repo": config.features_repo.absolute()}
    config = config.model_copy(update=absolute)
    deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=config.serving.num_replicas,
        max_ongoing_requests=config.serving.max_ongoing_requests,
        max_queued_requests=config.serving.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=RETRY_AFTER_SECONDS),
        ray_actor_options={"num_cpus": 1},
    )(serve.ingress()(Replica))
    values = config.model_dump(mode="json")
    stages = () if config.serving.topology is Topology.FUSED else (_stages(config, values),)
    application: serve.Application = deployment.bind(values, *stages)
    return application


def _stages(config: ServiceConfig, values: Mapping[str, Any]) -> dict[str, serve.Application]:
    """The models' deployments, by stage."""
    from foretaste.serving.model_stages import IntentStage, RankerStage

    composed = config.serving.composed
    stages = {INTENT: (IntentStage, composed.intent), RANKER: (RankerStage, composed.ranker)}
    return {
        name: serve.deployment(name=name, **stage.options)(plain).bind(values)
        for name, (plain, stage) in stages.items()
    }
