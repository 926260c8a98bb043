"""Where the models compute: in each replica of the chain, or in deployments of their own."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field, model_validator

from foretaste.contracts.config import Frozen


class Topology(StrEnum):
    """How the chain is divided among processes."""

    FUSED = "fused"
    COMPOSED = "composed"


class StageConfig(Frozen):
    """Size and resources of one stage that is a deployment of its own."""

    num_replicas: int = Field(1, ge=1, description="replicas of the stage; the fewest, where it scales by its load")
    max_replicas: int | None = Field(
        None, ge=1, description="most replicas of the stage, which then scales by its load; null: it does not"
    )
    target_ongoing_requests: float = Field(
        4.0, gt=0, description="requests of one replica at a time that scaling aims at"
    )
    num_cpus: float = Field(0.5, ge=0, description="processors that one replica books; half: two stages share one")
    num_gpus: float = Field(0.0, ge=0, description="GPUs that one replica books; its model computes on them if above 0")
    max_ongoing_requests: int = Field(
        64, ge=1, description="requests in one replica at a time, each in a thread until its pass is done"
    )

    @model_validator(mode="after")
    def _in_order(self) -> StageConfig:
        if self.max_replicas is not None and self.max_replicas < self.num_replicas:
            raise ValueError(f"max_replicas: {self.max_replicas} is below num_replicas, {self.num_replicas}")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The same as Ray Serve's options of a deployment."""
        scaling: dict[str, Any] = {"num_replicas": self.num_replicas}
        if self.max_replicas is not None:
            scaling = {
                "autoscaling_config": {
                    "min_replicas": self.num_replicas,
                    "max_replicas": self.max_replicas,
                    "target_ongoing_requests": self.target_ongoing_requests,
                }
            }
        resources = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        return scaling | {"max_ongoing_requests": self.max_ongoing_requests, "ray_actor_options": resources}


class ComposedConfig(Frozen):
    """The stages of the composed topology; the ingress is set by `num_replicas` beside it."""

    intent: StageConfig = Field(StageConfig(), description="the intent model's deployment")
    ranker: StageConfig = Field(StageConfig(), description="the ranker's deployment")
    models_kept: int = Field(
        2, ge=1, description="models that each replica of a stage has loaded: those of releases before, and of replays"
    )
    start_seconds: float = Field(
        60.0, ge=0, description="seconds that a replica of the ingress waits at its start for a stage; then it answers"
    )
    replay_seconds: float = Field(
        30.0, gt=0, description="seconds for a stage to load a model, and for its answer to a replay, which may have to"
    )
