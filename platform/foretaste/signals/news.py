"""What a publication has to say, given the rows that there ought to be and those that were published before.

Shapes: B keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class News:
    """Rows to publish, sorted by key and version."""

    rows: pa.Table
    corrections: int  # of them, rows that say a published one again with what came late
    gone: list[str]  # keys that were published and that nothing is known of any more


def news(
    ideal: pa.Table, published: pa.Table | None, *, key: str, version: str, since_ms: int, published_ms: int
) -> News:
    """Compare the rows that there ought to be, up to this publication, with what was published; both sorted by nothing.

    Published are versions after `since_ms`, and of keys that have none the newest row, where its values are not those
    published last: under the version `published_ms`, or one more than the last. Without `published` all is news.
    """
    ideal = ideal.sort_by([(key, "ascending"), (version, "ascending")])
    if published is None:
        return News(ideal, 0, [])
    newest = _newest(published, key, version)
    place = pc.index_in(ideal[key], value_set=newest[key].combine_chunks())
    last_R = np.asarray(pc.fill_null(pc.take(newest[version], place), -1))
    version_R = np.asarray(ideal[version])
    fresh = ideal.filter(pa.array((version_R > since_ms) & (version_R > last_R)))
    late = _newest(ideal, key, version)
    late = late.filter(pc.invert(pc.is_in(late[key], value_set=pc.unique(fresh[key]))))
    place = pc.index_in(late[key], value_set=newest[key].combine_chunks())
    known_B = np.asarray(pc.is_valid(place))
    values = [name for name in ideal.column_names if name not in (key, version, "at")]
    alike_B = np.zeros(len(known_B), dtype=np.bool_)
    alike_B[known_B] = _alike(late.filter(pa.array(known_B)), newest.take(pc.drop_null(place)), values)
    late, place = late.filter(pa.array(~alike_B)), place.filter(pa.array(~alike_B))
    last_B = np.asarray(pc.fill_null(pc.take(newest[version], place), -1))
    late = _under(late, np.maximum(published_ms, last_B + 1), version)
    rows = pa.concat_tables([fresh, late]).sort_by([(key, "ascending"), (version, "ascending")])
    gone = pc.filter(newest[key], pc.invert(pc.is_in(newest[key], value_set=pc.unique(ideal[key]))))
    return News(rows, late.num_rows, gone.to_pylist())


def _newest(rows: pa.Table, key: str, version: str) -> pa.Table:
    """The newest row of each key."""
    rows = rows.sort_by([(key, "ascending"), (version, "ascending")]).combine_chunks()
    codes = np.asarray(rows[key].combine_chunks().dictionary_encode().indices) if rows.num_rows else np.zeros(0)
    return rows.take(pa.array(np.flatnonzero(np.diff(codes, append=-1) != 0)))


def _alike(one: pa.Table, other: pa.Table, columns: list[str]) -> NDArray[np.bool_]:
    """Say of each pair of rows whether every bit of these columns is the same."""
    alike_B = np.ones(one.num_rows, dtype=np.bool_)
    for name in columns:
        alike_B &= (_bits(one[name]) == _bits(other[name])).all(axis=1)
    return alike_B


def _bits(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    flat = np.ascontiguousarray(np.asarray(array.flatten() if pa.types.is_list(array.type) else array))
    return flat.view(np.uint8).reshape(len(array), -1) if len(array) else np.zeros((0, 0), dtype=np.uint8)


def _under(rows: pa.Table, version_B: NDArray[np.int64], version: str) -> pa.Table:
    """The same rows under other versions."""
    stamps = pa.array(version_B, pa.int64())
    at = pc.multiply(stamps, 1000).cast(rows.schema.field("at").type)
    rows = rows.set_column(rows.column_names.index(version), rows.schema.field(version), stamps)
    return rows.set_column(rows.column_names.index("at"), rows.schema.field("at"), at)
