"""What `foretaste retrain` holds a new release to."""

from __future__ import annotations

from pydantic import Field

from foretaste.contracts.config import Frozen


class RetrainConfig(Frozen):
    """How the loop from decisions to a release is closed."""

    program: str = Field("completion", description="reward program that a new release is judged by")
    evaluate_cases: int | None = Field(None, ge=1, description="cases of the ranking evaluation at most; null: all")
