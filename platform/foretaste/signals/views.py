"""The slow views as the request and the training read them: plain arrays, the same from online and from history.

A view that is absent (never seen, too new, expired) is 0 throughout with version -1.

Shapes: B requests, N1 catalogue codes (row 0 is the unknown title), G genres, K kinds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue

ABSENT = -1
"""Version of a view that is absent."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the places of the affinities stand for."""

    genres: tuple[str, ...]
    kinds: tuple[str, ...]

    def absent(self, size: int) -> MemberView:
        """Views of members of whom nothing is known."""
        return MemberView.absent(size, num_genres=len(self.genres), num_kinds=len(self.kinds))

    def check(self, catalogue: Catalogue, *, what: str) -> None:
        """Raise ValueError where a catalogue has other genres or kinds, or in another order."""
        for name in ("genres", "kinds"):
            mine, wanted = getattr(self, name), getattr(catalogue, name)
            if mine != wanted:
                raise ValueError(f"{what}: affinities are of {name} {list(mine)}, wanted {list(wanted)}")


@dataclass(frozen=True, slots=True)
class MemberView:
    """What was known of members at the last midnight; see contracts.columns.MEMBER_SNAPSHOTS."""

    genre_affinity_BG: NDArray[np.float32]
    kind_affinity_BK: NDArray[np.float32]
    count_7d_B: NDArray[np.int64]
    count_30d_B: NDArray[np.int64]
    count_180d_B: NDArray[np.int64]
    visits_30d_B: NDArray[np.int64]
    tenure_days_B: NDArray[np.float32]
    asof_ms_B: NDArray[np.int64]  # ABSENT without a view

    @classmethod
    def absent(cls, size: int, *, num_genres: int, num_kinds: int) -> MemberView:
        """Views of members of whom nothing is known."""
        return cls(
            genre_affinity_BG=np.zeros((size, num_genres), dtype=np.float32),
            kind_affinity_BK=np.zeros((size, num_kinds), dtype=np.float32),
            count_7d_B=np.zeros(size, dtype=np.int64),
            count_30d_B=np.zeros(size, dtype=np.int64),
            count_180d_B=np.zeros(size, dtype=np.int64),
            visits_30d_B=np.zeros(size, dtype=np.int64),
            tenure_days_B=np.zeros(size, dtype=np.float32),
            asof_ms_B=np.full(size, ABSENT, dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.asof_ms_B)

    def rows(self, index_B: NDArray[np.int64]) -> MemberView:
        """Pick members by their number."""
        return MemberView(**{field.name: getattr(self, field.name)[index_B] for field in fields(self)})


MEMBER_LISTS = {"member_genre_affinity": "genre_affinity_BG", "member_kind_affinity": "kind_affinity_BK"}
MEMBER_COUNTS = {
    "member_plays_7d": "count_7d_B",
    "member_plays_30d": "count_30d_B",
    "member_plays_180d": "count_180d_B",
    "member_visits_30d": "visits_30d_B",
    "member_asof_ms": "asof_ms_B",
}
MEMBER_REALS = {"member_tenure_days": "tenure_days_B"}
"""Arrays of a MemberView by column of MEMBER_SNAPSHOTS: lists of reals, integers, reals."""


@dataclass(frozen=True, slots=True)
class TitleView:
    """What was known of all titles of a catalogue at one midnight; see contracts.columns.TITLE_SNAPSHOTS."""

    plays_1d: NDArray[np.int64]  # all N1, by catalogue code
    plays_7d: NDArray[np.int64]
    plays_30d: NDArray[np.int64]
    plays_all: NDArray[np.int64]
    completion_rate: NDArray[np.float32]
    first_seen_ms: NDArray[np.int64]
    asof_ms: NDArray[np.int64]  # ABSENT without a view

    @classmethod
    def absent(cls, catalogue: Catalogue) -> TitleView:
        """Views of titles of which nothing is known."""
        return cls.empty(len(catalogue) + 1)

    @classmethod
    def empty(cls, size: int) -> TitleView:
        """Views, all absent, by number."""
        return cls(
            plays_1d=np.zeros(size, dtype=np.int64),
            plays_7d=np.zeros(size, dtype=np.int64),
            plays_30d=np.zeros(size, dtype=np.int64),
            plays_all=np.zeros(size, dtype=np.int64),
            completion_rate=np.zeros(size, dtype=np.float32),
            first_seen_ms=np.zeros(size, dtype=np.int64),
            asof_ms=np.full(size, ABSENT, dtype=np.int64),
        )

    def put(self, codes_C: NDArray[np.int64], rows: TitleView, place_C: NDArray[np.int64]) -> None:
        """Copy rows, found by their place, to the titles of these codes."""
        for field in fields(self):
            getattr(self, field.name)[codes_C] = getattr(rows, field.name)[place_C]

    @property
    def newest_ms(self) -> int:
        """Newest version among the titles, ABSENT where there is none."""
        return int(self.asof_ms.max(initial=ABSENT))


TITLE_COUNTS = {
    "title_plays_1d": "plays_1d",
    "title_plays_7d": "plays_7d",
    "title_plays_30d": "plays_30d",
    "title_plays_all": "plays_all",
    "title_first_seen_ms": "first_seen_ms",
    "title_asof_ms": "asof_ms",
}
TITLE_REALS = {"title_completion_rate": "completion_rate"}
"""Arrays of a TitleView by column of TITLE_SNAPSHOTS: integers, reals."""


def visible(asof_ms_B: NDArray[np.int64], at_B: NDArray[np.int64] | int, *, ttl_us: int) -> NDArray[np.bool_]:
    """Say of each version (milliseconds) whether it may be seen at an instant (microseconds).

    It must be older than the instant, and by no more than `ttl_us` (0: however old).
    """
    age_us = at_B - asof_ms_B * 1000
    seen_B = (asof_ms_B != ABSENT) & (age_us > 0)
    return np.asarray(seen_B & (age_us <= ttl_us) if ttl_us else seen_B)


def versions(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Read a column of versions; null is ABSENT."""
    return np.asarray(column.cast(pa.int64()).fill_null(ABSENT))


def member_view(rows: pa.Table, seen_B: NDArray[np.bool_], vocabulary: Vocabulary) -> MemberView:
    """Read joined rows of member snapshots; those not `seen_B` are absent.

    Raises ValueError where affinities have another length than the vocabulary.
    """
    view = vocabulary.absent(rows.num_rows)
    seen = rows.filter(pa.array(seen_B))
    for column, name in MEMBER_LISTS.items():
        array = getattr(view, name)
        array[seen_B] = _matrix(seen[column], array.shape[1])
    for column, name in (MEMBER_COUNTS | MEMBER_REALS).items():
        getattr(view, name)[seen_B] = np.asarray(seen[column])
    return view


def title_view(rows: pa.Table, seen_N: NDArray[np.bool_], catalogue: Catalogue) -> TitleView:
    """Read joined rows of title snapshots, one a title in order of code; those not `seen_N` are absent."""
    view = TitleView.absent(catalogue)
    seen = title_rows(rows.filter(pa.array(seen_N)))
    view.put(np.flatnonzero(seen_N) + 1, seen, np.arange(len(seen.asof_ms)))
    return view


def title_rows(rows: pa.Table) -> TitleView:
    """Read rows of title snapshots as arrays in their order, of no catalogue."""
    return TitleView(**{name: np.asarray(rows[column]) for column, name in (TITLE_COUNTS | TITLE_REALS).items()})


def _matrix(column: pa.ChunkedArray, width: int) -> NDArray[np.float32]:
    flat = np.asarray(column.combine_chunks().flatten(), dtype=np.float32)
    if len(flat) != len(column) * width:
        raise ValueError(f"{len(column)} affinities have {len(flat)} shares, wanted {width} each")
    return flat.reshape(len(column), width)
