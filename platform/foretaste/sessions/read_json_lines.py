"""JSON lines: one object a line.

Shapes: N rows of a piece.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.sessions.cells import Cells, from_json
from foretaste.sessions.pieces import Malformed, Piece, UnreadableFileError
from foretaste.sessions.sources import File

WANTED = "one JSON object a line"
PROPERTIES = "properties"
"""The column that holds JSON, in which an object may stand as one."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def keys(path: File, *, sample: int = 1000) -> list[str]:
    """Keys of the first objects of a file, in order of appearance."""
    with path.open() as stream:
        rows = (_parsed(line) for line in itertools.islice(stream, sample))
        names = list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))
    if not names:
        raise UnreadableFileError(path, f"no JSON object in the first {sample:,} lines", WANTED)
    return names


def pieces(path: File, schema: pa.Schema, *, piece_rows: int) -> Iterator[Piece]:
    """Read a file; blank lines are passed over, a line that is no object is a malformed row.

    Raises UnreadableFileError where the last line breaks off, or the file is one JSON array.
    """
    with path.open() as stream:
        start = stream.read(64).lstrip()
        if start.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"["):
            raise UnreadableFileError(path, "the file begins with '[': a JSON array", WANTED)
        stream.seek(0)
        numbered = enumerate(stream)
        while lines := list(itertools.islice(numbered, piece_rows)):
            yield _piece(path, lines, schema)


def _piece(path: File, lines: list[tuple[int, bytes]], schema: pa.Schema) -> Piece:
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    malformed: list[Malformed] = []
    for number, line in lines:
        row = _parsed(line)
        if isinstance(row, dict):
            rows.append(row)
            numbers.append(number)
        elif line.strip():
            if row is None and not line.endswith(b"\n"):
                raise UnreadableFileError(path, f"truncated: line {number + 1} breaks off", WANTED)
            malformed.append(Malformed(number, number + 1, line.decode(errors="replace").strip(), WANTED))
    columns = tuple(dict.fromkeys(key for row in rows for key in row))

    def cells(column: str, kind: pa.DataType) -> Cells:
        return from_json([row.get(column) for row in rows], kind, objects=column == PROPERTIES)

    def original(index: NDArray[np.int64]) -> pa.Table:
        picked = [rows[i] for i in index]
        return pa.table({c: pa.array([_text(row.get(c)) for row in picked], pa.string()) for c in columns})

    row_N = np.array(numbers, dtype=np.int64)
    return Piece(columns, row_N, row_N + 1, tuple(malformed), cells, original)


def _parsed(line: bytes) -> Any:
    """The value of a line; None where it is none."""
    try:
        return orjson.loads(line.removeprefix(BYTE_ORDER_MARK))
    except orjson.JSONDecodeError:
        return None


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
