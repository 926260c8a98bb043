"""What of serving can be set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from foretaste.contracts.config import Frozen, filled
from foretaste.contracts.controls import ControlsConfig
from foretaste.contracts.sessions import SessionRule
from foretaste.contracts.wire import PolicyName
from foretaste.feedback.decision_log import DecisionLogConfig
from foretaste.feedback.session_log import SessionLogConfig
from foretaste.serving.breaker import BreakerConfig
from foretaste.serving.budget import BudgetConfig
from foretaste.serving.exploring import ExploringConfig
from foretaste.serving.logs import LogFormat
from foretaste.serving.nearest import NearestConfig
from foretaste.serving.shadow import ShadowConfig
from foretaste.serving.shedding import SheddingConfig
from foretaste.serving.topology import ComposedConfig, Topology
from foretaste.serving.tracing import TracingConfig


class ServingConfig(Frozen):
    """How requests are answered."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="port to listen on")
    num_replicas: int = Field(1, ge=1, description="replicas of the chain; where composed, of all of it but the models")
    topology: Topology = Field(
        Topology.FUSED, description="where the models compute: fused, in the chain's replicas; composed, in their own"
    )
    composed: ComposedConfig = Field(ComposedConfig(), description="the models' own deployments")
    max_ongoing_requests: int = Field(
        1_024, ge=1, description="requests of all kinds in one replica; far above what shedding lets wait there"
    )
    max_queued_requests: int = Field(
        512, ge=1, description="requests that wait in Ray Serve's proxy for a replica before others get a 429"
    )
    policy: PolicyName = Field(PolicyName.EPSILON_GREEDY, description="policy of a request that names none")
    epsilon: float = Field(0.1, ge=0, le=1, description="probability that epsilon_greedy fills a place by dice")
    exploring: ExploringConfig = Field(ExploringConfig(), description="how policies use dice, and what that may cost")
    budget_ms: float = Field(
        300.0, gt=0, description="milliseconds for an answer; what cannot end by its share is left out, and named"
    )
    budget: BudgetConfig = Field(BudgetConfig(), description="by which share of budget_ms each stage has to end")
    shedding: SheddingConfig = Field(SheddingConfig(), description="how many requests are computed, and wait")
    batch_requests: int = Field(
        8, ge=1, description="requests that share a pass through a model where they come together; 1: each its own"
    )
    breaker: BreakerConfig = Field(BreakerConfig(), description="when a store that fails is left alone")
    api_keys: bool = Field(True, description="whether requests need an API key of the workspace's keys")
    cors_origins: tuple[str, ...] = Field((), description="web pages that may ask, e.g. https://example.org")
    log_format: LogFormat = Field(
        LogFormat.JSON, description="how requests and troubles are logged to standard error: json, text, none"
    )
    tracing: TracingConfig = Field(TracingConfig(), description="which requests are traced, and where to")
    max_body_bytes: int = Field(1_048_576, ge=1_024, description="bytes of the largest request body")
    future_minutes: float = Field(5.0, ge=0, description="minutes that an event may lie ahead of its arrival")
    title_refresh_seconds: float = Field(300.0, gt=0, description="seconds after which title features are read again")
    housekeeping_seconds: float = Field(
        20.0, gt=0, description="seconds between two rounds of what is due: refresh, roll, ship, expire, audit"
    )
    release_retry_seconds: float = Field(
        300.0, gt=0, description="seconds until a release that was refused is tried again, unless another is rolled out"
    )
    stale_hours: float = Field(48.0, gt=0, description="age in hours from which a slow view is called stale")
    audit_share: float = Field(
        0.02, ge=0, le=1, description="share of decisions that are logged with every feature value, to be compared"
    )
    shadow: ShadowConfig = Field(ShadowConfig(), description="what a release may cost that scores unseen")
    controls: ControlsConfig = ControlsConfig()
    nearest: NearestConfig = Field(NearestConfig(), description="when a catalogue is too large to score each title")
    session_log: SessionLogConfig = SessionLogConfig()
    decision_log: DecisionLogConfig = DecisionLogConfig()

    @model_validator(mode="after")
    def _enough_threads(self) -> Self:
        """A stage that waits for a thread of its own would look late."""
        if 0 < self.budget.workers < self.shedding.in_flight:
            raise ValueError(
                f"budget.workers: wanted 0, or as many as shedding.in_flight ({self.shedding.in_flight}) or more, "
                f"got {self.budget.workers}"
            )
        return self


class ServiceConfig(Frozen):
    """Where a replica finds what it serves: the arguments of `foretaste.serving.graph:build`."""

    workspace: Path = Field(description="folder of the tables and models; absolute, replicas run elsewhere")
    features_repo: Path = Field(description="folder of the Feast definitions; absolute")
    features_url: str | None = Field(None, description="Redis of the online features; null: SQLite in the workspace")
    features_registry_url: str | None = Field(
        None, description="SQL database of Feast's registry; null: SQLite in the workspace"
    )
    rule: SessionRule | None = Field(None, description="when a session ends, where the prepared data does not say")
    serving: ServingConfig = ServingConfig()


def of_replica(values: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> ServiceConfig:
    """What a replica is given, with `${NAME}` filled in where it runs: Ray Serve keeps, and shows, what it is given.

    Raises ValueError naming the variables that are not set.
    """
    return ServiceConfig.model_validate(filled(dict(values), environment, what="the service's arguments"))
