"""CSV and TSV with a header, cells quoted by `"`, an empty cell is null.

Shapes: N rows of a piece, M malformed rows.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

from foretaste.sessions.cells import Cells, from_text
from foretaste.sessions.pieces import Malformed, Piece, UnreadableFileError
from foretaste.sessions.sources import File

BLOCK_BYTES = 16 << 20


def header(path: File) -> list[str]:
    """Column names. Raises UnreadableFileError where they are not text, empty or stand twice."""
    delimiter = "," if path.suffix == ".csv" else "\t"
    try:
        with io.TextIOWrapper(path.open(), encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            names = next(csv.reader(stream, delimiter=delimiter), [])
        "".join(names).encode()
    except (UnicodeEncodeError, csv.Error) as error:
        raise UnreadableFileError(path, f"not UTF-8 text: {error}", "a header line with column names") from error
    if not names or "" in names or len(set(names)) != len(names):
        raise UnreadableFileError(path, f"the header is {names}", "a header line with column names, each once")
    return names


def pieces(path: File, *, delimiter: str, piece_rows: int) -> Iterator[Piece]:
    """Read a file block by block; blank rows are passed over, a row with another number of cells is malformed.

    Raises UnreadableFileError where the last row breaks off.
    """
    names = header(path)
    skipped: list[Skipped] = []

    # Where the file is not UTF-8 each byte is taken as a character and made a byte again: pyarrow would drop a
    # malformed row that it cannot decode.
    plain = _is_utf8(path)
    arrow_names = names if plain else [name.encode().decode("latin-1") for name in names]

    def skip(row: Any) -> str:
        raw = row.text.encode() if plain else row.text.encode("latin-1")
        text = raw.decode(errors="replace")
        skipped.append(Skipped(row.number, text, raw, row.actual_columns, row.expected_columns))
        return "skip"

    numbers = _RowNumbers(names)
    last_cell = b""
    try:
        stream = arrow_csv.open_csv(
            path.open_arrow(),
            read_options=arrow_csv.ReadOptions(
                use_threads=False, block_size=BLOCK_BYTES, encoding="utf8" if plain else "latin1"
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=skip
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types={name: pa.binary() for name in arrow_names},
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
        for batch in stream:
            table = pa.Table.from_batches([batch]).rename_columns(names)
            if not plain:
                table = pa.table([_bytes(column) for column in table.columns], names=names)
            if table.num_rows:
                last_cell = table[names[-1]][-1].as_py() or b""
            for start in range(0, table.num_rows, piece_rows):
                part = table.slice(start, piece_rows)
                yield numbers.piece(part, skipped, last=False)
    except pa.ArrowInvalid as error:
        raise UnreadableFileError(path, f"not CSV: {error}", f"rows of {len(names)} cells") from error
    wanted = f"rows of {len(names)} cells"
    if skipped and _breaks_off(path, skipped[-1]):
        raise UnreadableFileError(path, f"truncated: the last row has {skipped[-1].actual_columns} cells", wanted)
    unclosed = delimiter.encode() + b'"' + last_cell.replace(b'"', b'""')
    if _tail(path, len(unclosed)) == unclosed:
        raise UnreadableFileError(path, "truncated: the quote of the last cell is not closed", wanted)
    rest = numbers.piece(pa.table({n: pa.array([], pa.binary()) for n in names}), skipped, last=True)
    if rest.malformed:
        yield rest


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row with another number of cells than the header."""

    number: int  # 1-based, the header being 1
    text: str
    raw: bytes
    actual_columns: int
    expected_columns: int


class _RowNumbers:
    """Find row and line of every cell again, past rows that were skipped and line breaks within cells."""

    def __init__(self, names: list[str]) -> None:
        self._names = tuple(names)
        self._good = 0  # rows so far that had the right number of cells
        self._given = 0  # malformed rows already given
        self._breaks = 0  # line breaks within good rows so far

    def piece(self, table: pa.Table, skipped: list[Skipped], *, last: bool) -> Piece:
        """Number the next rows of the file. Call once more at the end for malformed rows that are left."""
        bad_M = np.array([row.number - 2 for row in skipped], dtype=np.int64)
        bad_breaks_M = np.array([row.text.count("\n") for row in skipped], dtype=np.int64)
        nth_N = np.arange(self._good, self._good + table.num_rows)
        row_N = nth_N + np.searchsorted(bad_M - np.arange(len(bad_M)), nth_N, side="right")
        breaks_N = _line_breaks(table)
        before_N = self._breaks + np.cumsum(breaks_N) - breaks_N
        bad_before = np.concatenate([[0], np.cumsum(bad_breaks_M)])
        line_N = row_N + 2 + before_N + bad_before[np.searchsorted(bad_M, row_N)]
        upto = len(skipped) if last else int(np.searchsorted(bad_M, row_N[-1] if len(row_N) else -1))
        malformed = []
        for i in range(self._given, upto):
            own = breaks_N[: int(np.searchsorted(row_N, bad_M[i]))].sum()
            line = int(bad_M[i] + 2 + bad_before[i] + self._breaks + own)
            wanted = f"{len(self._names)} cells, found {skipped[i].actual_columns}"
            malformed.append(Malformed(int(bad_M[i]), line, skipped[i].text, wanted))
        self._good += table.num_rows
        self._given = upto
        self._breaks += int(breaks_N.sum())
        return self._without_blanks(table, row_N, line_N, tuple(malformed))

    def _without_blanks(
        self, table: pa.Table, row_N: NDArray[np.int64], line_N: NDArray[np.int64], malformed: tuple[Malformed, ...]
    ) -> Piece:
        blank_N = np.ones(table.num_rows, dtype=np.bool_)
        for name in self._names:
            blank_N &= table[name].is_null().to_numpy()
        if blank_N.any():
            table, row_N, line_N = table.filter(pa.array(~blank_N)), row_N[~blank_N], line_N[~blank_N]

        def cells(column: str, kind: pa.DataType) -> Cells:
            text, bad_N = _decoded(table[column].combine_chunks())
            found = from_text(text, kind)
            return Cells(found.values, found.bad_N | bad_N)

        def original(index: NDArray[np.int64]) -> pa.Table:
            picked = table.take(pa.array(index))
            return pa.table({name: _decoded(picked[name].combine_chunks(), replace=True)[0] for name in self._names})

        return Piece(self._names, row_N, line_N, malformed, cells, original)


def _line_breaks(table: pa.Table) -> NDArray[np.int64]:
    breaks_N = np.zeros(table.num_rows, dtype=np.int64)
    for column in table.columns:
        if pc.any(pc.match_substring(column, "\n")).as_py():
            breaks_N += pc.count_substring(column, "\n").fill_null(0).to_numpy()
    return breaks_N


def _decoded(cells: pa.Array, *, replace: bool = False) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Bytes as text; cells that are not UTF-8 are null and bad, or shown with replacement characters."""
    bad_N = np.zeros(len(cells), dtype=np.bool_)
    try:
        return cells.cast(pa.string()), bad_N
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        for i, cell in enumerate(cells.to_pylist()):
            try:
                texts.append(None if cell is None else cell.decode())
            except UnicodeDecodeError:
                texts.append(cell.decode(errors="replace") if replace else None)
                bad_N[i] = True
        return pa.array(texts, pa.string()), bad_N


def _breaks_off(path: File, row: Skipped) -> bool:
    """Whether the malformed row given is the file's last and is cut short, or opens a quote and never closes it."""
    tail = _tail(path, len(row.raw) + 2)
    if not tail.rstrip(b"\r\n").endswith(row.raw.rstrip(b"\r\n")):
        return False
    unclosed = row.text.count('"') % 2 == 1
    return unclosed or (row.actual_columns < row.expected_columns and not tail.endswith((b"\n", b"\r")))


def _is_utf8(path: File) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open() as stream:
            while block := stream.read(BLOCK_BYTES):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _bytes(column: pa.ChunkedArray) -> pa.Array:
    """Cells that were read a character a byte, as the bytes that stand in the file."""
    cells = column.to_pylist()
    return pa.array([None if c is None else c.decode().encode("latin-1") for c in cells], pa.binary())


def _tail(path: File, num_bytes: int) -> bytes:
    with path.open() as stream:
        stream.seek(max(0, path.size - num_bytes))
        return stream.read()
