"""What counts as following on a decision, and for how long."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from foretaste.contracts.config import Frozen


class OutcomeConfig(Frozen):
    """How decisions are joined with what followed on them."""

    window_hours: float = Field(
        72.0, gt=0, le=8_760, description="hours after a decision in which what is done with its titles counts"
    )
    skew_minutes: float = Field(
        10.0, ge=0, le=1_440, description="minutes that an event which names its decision may lie before it (clocks)"
    )
    complete_from: float = Field(0.9, gt=0, le=1, description="played fraction from which a title counts as completed")
    abandon_below: float = Field(
        0.5, gt=0, le=1, description="played fraction below which a title that was left counts as abandoned"
    )
    gap_minutes: float = Field(
        30.0,
        gt=0,
        le=1_440,
        description="quiet after which a member has returned, in logs without sessions of their own",
    )
    buckets: int = Field(2, ge=1, le=4_096, description="parts by hash of the actor, at least; each is one task")

    @property
    def window(self) -> timedelta:
        """How long a title is waited for."""
        return timedelta(hours=self.window_hours)
