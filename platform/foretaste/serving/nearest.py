"""When a catalogue is too large to score each of its titles; see `title_index`, which imports torch."""

from __future__ import annotations

import json

from pydantic import Field

from foretaste.contracts.config import Frozen


class NearestConfig(Frozen):
    """When a catalogue is searched by an index, and how far."""

    exact_up_to_titles: int = Field(
        200_000, ge=1, description="titles of a catalogue, or of it what may be shown, up to which each is scored"
    )
    searched_share: float = Field(
        0.1, gt=0, le=1, description="share of the index's cells that are looked into; 1: all, which finds everything"
    )

    @classmethod
    def named(cls, name: str) -> NearestConfig:
        """The configuration of an index's name."""
        known = json.loads(name)
        return cls(**{field: known[field] for field in cls.model_fields})
