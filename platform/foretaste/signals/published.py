"""The rows of the slow views that were published: by exact version, of this generation or a retired one.

    <data>/sources/{members,titles}/*.parquet  manifest.json      the generation that is published to
    <data>/retired/<generation>/...                               the same of those before

A generation is what one configuration, vocabulary and set of columns gave; within it a row is never written again.

Shapes: B rows asked for, C titles asked for, N1 catalogue codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.ops.files import read_json, read_parquet
from foretaste.signals.views import ABSENT, MemberView, TitleView, Vocabulary, member_view, title_rows

SOURCES, RETIRED = "sources", "retired"
"""Folders within the feature store's data."""
MANIFEST = "manifest.json"
MEMBER_PARTS, TITLE_PARTS = "members", "titles"
_VERSION_BITS = 44  # of milliseconds since 1970, beside a catalogue code in one integer


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation of published rows."""

    name: str
    folder: Path
    vocabulary: Vocabulary

    def members(self, ids: Sequence[str | None], asof_ms_B: NDArray[np.int64]) -> MemberView:
        """Read members' rows by exact version; None or ABSENT is absent. Raises ValueError for one that never was."""
        asked = pl.DataFrame({"member_id": ids, "member_asof_ms": asof_ms_B}, schema_overrides={"member_id": pl.String})
        rows = pl.scan_parquet(self.folder / MEMBER_PARTS / "*.parquet").drop("at")
        keys = ["member_id", "member_asof_ms"]
        wanted = rows.join(asked.lazy().unique(), on=keys, how="semi").with_columns(there=True).collect()
        found = asked.join(wanted, on=keys, how="left", maintain_order="left")
        there_B = found["there"].fill_null(False).to_numpy()
        missing_B = ~there_B & asked["member_id"].is_not_null().to_numpy() & (asof_ms_B != ABSENT)
        if missing_B.any():
            first = int(missing_B.argmax())
            raise ValueError(self._never(f"member {ids[first]!r}", int(asof_ms_B[first]), int(missing_B.sum())))
        return member_view(found.to_arrow(), there_B, self.vocabulary)

    def _never(self, what: str, version: int, count: int) -> str:
        return f"generation {self.name}: {what} was never published with version {version} ({count} rows missing)"


class TitleVersions:
    """All published rows of the titles of a catalogue, found by exact version in microseconds."""

    def __init__(self, generation: Generation, catalogue: Catalogue) -> None:
        """Read every row of the generation's titles."""
        self._generation, self._catalogue = generation, catalogue
        table = read_parquet(generation.folder / TITLE_PARTS)
        named = table["title_id"].combine_chunks().dictionary_encode()
        code_R = catalogue.codes(named.dictionary)[np.asarray(named.indices)].astype(np.int64)
        key_R = (code_R << _VERSION_BITS) + np.asarray(table["title_asof_ms"])
        order_R = np.argsort(key_R, kind="stable")[np.count_nonzero(code_R == 0) :]
        self._key_R = key_R[order_R]
        self._rows = title_rows(table.take(pa.array(order_R)))

    def at(self, codes_C: NDArray[Any], asof_ms_C: NDArray[np.int64] | int) -> TitleView:
        """Read titles by code and exact version (one for all, or one each); the others, code 0 and ABSENT are absent.

        Raises ValueError for a version that never was.
        """
        view = TitleView.absent(self._catalogue)
        codes_C = np.asarray(codes_C, dtype=np.int64)
        versions_C = np.broadcast_to(np.asarray(asof_ms_C, dtype=np.int64), codes_C.shape)
        some_C = (codes_C > 0) & (versions_C != ABSENT)
        codes_C, versions_C = codes_C[some_C], versions_C[some_C]
        key_C = (codes_C << _VERSION_BITS) + versions_C
        place_C = np.searchsorted(self._key_R, key_C)
        found_C = np.zeros(len(key_C), dtype=np.bool_)
        inside_C = place_C < len(self._key_R)
        found_C[inside_C] = self._key_R[place_C[inside_C]] == key_C[inside_C]
        if not found_C.all():
            first = int(found_C.argmin())
            title = self._catalogue.ids[codes_C[first] - 1]
            raise ValueError(self._generation._never(f"title {title!r}", int(versions_C[first]), int((~found_C).sum())))
        view.put(codes_C, self._rows, place_C)
        return view


def generation(data: Path, name: str | None = None) -> Generation:
    """Find a generation under the feature store's data, by default that which is published to.

    Raises FileNotFoundError where nothing was published yet, ValueError for a generation that never was.
    """
    folder = data / SOURCES
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(f"{folder / MANIFEST} is not there: build the snapshots first")
    found = read_json(folder / MANIFEST)
    if name is not None and found["generation"] != name:
        folder = data / RETIRED / name
        if not name or not (folder / MANIFEST).is_file():
            retired = sorted(path.name for path in (data / RETIRED).glob("*") if path.is_dir())
            raise ValueError(
                f"{data}: there is no generation {name!r}; there is {found['generation']}, retired are {retired}"
            )
        found = read_json(folder / MANIFEST)
    return Generation(found["generation"], folder, Vocabulary(tuple(found["genres"]), tuple(found["kinds"])))
