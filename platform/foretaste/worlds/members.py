"""The members of a partition: what they like, how often they come, since when.

Shapes: M members of the partition, N titles, G genres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.columns import AT, conform
from foretaste.contracts.truth import TRUTH_MEMBERS
from foretaste.worlds.config import DAY_US, WorldConfig
from foretaste.worlds.names import GENRES
from foretaste.worlds.titles import Titles

COUNTRIES = ("US", "GB", "DE", "FR", "BR", "IN", "JP", "MX")
_COUNTRY_ODDS = (0.34, 0.12, 0.1, 0.1, 0.12, 0.1, 0.06, 0.06)
_TASTE_CONCENTRATION = 0.3
_GAP_SHAPE = 4.0


@dataclass(frozen=True)
class Members:
    """M members."""

    ids: tuple[str, ...]
    taste_MG: NDArray[np.float64]  # sums to 1
    show_share_M: NDArray[np.float64]
    gap_days_M: NDArray[np.float64]  # mean wait between visits at middling satisfaction
    joined_M: NDArray[np.int64]  # microseconds; the start of the window for those who were there before
    first_visit_M: NDArray[np.int64]  # microseconds, possibly after the window
    evening_M: NDArray[np.float64]  # usual hour of a visit, 0..24
    country_M: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


def make_members(config: WorldConfig, index: int, rng: np.random.Generator) -> Members:
    """Draw the members of a partition."""
    numbers = config.members_of(index)
    num = len(numbers)
    # dividing by the shape less one makes the mean of visits per week, not of the gaps, what is configured
    gap_days_M = 7.0 / config.sessions_per_week * rng.gamma(_GAP_SHAPE, 1.0 / (_GAP_SHAPE - 1.0), num).clip(0.2, 5.0)
    newcomer_M = rng.random(num) < config.joining_share
    joined_M = config.first_us + (newcomer_M * rng.random(num) * config.days * DAY_US).astype(np.int64)
    wait_M = np.where(newcomer_M, 0.01, 1.0) * rng.exponential(gap_days_M)
    return Members(
        ids=tuple(f"member-{number:07d}" for number in numbers),
        taste_MG=_tastes(num, rng),
        show_share_M=rng.beta(2.0, 2.0, num),
        gap_days_M=gap_days_M,
        joined_M=joined_M,
        first_visit_M=joined_M + 1 + (wait_M * DAY_US).astype(np.int64),
        evening_M=rng.normal(20.0, 3.0, num) % 24.0,
        country_M=rng.choice(len(COUNTRIES), size=num, p=_COUNTRY_ODDS),
    )


def _tastes(num: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Two or three favourites each; the floor keeps every genre possible."""
    gamma_MG = rng.gamma(_TASTE_CONCENTRATION, 1.0, (num, len(GENRES))) + 0.01
    return np.asarray(gamma_MG / gamma_MG.sum(axis=1, keepdims=True))


def affinity(members: Members, titles: Titles) -> NDArray[np.float64]:
    """How much of a member's taste a title is, 0..1, [M, N]: the taste summed over the title's genres."""
    affinity_MN = np.zeros((len(members), len(titles)))
    for genre in range(len(GENRES)):  # not a matrix product: its last bits would depend on the number of threads
        affinity_MN += members.taste_MG[:, genre, None] * titles.genre_NG[None, :, genre]
    return np.minimum(affinity_MN, 1.0)


def truth_members(members: Members) -> pa.Table:
    """TRUTH_MEMBERS, in the order of the members."""
    table = pa.table(
        {
            "member_id": list(members.ids),
            "taste": pa.array(list(members.taste_MG), pa.list_(pa.float64())),
            "show_share": members.show_share_M,
            "gap_days": members.gap_days_M,
            "joined_at": pa.array(members.joined_M, AT),
            "country": [COUNTRIES[code] for code in members.country_M],
        }
    )
    return conform(table, TRUTH_MEMBERS, what="truth of members")
