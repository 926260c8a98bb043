"""What posteriors are made of, and how much they keep."""

from __future__ import annotations

from pydantic import Field, field_validator

from foretaste.contracts.config import Frozen
from foretaste.policies.posterior import PosteriorConfig
from foretaste.signals.candidates import CANDIDATE_COLUMNS


class LearningConfig(Frozen):
    """How rewards become what policies that learn know; the kind of a posterior is its policy's."""

    columns: tuple[str, ...] = Field(
        ("intent_standing", "genre_match", "session_genre", "member_genre", "plays_7d", "age", "seen_before"),
        min_length=1,
        description="of the ranker's columns those that candidates are described by (neural_thompson: its last layer)",
    )
    posterior: PosteriorConfig = Field(PosteriorConfig(), description="what is believed before any reward")
    draws: int = Field(128, ge=2, le=4_096, description="draws of the weights that are published")
    measured: int = Field(2_000, ge=10, description="decisions of a part by which columns are brought to one size")

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in columns if name not in CANDIDATE_COLUMNS]:
            raise ValueError(f"{unknown} are no columns of the ranker; there are {', '.join(CANDIDATE_COLUMNS)}")
        return columns
