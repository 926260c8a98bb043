"""How large a synthetic world is, and what is planted in it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Literal, Self

from pydantic import Field, model_validator

from foretaste.contracts.config import Frozen

MAX_CHOICES = 6
"""Most titles chosen in one session."""


class WorldConfig(Frozen):
    """A seeded streaming service; the defaults are the demo (about 300,000 events, a few seconds)."""

    seed: int = Field(7, ge=0, lt=2**32, description="seed of everything that is drawn")
    num_members: int = Field(2_500, ge=1, le=50_000_000, description="members")
    num_movies: int = Field(270, ge=20, le=50_000, description="movies, released before or during the window")
    num_shows: int = Field(130, ge=10, le=50_000, description="shows, each with seasons and episodes")
    first_day: date = Field(
        date(2026, 1, 1), ge=date(1990, 1, 1), description="first day of the window, which opens at midnight UTC"
    )
    days: int = Field(49, ge=7, le=1_000, description="length of the window in days")
    sessions_per_week: float = Field(
        1.25, ge=0.05, le=7.0, description="mean sessions per member and week since joining"
    )
    impressions_per_session: int = Field(6, ge=1, le=40, description="titles on the slate that opens a session")
    members_per_partition: int = Field(1_250, ge=1, le=20_000, description="members generated (and held) at a time")
    mechanism: Literal["weights", "aspects"] = Field(
        "weights", description="how intents drive choices: factors multiplied, or elimination by aspects"
    )
    intents: bool = Field(True, description="false: sessions have no intent, only taste drives choices (control)")
    departure_share: float = Field(
        0.5, ge=0.0, le=1.0, description="share of sessions whose intended genre departs from the taste"
    )
    intent_strength: float = Field(
        4.0,
        ge=0.0,
        le=6.0,
        description="logarithm of how much likelier a title of the intended genre is; in a world of aspects the one at "
        "place k = 1, 2, ... is attended to with probability 1 - exp(-intent_strength / 2^k)",
    )
    taste_strength: float = Field(
        4.0, ge=0.0, le=10.0, description="logarithm of how much likelier a title of an only favourite genre is"
    )
    popularity_exponent: float = Field(0.6, ge=0.0, le=2.0, description="exponent of the Zipf law of appeal")
    slate_boost: float = Field(
        12.0,
        ge=0.0,
        le=50.0,
        description="how much likelier the first title shown is for being shown; falls with place",
    )
    slate_exploration: float = Field(
        0.1,
        gt=0.0,
        le=1.0,
        description="share of places on the slate that the logging policy fills uniformly at random",
    )
    return_effect: float = Field(
        1.6, ge=0.0, le=5.0, description="logarithm of the ratio of waits until the next visit, satisfaction 0 to 1"
    )
    joining_share: float = Field(0.25, ge=0.0, le=1.0, description="share of members who join during the window")
    guest_share: float = Field(0.03, ge=0.0, le=1.0, description="share of sessions without signing in")
    released_share: float = Field(0.15, ge=0.0, le=0.4, description="share of titles released during the window")

    @model_validator(mode="after")
    def _check(self) -> Self:
        wanted = 2 * (self.impressions_per_session + MAX_CHOICES)
        if self.num_movies + self.num_shows < wanted:
            raise ValueError(f"num_movies + num_shows must be at least {wanted}: a slate and choices need titles")
        return self

    @property
    def num_partitions(self) -> int:
        """Partitions of members."""
        return -(-self.num_members // self.members_per_partition)

    @property
    def first_us(self) -> int:
        """Start of the window, microseconds since 1970."""
        midnight = datetime(self.first_day.year, self.first_day.month, self.first_day.day, tzinfo=UTC)
        return round(midnight.timestamp()) * SECOND_US

    @property
    def end_us(self) -> int:
        """End of the window, exclusive, microseconds since 1970."""
        return self.first_us + self.days * DAY_US

    def members_of(self, index: int) -> range:
        """Numbers of the members of a partition. Raises IndexError where there is no such partition."""
        if not 0 <= index < self.num_partitions:
            raise IndexError(f"partition {index} of a world with {self.num_partitions}")
        start = index * self.members_per_partition
        return range(start, min(start + self.members_per_partition, self.num_members))


SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US
