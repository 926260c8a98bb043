"""What a prepared folder keeps so that a later run need not read it whole: sorted parts, tails, and hashes of ids.

Shapes: H hashes, E events.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foretaste.ops.files import whole_file
from foretaste.ops.tables import SUPERSEDED
from foretaste.sessions.sequence import ACTOR, STORED_ACTS, STORED_IMPRESSIONS, STORED_INTERACTIONS, TAILS

Part = dict[str, Any]
"""An entry of the manifest: file (below the prepared folder), run that wrote it, rows."""

Parts = dict[str, list[Part]]
"""The parts of one bucket by table."""

TAIL, IDS, PAIRS = "tails", "ids", "pairs"
STORED = {"acts": STORED_ACTS, "interactions": STORED_INTERACTIONS, "impressions": STORED_IMPRESSIONS, TAIL: TAILS}
TABLES = (*STORED, IDS, PAIRS, SUPERSEDED)
ROWS_A_GROUP = 8_192
"""Few enough that reading some actors reads little else, as parts are sorted by actor."""


def write_table(table: pa.Table, prepared: Path, name: str, bucket: str, run: int) -> Part:
    """Write one whole part and return its entry."""
    file = f"{name}/{bucket}/{run:06d}.parquet"
    with whole_file(prepared / file) as partial:
        pq.write_table(
            table, partial, compression="zstd", compression_level=1, row_group_size=ROWS_A_GROUP,
            write_statistics=[ACTOR], store_schema=True,
        )  # fmt: skip
    return {"file": file, "run": run, "rows": table.num_rows}


def write_hashes(hash_H: NDArray[np.uint64], prepared: Path, name: str, bucket: str, run: int) -> Part:
    """Write sorted hashes and return their entry."""
    file = f"{name}/{bucket}/{run:06d}.npy"
    with whole_file(prepared / file) as partial, partial.open("wb") as stream:
        np.save(stream, hash_H)
    return {"file": file, "run": run, "rows": len(hash_H)}


def hashes(*texts: pl.Series) -> NDArray[np.uint64]:
    """A 64-bit hash of each row of the columns given; the same in all processes of one version of polars."""
    mixed = np.zeros(len(texts[0]), dtype=np.uint64)
    for number, column in enumerate(texts):
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + column.hash(number + 1).to_numpy()
    return mixed


def known(hash_E: NDArray[np.uint64], prepared: Path, parts: Iterable[Part]) -> NDArray[np.bool_]:
    """Which hashes stand in the parts; bool[E]."""
    found_E = np.zeros(len(hash_E), dtype=np.bool_)
    order = np.argsort(hash_E)
    for part in parts:
        stored = np.load(prepared / part["file"], mmap_mode="r")
        if len(stored):
            place = np.minimum(np.searchsorted(stored, hash_E[order]), len(stored) - 1)
            found_E[order] |= stored[place] == hash_E[order]
    return found_E


def tails(prepared: Path, parts: Parts, actors: pl.Series) -> pl.DataFrame:
    """The newest TAILS of those actors that have any."""
    wanted = actors.unique().to_frame(ACTOR)
    read = (read_part(prepared, part) for part in parts.get(TAIL, []))
    frames = [rows.join(wanted, on=ACTOR, how="semi") for rows in read]
    return pl.concat([frame_of(TAILS.empty_table()), *frames]).unique(ACTOR, keep="last", maintain_order=True)


def rows_of(
    prepared: Path, parts: Parts, table: str, actors: pl.Series, *, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Rows of some actors in a stored table; only the row groups that may hold one are read."""
    wanted = actors.unique().sort()
    names = list(dict.fromkeys([ACTOR, *(columns or STORED[table].names)]))
    listed, asked = wanted.to_list(), wanted.to_frame(ACTOR)
    frames = [frame_of(pa.schema([STORED[table].field(n) for n in names]).empty_table())]
    for part in parts.get(table, []) if listed else []:
        file = pq.ParquetFile(prepared / part["file"])
        groups = _groups(file.metadata, listed)
        if not groups:
            continue
        rows = frame_of(file.read_row_groups(groups, names, use_threads=False)).join(
            asked, on=ACTOR, how="semi", maintain_order="left"
        )
        later = [one for one in parts.get(SUPERSEDED, []) if one["run"] > part["run"]]
        for one in later:
            made_again = read_part(prepared, one)
            rows = rows.join(made_again, on=ACTOR, how="anti", maintain_order="left")
        frames.append(rows)
    return pl.concat(frames)


def _groups(metadata: pq.FileMetaData, actors: list[str]) -> list[int]:
    """Row groups whose span of actors holds one of `actors`, which are sorted."""
    if not actors or not metadata.num_row_groups:
        return []
    column = metadata.schema.names.index(ACTOR)
    found = []
    listed = np.array(actors, dtype=object)
    for group in range(metadata.num_row_groups):
        span = metadata.row_group(group).column(column).statistics
        if span is None or not span.has_min_max:
            found.append(group)
            continue
        place = int(np.searchsorted(listed, span.min))
        if place < len(actors) and actors[place] <= span.max:
            found.append(group)
    return found


def as_events(acts: pl.DataFrame, impressions: pl.DataFrame, action: str) -> pl.DataFrame:
    """Stored rows as STAGED ones, so that they can be sequenced again; of impressions what has to be kept."""
    shown = impressions.select(
        ACTOR,
        "event_id",
        "member_id",
        "at",
        "surface",
        "position",
        "decision_id",
        properties=pl.concat_str(pl.lit('{"propensity": '), pl.col("propensity").cast(pl.String), pl.lit("}")),
        session_id="native_session_id",
        title_id="shown_title_id",
        action=pl.lit(action),
    )
    whole = acts.select(STORED_ACTS.names)
    return pl.concat([whole, shown], how="diagonal").select(STORED_ACTS.names)


def read_part(prepared: Path, part: Part) -> pl.DataFrame:
    """All of one part."""
    return frame_of(pq.ParquetFile(prepared / part["file"]).read(use_threads=False))


def frame_of(table: pa.Table) -> pl.DataFrame:
    """A table as a frame."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
