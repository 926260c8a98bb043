"""How members are told apart by what they are here for."""

from __future__ import annotations

from pydantic import Field

from foretaste.contracts.config import Frozen


class SegmentConfig(Frozen):
    """K-means++ on the intent embedding, and what counts as a finding about a segment."""

    num: int = Field(10, ge=0, le=1_000, description="segments; 0: none are made")
    seed: int = Field(0, ge=0, description="seed of the first centres, of the draws of stability and of the plot")
    restarts: int = Field(10, ge=1, description="first centres that are tried; the tightest result counts")
    max_members: int = Field(
        100_000, ge=10, description="members, drawn by their id, that centres are fitted to; all are then assigned"
    )
    repeats: int = Field(5, ge=2, description="further seeds, and divisions into halves, by which stability is judged")
    profile_days: float = Field(28.0, gt=0, description="days before the instant whose behaviour is described")
    next_days: float = Field(7.0, gt=0, description="days after it, which no segment has seen, where there are any")
    level: float = Field(0.05, gt=0, lt=1, description="share of false findings that is accepted among all found")
    least_members: int = Field(10, ge=2, description="members of a segment with a behaviour below which none is found")
