"""The rows of the slow views that were published: by exact version, of this generation or a retired one.

    <data>/sources/{members,titles}/*.parquet  manifest.json      the generation that is published to
    <data>/retired/<generation>/...                               the same of those before

A generation is what one configuration, vocabulary and set of columns gave; within it a row is never written again.
A publication adds a part a bucket: <bucket>-<instant>-<number>.parquet. Parts are written elsewhere and renamed, so
that whoever reads all files of a folder finds no half of one.

Shapes: B rows asked for, C titles asked for, N1 catalogue codes.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue
from foretaste.ops.files import PARTIAL, read_json, read_parquet, write_parquet
from foretaste.signals.views import ABSENT, MemberView, TitleView, Vocabulary, member_view, title_rows

SOURCES, RETIRED = "sources", "retired"
"""Folders within the feature store's data."""
MANIFEST = "manifest.json"
STAGE, LOCK = ".staging", ".lock"
MEMBER_PARTS, TITLE_PARTS = "members", "titles"
_FOREVER = 1 << 62
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
        keys = ["member_id", "member_asof_ms"]
        parts = [part.join(asked.unique(), on=keys, how="semi") for part in self._member_parts()]
        wanted = pl.concat(parts).with_columns(there=True)
        found = asked.join(wanted, on=keys, how="left", maintain_order="left")
        there_B = found["there"].fill_null(False).to_numpy()
        missing_B = ~there_B & asked["member_id"].is_not_null().to_numpy() & (asof_ms_B != ABSENT)
        if missing_B.any():
            first = int(missing_B.argmax())
            raise ValueError(self._never(f"member {ids[first]!r}", int(asof_ms_B[first]), int(missing_B.sum())))
        return member_view(found.to_arrow(), there_B, self.vocabulary)

    def _member_parts(self) -> Iterator[pl.DataFrame]:
        """Rows of members, a row group at a time, of files that may be written again while they are read.

        A file is opened once: what is opened by its name twice (as polars does, and panics) may be another by then.
        """
        for path in sorted((self.folder / MEMBER_PARTS).glob("*.parquet")):
            with path.open("rb") as opened:
                file = pq.ParquetFile(opened)
                names = [name for name in file.schema_arrow.names if name != "at"]
                for group in range(max(1, file.num_row_groups)):
                    rows = file.read_row_group(group, names) if file.num_row_groups else file.read(names)
                    yield pl.DataFrame(pl.from_arrow(rows))

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


@dataclass(frozen=True, slots=True)
class Parts:
    """The published part files of one bucket."""

    folder: Path
    bucket: str

    def files(self) -> list[Path]:
        """Files in order of publication."""
        return sorted(self.folder.glob(f"{self.bucket}-*.parquet"))

    def next_name(self, published_ms: int) -> str:
        """Name of a part that is not there yet."""
        return f"{self.bucket}-{published_ms:015d}-{len(self.files()):05d}.parquet"

    def read(self, schema: pa.Schema) -> pa.Table:
        """All rows that were published."""
        return pa.concat_tables([schema.empty_table(), *(pq.read_table(file) for file in self.files())])

    def rewrite(self, gone: Sequence[str]) -> int:
        """Write parts again without these members; returns how many rows are gone."""
        return sum(_rewrite(file, dict.fromkeys(gone, _FOREVER)) for file in self.files())


def forget_rows(data: Path, deleted: Mapping[str, int]) -> int:
    """Remove rows of members up to an instant each (microseconds), from every generation; returns how many."""
    if not deleted:
        return 0
    folders = [data / SOURCES, *(data / RETIRED).glob("*")]
    return sum(
        _rewrite(file, deleted) for folder in folders for file in sorted((folder / MEMBER_PARTS).glob("*.parquet"))
    )


def _rewrite(file: Path, deleted: Mapping[str, int]) -> int:
    ids = pq.read_table(file, columns=["member_id", "member_asof_ms"])
    place = pc.index_in(ids["member_id"], value_set=pa.array(list(deleted), pa.string()))
    limit = pc.take(pa.array(list(deleted.values()), pa.int64()), place)
    gone = pc.fill_null(pc.less_equal(pc.multiply(ids["member_asof_ms"], 1000), limit), False)
    count = int(pc.sum(gone).as_py() or 0)
    if count:
        aside = file.parents[1] / f"{PARTIAL}{file.name}"
        write_parquet(pq.read_table(file).filter(pc.invert(gone)), aside)
        aside.replace(file)
    return count


@contextlib.contextmanager
def writing(data: Path, *, wait: bool = True) -> Iterator[bool]:
    """Be the only one, of all processes, who publishes, loads or forgets.

    Waits until it is so, or else gives whether it is.
    """
    data.mkdir(parents=True, exist_ok=True)
    with (data / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


@contextlib.contextmanager
def staging(data: Path) -> Iterator[Path]:
    """Give an empty folder beside the sources; whatever is left in it goes, also what a killed run left."""
    folder = data / STAGE
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
