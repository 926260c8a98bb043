"""How a log is prepared."""

from __future__ import annotations

from pydantic import Field, model_validator

from foretaste.contracts.config import Frozen
from foretaste.contracts.events import Action
from foretaste.contracts.sessions import SessionRule


class PrepareConfig(Frozen):
    """What a session is, how many buckets, which shares are held out, and how many bad rows are too many."""

    rule: SessionRule = SessionRule()
    num_buckets: int = Field(8, ge=1, le=10_000, description="folders that actors are divided into by hash")
    validation_share: float = Field(0.1, ge=0, lt=1, description="share of interactions before the test part")
    test_share: float = Field(0.1, ge=0, lt=1, description="share of interactions at the end of time")
    max_bad_share: float = Field(0.05, ge=0, le=1, description="share of bad rows above which nothing is written")
    target_actions: tuple[Action, ...] | None = Field(
        None, description="actions that count as a choice; by default play-like ones where the log has any"
    )
    piece_rows: int = Field(1_000_000, ge=1, description="raw rows that one task holds in memory at a time")

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> PrepareConfig:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share + test_share must be below 1: nothing is left for training")
        return self
