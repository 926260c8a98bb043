"""The titles that can be recommended, as arrays with codes.

Shapes: N titles that can be recommended, N1 = N + 1 rows where row 0 stands for an unknown title,
G genres, K kinds.
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

UNKNOWN_TIME = np.iinfo(np.int64).min


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

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def code_of(self) -> dict[str, int]:
        """Catalogue code by title_id; an episode has the code of its series."""
        own = {title_id: code for code, title_id in enumerate(self.ids, start=1)}
        return own | {episode: own[series] for episode, series in self.series_of.items() if series in own}

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with any id, kind, genre or release date."""
        digest = hashlib.blake2b(digest_size=6)
        for part in ("\n".join(self.ids), "\n".join(self.kinds), "\n".join(self.genres)):
            digest.update(part.encode() + b"\0")
        for array in (self.kind_N1, self.genres_N1G, self.released_N1):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

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
    released_N1 = np.full(len(own) + 1, UNKNOWN_TIME, dtype=np.int64)
    released = titles.filter(pc.is_null(titles["series_id"]))["released_at"].cast(pa.int64())
    released_N1[1:] = np.asarray(released.fill_null(UNKNOWN_TIME))
    return Catalogue(
        ids=tuple(row["title_id"] for row in own),
        names=tuple(row["name"] or row["title_id"] for row in own),
        kinds=kinds,
        genres=genres,
        kind_N1=np.array([-1, *(kind_code[row["kind"]] for row in own)], dtype=np.int32),
        genres_N1G=genres_N1G,
        released_N1=released_N1,
        series_of={row["title_id"]: row["series_id"] for row in rows if row["series_id"] is not None},
    )
