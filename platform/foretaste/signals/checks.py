"""What may be written to an online store: the values that come back as they went."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MOST = 1 << 53
"""Integers from here on do not survive a detour over floating point."""


def check_rows(rows: pa.Table, key: str, version: str, *, what: str) -> None:
    """Raise ValueError naming the column and a row where a value would not come back from an online store.

    Refused are nulls, also within lists, NaN and infinity, integers of 2^53 or more, ids that are not text or are
    empty, versions that are not whole milliseconds or not those of `at`.
    """
    for field in rows.schema:
        column = rows[field.name]
        if column.null_count:
            _refuse(rows, key, what, field.name, "a value", pc.is_null(column))
        if pa.types.is_list(field.type):
            _check_list(rows, key, what, field.name)
        elif pa.types.is_floating(field.type):
            _refuse(rows, key, what, field.name, "a finite number", pc.invert(pc.is_finite(column)))
        elif pa.types.is_integer(field.type):
            _refuse(rows, key, what, field.name, "an integer below 2^53", pc.greater_equal(pc.abs(column), MOST))
    for name, wanted in ((key, pa.string()), (version, pa.int64())):
        found = rows.schema.field(name).type
        if found != wanted:
            raise ValueError(f"{what}: column {name} is {found}, wanted {wanted}")
    _refuse(rows, key, what, key, "an id that is not empty", pc.equal(rows[key], ""))
    at_us = rows["at"].cast(pa.int64())
    off = pc.not_equal(at_us, pc.multiply(rows[version], 1000))
    _refuse(rows, key, what, version, "whole milliseconds, those of `at`", off)


def _check_list(rows: pa.Table, key: str, what: str, name: str) -> None:
    for number, chunk in enumerate(rows[name].chunks):
        flat = chunk.flatten()
        if not flat.null_count and bool(np.isfinite(np.asarray(flat, dtype=np.float64)).all()):
            continue
        before = sum(len(one) for one in rows[name].chunks[:number])
        bad = next(
            before + place
            for place, values in enumerate(chunk.to_pylist())
            if any(one is None or not np.isfinite(one) for one in values)
        )
        _raise(rows, key, what, name, "finite numbers only", bad)


def _refuse(rows: pa.Table, key: str, what: str, name: str, wanted: str, bad: pa.ChunkedArray) -> None:
    if pc.any(bad).as_py():
        _raise(rows, key, what, name, wanted, int(np.asarray(pc.fill_null(bad, False)).argmax()))


def _raise(rows: pa.Table, key: str, what: str, name: str, wanted: str, row: int) -> None:
    found, whose = rows[name][row].as_py(), rows[key][row].as_py()
    raise ValueError(f"{what}: row {row} ({key} {whose!r}): {name} is {found!r}, wanted {wanted}")
