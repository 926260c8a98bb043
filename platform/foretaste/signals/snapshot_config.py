"""What of the slow views can be set."""

from __future__ import annotations

from pydantic import Field

from foretaste.contracts.config import Frozen

LONG_DAYS = 400


class SnapshotConfig(Frozen):
    """What the slow views hold."""

    step_days: int | None = Field(
        None, ge=1, le=31, description=f"days between snapshots; by default 1, and 7 for a log over {LONG_DAYS} days"
    )
    half_life_days: float = Field(30.0, ge=7, description="days after which an interaction counts half in affinities")
    browse_weight: float = Field(
        0.25, ge=0, le=1, description="what an interaction that is no choice adds to affinities, a choice being 1"
    )
    complete_from: float = Field(0.9, gt=0, le=1, description="played fraction (0..1) that counts as completed")
    prior_plays: float = Field(10.0, gt=0, description="plays without completion that every title is given beforehand")
