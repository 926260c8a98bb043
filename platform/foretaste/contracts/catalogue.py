"""The titles that can be recommended, as arrays with codes.

Shapes: N titles that can be recommended, N1 = N + 1 rows where row 0 stands for an unknown title,
G genres, K kinds, P places of titles that events may name, episodes included (of words: of `words.hashed`).
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.contracts.columns import TITLES, conform
from foretaste.contracts.words import TOKEN_PLACES, hashed

UNKNOWN_TIME = np.iinfo(np.int64).min
SERIES_KINDS = frozenset({"show", "series"})
GENRE_PARTS = 5_040
"""A title's weight of 1, in whole parts: most numbers of genres divide it, so that sums of parts have no rounding."""
NOWHERE, NO_TITLE = 0, 1
"""Places of a title that the catalogue does not have, and of none at all."""


@dataclass(frozen=True)
class Catalogue:
    """Titles without a series above them, in order of title_id; code 0 is «not in the catalogue»."""

    ids: tuple[str, ...]  # of codes 1..N
    names: tuple[str, ...]
    kinds: tuple[str, ...]  # sorted names; kind_N1 indexes them
    genres: tuple[str, ...]  # sorted names; columns of genres_N1G
    kind_N1: NDArray[np.int32]  # -1 in row 0
    genres_N1G: NDArray[np.float32]  # multi-hot
    released_N1: NDArray[np.int64]  # microseconds since 1970, UNKNOWN_TIME when unknown
    series_of: dict[str, str]  # episode title_id -> series title_id
    episode_released: dict[str, int]  # as released_N1, of episodes

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def code_of(self) -> dict[str, int]:
        """Catalogue code by title_id; an episode has the code of its series."""
        own = {title_id: code for code, title_id in enumerate(self.ids, start=1)}
        return own | {episode: own[series] for episode, series in self.series_of.items() if series in own}

    @cached_property
    def series_N1(self) -> NDArray[np.bool_]:
        """Whether a title is a series: of a kind that is one, or with episodes of its own."""
        with_episodes = set(self.series_of.values())
        kinds = np.array([kind in SERIES_KINDS for kind in self.kinds] + [False], dtype=np.bool_)  # the last is of -1
        return kinds[self.kind_N1] | np.array([False, *(own in with_episodes for own in self.ids)], dtype=np.bool_)

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with any id, kind, genre or release date, of episodes too."""
        digest = hashlib.blake2b(digest_size=6)
        for part in ("\n".join(self.ids), "\n".join(self.kinds), "\n".join(self.genres)):
            digest.update(part.encode() + b"\0")
        for array in (self.kind_N1, self.genres_N1G, self.released_N1):
            digest.update(np.ascontiguousarray(array).tobytes())
        episodes = [f"{one}\0{self.series_of[one]}\0{at}" for one, at in sorted(self.episode_released.items())]
        digest.update("\n".join(episodes).encode())
        return digest.hexdigest()

    @cached_property
    def place_of(self) -> dict[str | None, int]:
        """Place of every title that an event may name; of another, NOWHERE."""
        return {None: NO_TITLE} | {title_id: place for place, title_id in enumerate(self.code_of, start=NO_TITLE + 1)}

    @cached_property
    def code_P(self) -> NDArray[np.int32]:
        """Catalogue code of each place, 0 of NOWHERE and NO_TITLE."""
        return np.array([0, 0, *self.code_of.values()], dtype=np.int32)

    @cached_property
    def released_P(self) -> NDArray[np.int64]:
        """Release of the title of each place, an episode's being its own; UNKNOWN_TIME when unknown."""
        own = dict(zip(self.ids, self.released_N1[1:].tolist(), strict=True)) | self.episode_released
        return np.array([UNKNOWN_TIME, UNKNOWN_TIME, *(own[title_id] for title_id in self.code_of)], dtype=np.int64)

    @cached_property
    def genre_parts_N1G(self) -> NDArray[np.int64]:
        """GENRE_PARTS of each title, divided between its genres."""
        many_N11 = np.maximum(self.genres_N1G.sum(axis=1, keepdims=True).astype(np.int64), 1)
        return np.asarray(GENRE_PARTS // many_N11 * (self.genres_N1G > 0))

    @cached_property
    def words_N1P(self) -> NDArray[np.bool_]:
        """Which places of `words.hashed` the words of a title's name and of its genres stand at."""
        own = (
            hashed(" ".join([name, *itertools.compress(self.genres, has_G)]))
            for name, has_G in zip(self.names, self.genres_N1G[1:].tolist(), strict=True)
        )
        return np.array([[0] * TOKEN_PLACES, *own], dtype=np.int64) > 0

    def codes(self, title_ids: list[str | None] | pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """Catalogue codes of title ids, 0 for one that is unknown or null."""
        known = self.code_of
        values = title_ids if isinstance(title_ids, list) else title_ids.to_pylist()
        return np.fromiter((known.get(v, 0) if v else 0 for v in values), dtype=np.int32, count=len(values))


def catalogue(titles: pa.Table) -> Catalogue:
    """Build the catalogue of a TITLES table. Raises ValueError on a title_id that stands twice."""
    titles = conform(titles, TITLES, what="titles").sort_by("title_id")
    rows = titles.to_pylist()
    all_ids = [row["title_id"] for row in rows]
    if len(set(all_ids)) != len(all_ids):
        twice = next(a for a, b in itertools.pairwise(all_ids) if a == b)
        raise ValueError(f"titles: title_id {twice!r} stands more than once")
    own = [row for row in rows if row["series_id"] is None]
    kinds = tuple(sorted({row["kind"] for row in own}))
    genres = tuple(sorted({genre for row in own for genre in row["genres"]}))
    kind_code = {kind: code for code, kind in enumerate(kinds)}
    genre_code = {genre: code for code, genre in enumerate(genres)}
    genres_N1G = np.zeros((len(own) + 1, len(genres)), dtype=np.float32)
    for code, row in enumerate(own, start=1):
        genres_N1G[code, [genre_code[genre] for genre in row["genres"]]] = 1.0
    released = np.asarray(titles["released_at"].cast(pa.int64()).fill_null(UNKNOWN_TIME))
    released_N1 = np.append(UNKNOWN_TIME, released[np.asarray(pc.is_null(titles["series_id"]))])
    return Catalogue(
        ids=tuple(row["title_id"] for row in own),
        names=tuple(row["name"] or row["title_id"] for row in own),
        kinds=kinds,
        genres=genres,
        kind_N1=np.array([-1, *(kind_code[row["kind"]] for row in own)], dtype=np.int32),
        genres_N1G=genres_N1G,
        released_N1=released_N1,
        series_of={row["title_id"]: row["series_id"] for row in rows if row["series_id"] is not None},
        episode_released={
            row["title_id"]: at for row, at in zip(rows, released.tolist(), strict=True) if row["series_id"] is not None
        },
    )
