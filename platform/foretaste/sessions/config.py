"""How a log is prepared."""

from __future__ import annotations

from pydantic import Field, model_validator

from foretaste.contracts.config import Frozen
from foretaste.contracts.events import Action
from foretaste.contracts.sessions import SessionRule


class PrepareConfig(Frozen):
    """What a session is, how many buckets, which shares are held out, and how many bad rows are too many."""

    rule: SessionRule = SessionRule()
    num_buckets: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="folders that actors are divided into by hash; default: by bucket_rows",
    )
    bucket_rows: int = Field(750_000, ge=1, description="raw rows a bucket is to hold: what a task has in memory")
    validation_share: float = Field(0.1, ge=0, lt=1, description="share of interactions before the test part")
    test_share: float = Field(0.1, ge=0, lt=1, description="share of interactions at the end of time")
    max_bad_share: float = Field(0.05, ge=0, le=1, description="share of bad rows above which nothing is written")
    target_actions: tuple[Action, ...] | None = Field(
        None, description="actions that count as a choice; by default play-like ones where the log has any"
    )
    piece_rows: int = Field(500_000, ge=1, description="raw rows that one task holds in memory at a time")
    more_events: tuple[str, ...] = Field(
        (), description="folders of further event files: paths, s3://bucket/prefix or gs://bucket/prefix"
    )
    served: bool = Field(True, description="whether the events that the service was sent are prepared, too")
    compact_share: float = Field(
        0.25, gt=0, description="share of rows that later runs may have added before all tables are made again"
    )

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> PrepareConfig:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share + test_share must be below 1: nothing is left for training")
        return self

    def decides(self) -> str:
        """Fingerprint of what the content of the tables depends on, beside the events."""
        plain = PrepareConfig()
        same = ("max_bad_share", "target_actions", "piece_rows", "more_events", "served", "compact_share")
        return self.model_copy(update={name: getattr(plain, name) for name in same}).fingerprint()
