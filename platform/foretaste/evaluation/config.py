"""How much to evaluate."""

from __future__ import annotations

from pydantic import Field

from foretaste.contracts.config import Frozen


class EvaluationConfig(Frozen):
    """Size and dice of an evaluation."""

    seed: int = Field(0, ge=0, description="seed of the drawn cases and of the bootstrap")
    resamples: int = Field(1000, ge=100, description="bootstrap resamples of actors")
    limit: int | None = Field(None, ge=1, description="at most so many actors, drawn by seed; default all")
