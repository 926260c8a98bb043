"""Files of events, titles, decisions or feedback, by suffix, into the types of their contract.

Shapes: N rows of a piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foretaste.sessions import read_csv, read_json_lines
from foretaste.sessions.cells import Cells, from_arrow
from foretaste.sessions.pieces import Malformed, Piece, UnreadableFileError
from foretaste.sessions.sources import SUFFIXES, File, file_at

__all__ = ["SUFFIXES", "Read", "UnreadableFileError", "columns_of", "pieces", "read", "read_table"]

PIECE_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Read:
    """Rows of a file as their contract wants them, with everything needed to say what was there instead."""

    file: str
    schema: pa.Schema
    table: pa.Table  # N rows of `schema`; null where the column is missing or the cell is null or bad
    row_N: NDArray[np.int64]  # 0-based place in the file
    line_N: NDArray[np.int64] | None  # 1-based line, of text files
    bad_N: Mapping[str, NDArray[np.bool_]]  # by column, where a cell could not be read as its type
    malformed: tuple[Malformed, ...]  # rows that could not be divided into cells; not among the N
    missing: tuple[str, ...]  # columns that must be there and are not
    ignored: tuple[str, ...]  # columns that the contract does not have
    original: Callable[[NDArray[np.int64]], pa.Table]  # rows as they were found, by their number among the N

    @property
    def num_rows(self) -> int:
        """Rows of the file that this stands for, malformed ones too."""
        return len(self.row_N) + len(self.malformed)

    def found(self, index: int, column: str) -> str:
        """The cell as it stands in the file."""
        if column in self.missing:
            return "no such column"
        row = self.original(np.array([index]))
        value = row[column][0].as_py() if column in row.column_names else None
        return "null" if value is None else str(value)


def read(path: Path | File, schema: pa.Schema) -> Read:
    """Read a whole file. Raises UnreadableFileError naming the file, what was wanted and what is there."""
    file = _file(path)
    return _joined(list(pieces(file, schema)), file, schema)


def pieces(
    path: Path | File, schema: pa.Schema, *, row_groups: Sequence[int] | None = None, piece_rows: int = PIECE_ROWS
) -> Iterator[Read]:
    """Read a file piece by piece, of a Parquet file only the row groups asked for; memory holds one piece.

    Raises UnreadableFileError for an unknown suffix and a missing, empty, truncated or damaged file.
    """
    file = _file(path)
    for piece in _found(file, schema, row_groups, piece_rows):
        yield _typed(piece, str(file), schema)


def read_table(table: pa.Table, schema: pa.Schema, *, file: str) -> Read:
    """Take a table in memory as if it had been read from a Parquet file."""
    return _typed(_arrow_piece(table, first_row=0), file, schema)


def columns_of(path: Path | File) -> list[str]:
    """Column names of a file. Raises UnreadableFileError as `read` does."""
    path = _file(path)
    suffix = _checked(path, wanted="a table")
    if suffix == ".parquet":
        return list(_parquet(path, wanted="a table").schema_arrow.names)
    return (read_csv.header(path) if suffix in (".csv", ".tsv") else read_json_lines.keys(path)) or []


def _file(path: Path | File) -> File:
    return path if isinstance(path, File) else file_at(path)


def _found(path: File, schema: pa.Schema, row_groups: Sequence[int] | None, piece_rows: int) -> Iterator[Piece]:
    wanted = f"a file with columns {schema.names}"
    suffix = _checked(path, wanted=wanted)
    if suffix in (".csv", ".tsv"):
        yield from read_csv.pieces(path, delimiter="," if suffix == ".csv" else "\t", piece_rows=piece_rows)
    elif suffix != ".parquet":
        yield from read_json_lines.pieces(path, schema, piece_rows=piece_rows)
    else:
        yield from _parquet_pieces(path, wanted, row_groups, piece_rows)


def _checked(path: File, *, wanted: str) -> str:
    if path.suffix not in SUFFIXES:
        raise UnreadableFileError(path, f"suffix {path.suffix!r} is not known", f"one of {', '.join(SUFFIXES)}")
    if path.size < 0:
        found = "a folder" if Path(path.name).is_dir() else "there is no such file"
        raise UnreadableFileError(path, found, wanted)
    if path.size == 0:
        raise UnreadableFileError(path, "the file is empty (0 bytes)", wanted)
    return path.suffix


def _parquet(path: File, *, wanted: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path.open_arrow(), page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableFileError(path, f"not Parquet, truncated or damaged: {error}", wanted) from error


def _parquet_pieces(path: File, wanted: str, row_groups: Sequence[int] | None, piece_rows: int) -> Iterator[Piece]:
    file = _parquet(path, wanted=wanted)
    groups = list(range(file.num_row_groups)) if row_groups is None else list(row_groups)
    first = sum(file.metadata.row_group(g).num_rows for g in range(groups[0])) if groups else 0
    try:
        for batch in file.iter_batches(piece_rows, row_groups=groups):
            yield _arrow_piece(pa.Table.from_batches([batch]), first_row=first)
            first += len(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableFileError(path, f"damaged from row {first} on: {error}", wanted) from error


def _arrow_piece(table: pa.Table, *, first_row: int) -> Piece:
    def cells(column: str, kind: pa.DataType) -> Cells:
        chunks = table[column].combine_chunks()
        return from_arrow(chunks if isinstance(chunks, pa.Array) else pa.concat_arrays(chunks.chunks), kind)

    row_N = np.arange(first_row, first_row + table.num_rows)
    return Piece(tuple(table.column_names), row_N, None, (), cells, lambda index: table.take(pa.array(index)))


def _typed(piece: Piece, file: str, schema: pa.Schema) -> Read:
    columns, bad_N = [], {}
    for field in schema:
        if field.name in piece.columns:
            cells = piece.cells(field.name, field.type)
        else:
            cells = from_arrow(pa.nulls(len(piece.row_N)), field.type)
        columns.append(cells.values)
        bad_N[field.name] = cells.bad_N
    present = set(piece.columns)
    # An absent list and an empty one mean the same, so list columns may be left out.
    needed = [f.name for f in schema if not f.nullable and not pa.types.is_list(f.type)]
    return Read(
        file=file,
        schema=schema,
        table=pa.Table.from_arrays(columns, names=schema.names),
        row_N=piece.row_N,
        line_N=piece.line_N,
        bad_N=bad_N,
        malformed=piece.malformed,
        missing=tuple(name for name in needed if name not in present),
        ignored=tuple(name for name in piece.columns if name not in schema.names),
        original=piece.original,
    )


def _joined(parts: list[Read], path: File, schema: pa.Schema) -> Read:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        names = columns_of(path)
        return _typed(_arrow_piece(_kinds(names, schema).empty_table(), first_row=0), str(path), schema)
    ends = np.cumsum([part.table.num_rows for part in parts])
    lines = [part.line_N for part in parts if part.line_N is not None]

    def original(index: NDArray[np.int64]) -> pa.Table:
        which = np.searchsorted(ends, index, side="right")
        picked = [parts[w].original(index[which == w] - (ends[w - 1] if w else 0)) for w in np.unique(which)]
        return pa.concat_tables(picked, promote_options="permissive")

    return Read(
        file=parts[0].file,
        schema=schema,
        table=pa.concat_tables([part.table for part in parts]),
        row_N=np.concatenate([part.row_N for part in parts]),
        line_N=np.concatenate(lines) if len(lines) == len(parts) else None,
        bad_N={name: np.concatenate([part.bad_N[name] for part in parts]) for name in schema.names},
        malformed=tuple(m for part in parts for m in part.malformed),
        missing=tuple(n for n in parts[0].missing if all(n in part.missing for part in parts)),
        ignored=tuple(dict.fromkeys(n for part in parts for n in part.ignored)),
        original=original,
    )


def _kinds(names: Sequence[str], schema: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(n, schema.field(n).type if n in schema.names else pa.string()) for n in names])
