"""How a policy is judged by what was logged."""

from __future__ import annotations

from pydantic import Field

from foretaste.contracts.config import Frozen
from foretaste.evaluation.gate import GateConfig


class PolicyEvaluationConfig(Frozen):
    """How `foretaste evaluate-policy` reads a log, and what it takes for a promotion."""

    places: int = Field(10, ge=1, le=100, description="places of a list that are judged at most")
    max_left_out: float = Field(
        0.05, ge=0, lt=1, description="share of closed decisions that may be left out before the log is refused"
    )
    rounds_in_memory: int = Field(
        5_000_000, ge=1_000, description="rounds that intervals are made of at most; more are drawn by actor"
    )
    buckets: int = Field(2, ge=1, le=4_096, description="parts by hash of the actor, at least; each is one task")
    folds: int = Field(
        5,
        ge=0,
        le=100,
        description="folds of actors that the reward model of lists is fitted across; below 2: no model",
    )
    gate: GateConfig = Field(GateConfig(), description="what has to be shown before something is promoted")
