"""Cells as they stand in a file, made into values of a contract: a bad cell is marked, never fatal.

Shapes: N rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

RFC_3339 = r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:[0-5]\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$"
INTEGER = r"^-?\d{1,18}$"
LEAST_MS, MOST_MS = 100_000_000_000, 253_402_300_799_999
"""Whole numbers nearer to 1970 than March 1973 are seconds by mistake; the upper end is the year 9999."""

LIST_DIVIDER = "|"

_NUMBERS = {pa.int32(): pl.Int32, pa.int64(): pl.Int64, pa.float64(): pl.Float64}


@dataclass(frozen=True, slots=True)
class Cells:
    """One column: values of the wanted type, null where the cell is null or bad."""

    values: pa.Array
    bad_N: NDArray[np.bool_]


def wanted(kind: pa.DataType) -> str:
    """Say for a person what a cell of a type must look like."""
    if pa.types.is_timestamp(kind):
        return "RFC 3339 with its offset (2026-01-31T18:00:00Z), or epoch milliseconds (a whole number, not seconds)"
    if kind == pa.list_(pa.string()):
        return "a list of strings (in CSV: drama|crime)"
    names = {pa.string(): "a string", pa.float64(): "a number", pa.bool_(): "true or false"}
    return names.get(kind) or f"a {kind} value"


def from_text(text: pa.Array, kind: pa.DataType) -> Cells:
    """Read cells of a CSV file; an empty cell is null, an empty list where a list is wanted."""
    if pa.types.is_string(kind):
        return Cells(text, np.zeros(len(text), dtype=np.bool_))
    if pa.types.is_timestamp(kind):
        return _times(text, kind)
    if pa.types.is_nested(kind):
        return from_json([_nested(cell) for cell in text.to_pylist()], kind)
    if pa.types.is_boolean(kind):
        known = {"true": True, "false": False, "1": True, "0": False}
        return _marked([known.get(cell.lower()) if cell else None for cell in text.to_pylist()], text, kind)
    return _marked(_series(text).cast(_NUMBERS[kind], strict=False).to_arrow(), text, kind)


def from_json(values: list[Any], kind: pa.DataType, *, objects: bool = False) -> Cells:
    """Read values of JSON objects, which have types already: 7 is not a string, "7" is not a number.

    With `objects` an object is taken as its JSON text where a string is wanted (`properties`).
    """
    if pa.types.is_timestamp(kind):
        text = [None if v is None else v if type(v) is str else str(v) if type(v) is int else "?" for v in values]
        return _times(pa.array(text, pa.string()), kind)
    if objects and pa.types.is_string(kind) and dict in set(map(type, values)):
        values = [json.dumps(v) if type(v) is dict else v for v in values]
    allowed = _python_types(kind)
    if set(map(type, values)) <= allowed:
        try:
            return _listed(pa.array(values, kind), np.zeros(len(values), dtype=np.bool_))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            pass
    kept = [value if type(value) in allowed and _fits(value, kind) else None for value in values]
    bad_N = np.array([k is None and v is not None for k, v in zip(kept, values, strict=True)], dtype=np.bool_)
    return _listed(pa.array(kept, kind), bad_N)


def from_arrow(column: pa.Array, kind: pa.DataType) -> Cells:
    """Take a column of a Parquet file or a table, where its type can hold nothing but what is wanted."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    found = column.type
    if pa.types.is_timestamp(kind):
        return _arrow_times(column, kind)
    number = pa.types.is_integer(found) or pa.types.is_floating(found)
    if pa.types.is_floating(kind) and number:
        return Cells(column.cast(kind, safe=False), np.zeros(len(column), dtype=np.bool_))
    if pa.types.is_integer(kind) and pa.types.is_integer(found):
        return _marked(_series(column).cast(_NUMBERS[kind], strict=False).to_arrow(), column, kind)
    text = pa.types.is_string(kind) and (pa.types.is_large_string(found) or pa.types.is_string_view(found))
    if text or found == kind or pa.types.is_null(found) or (pa.types.is_nested(kind) and pa.types.is_nested(found)):
        try:
            return _listed(column.cast(kind), np.zeros(len(column), dtype=np.bool_))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
            return from_json(column.to_pylist(), kind)
    return _listed(pa.nulls(len(column), kind), _valid(column))


def _series(values: pa.Array) -> pl.Series:
    series = pl.from_arrow(values)
    assert isinstance(series, pl.Series)
    return series


def _valid(values: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(values.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)


def _marked(values: Any, source: pa.Array, kind: pa.DataType) -> Cells:
    array = pa.array(values, kind) if isinstance(values, list) else values.cast(kind)
    return Cells(array, _valid(source) & ~_valid(array))


def _times(text: pa.Array, kind: pa.DataType) -> Cells:
    series = _series(text.cast(pa.string()))
    whole = series.str.contains(INTEGER).fill_null(False)
    stamp = series.str.contains(RFC_3339).fill_null(False)
    frame = pl.DataFrame({"text": series, "whole": whole, "stamp": stamp})
    ms = pl.when("whole").then(pl.col("text")).cast(pl.Int64, strict=False)
    plain = (
        pl.col("text").str.to_uppercase().str.replace(" ", "T", literal=True).str.replace("Z", "+00:00", literal=True)
    )
    at = pl.when("stamp").then(plain).str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False)
    likely = ms.abs().is_between(LEAST_MS, MOST_MS)
    micros = frame.select(pl.coalesce(pl.when(likely).then(ms * 1000), at.dt.epoch("us"))).to_series()
    return _marked(micros.to_arrow().cast(pa.int64()), text, kind)


def _arrow_times(column: pa.Array, kind: pa.DataType) -> Cells:
    found = column.type
    if pa.types.is_timestamp(found) and found.tz is not None:
        return Cells(column.cast(kind, safe=False), np.zeros(len(column), dtype=np.bool_))
    if pa.types.is_integer(found) or pa.types.is_string(found) or pa.types.is_large_string(found):
        return _times(column.cast(pa.string()), kind)
    return Cells(pa.nulls(len(column), kind), _valid(column))


def _nested(cell: str | None) -> Any:
    if cell is None or cell == "":
        return None
    if cell[0] not in "[{":
        return cell.split(LIST_DIVIDER)
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def _listed(values: pa.Array, bad_N: NDArray[np.bool_]) -> Cells:
    """No list and an empty list mean the same; a null inside a list is refused."""
    if not pa.types.is_list(values.type):
        return Cells(values, bad_N)
    empty = pa.scalar([], values.type)
    inside = values.flatten()
    if inside.null_count:
        rows = pc.list_parent_indices(values).filter(inside.is_null()).unique().to_numpy()
        bad_N = bad_N.copy()
        bad_N[rows] = True
        values = pc.if_else(pa.array(bad_N), empty, values)
    return Cells(values.fill_null(empty) if values.null_count else values, bad_N)


def _python_types(kind: pa.DataType) -> set[type]:
    none = type(None)
    if pa.types.is_string(kind):
        return {str, none}
    if pa.types.is_floating(kind):
        return {float, int, none}
    if pa.types.is_integer(kind):
        return {int, none}
    return {bool, none} if pa.types.is_boolean(kind) else {list, none} if pa.types.is_list(kind) else {dict, none}


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        pa.array([value], kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return False
    return True
