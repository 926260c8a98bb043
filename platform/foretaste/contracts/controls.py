"""What shapes a list beside the models' scores: what can be set, and what of it each decision was made with."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from foretaste.contracts.config import Frozen

VERSION = "1"
"""Changes whenever the same scores and the same `Controls` would give another list."""


class Kind(StrEnum):
    """What a decision answered."""

    RECOMMEND = "recommend"
    NEXT = "next"  # went on with an earlier list
    RANK = "rank"  # ordered titles that the request named


class Source(StrEnum):
    """What a title of the pool was brought by, in order of precedence."""

    SHOWN = "shown"  # was on the list before
    CONTINUE = "continue"
    SIMILAR = "similar"
    TRENDING = "trending"
    NEW = "new"
    SCORES = "scores"  # the model's own, or those that stand in for it


class ControlsConfig(Frozen):
    """How lists are filled and arranged."""

    continue_watching: int = Field(5, ge=0, le=50, description="titles of the pool that were begun and not finished")
    similar: int = Field(10, ge=0, le=50, description="titles of the pool that are most like those of the session")
    trending: int = Field(5, ge=0, le=50, description="titles of the pool that were played most in the last 7 days")
    new_releases: int = Field(5, ge=0, le=50, description="titles of the pool that were released last")
    new_days: float = Field(30.0, gt=0, description="days for which a title is new")
    diversity: float = Field(
        0.0, ge=0, le=1, description="weight of unlikeness to the titles above it in a title's place; 0: none"
    )
    protected: int = Field(
        0,
        ge=0,
        le=20,
        description="places at the top that keep their titles within a session, where these may be shown",
    )
    max_move: int | None = Field(
        None,
        ge=0,
        le=100,
        description="places that a title of the last list moves at most for every new event; null: any number",
    )
    long_term: float = Field(
        0.0, ge=0, le=1, description="weight of the member's long-term taste before the session's first event; 0: none"
    )
    long_term_half: float = Field(5.0, gt=0, description="events of the session after which that weight is half")

    @property
    def steady(self) -> bool:
        """Whether a list depends on the one before."""
        return self.protected > 0 or self.max_move is not None


NO_CONTROLS = ControlsConfig(continue_watching=0, similar=0, trending=0, new_releases=0)
"""Of decisions that were logged before there were any."""


class Controls(Frozen):
    """All that shaped one list, beside its request and what was known of the member."""

    version: str = VERSION
    config: ControlsConfig = NO_CONTROLS
    before: tuple[str, ...] = Field((), description="titles of the list before, in order")
    before_mark: int = Field(0, description="mark of the session log that the list before was made at")
    above: tuple[str, ...] = Field((), description="titles of the lists that this one goes on after")
    candidates: tuple[str, ...] | None = Field(None, description="titles that were to be ranked; null: any")
