"""The files of a log, wherever they lie: in a folder, in a zip (a wheel is one), or given themselves."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import polars as pl

SHOWN = 12


@dataclass(frozen=True, slots=True)
class Files:
    """The bytes of some files by name."""

    source: Path
    content: Mapping[str, bytes]

    def divided(self, name: str, by: str, columns: Sequence[str], *, encoding: str = "utf-8") -> pl.DataFrame:
        """Read lines without header whose cells are divided by a string, all as text.

        Raises ValueError naming file and line of the first that has another number of cells.
        """
        try:
            lines = self.content[name].decode(encoding).splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.source}: {name} is not {encoding} text: {error}") from error
        rows = [line.split(by) for line in lines]
        for number, row in enumerate(rows, start=1):
            if len(row) != len(columns):
                raise ValueError(f"{self.source}: {name} line {number}: {len(row)} cells, wanted {list(columns)}")
        return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")

    def headed(self, name: str, wanted: Sequence[str], *, separator: str, quoted: bool) -> pl.DataFrame:
        """Read a file with a header, all as text. Raises ValueError where it cannot be read or lacks a column."""
        quote = '"' if quoted else None
        try:
            table = pl.read_csv(self.content[name], separator=separator, quote_char=quote, infer_schema=False)
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"{self.source}: {name} cannot be read: {error}") from error
        if missing := [column for column in wanted if column not in table.columns]:
            raise ValueError(f"{self.source}: {name}: missing columns {missing}; has {table.columns}")
        return table


def find(source: Path, *forms: Sequence[str]) -> Files:
    """Read the files of the first form (a list of names) of which all are there.

    `source` is a folder, searched at its top, or a zip file or wheel, searched all through. A lone file serves
    where a form is only that file. Raises ValueError saying which files were wanted and what was found.
    """
    there = _names(source)
    for form in forms:
        if all(name in there for name in form):
            return Files(source, {name: _bytes(source, there[name]) for name in form})
    wanted = " or ".join(" and ".join(form) for form in forms)
    found = sorted(there)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    raise ValueError(f"{source}: wanted {wanted}; found {found[:SHOWN] if there else 'nothing there'}{more}")


def number(table: pl.DataFrame, column: str, kind: type[pl.DataType], *, what: str) -> pl.DataFrame:
    """Make text numbers. Raises ValueError naming the first row (0-based) that is none."""
    cast = table[column].cast(kind, strict=False)
    if cast.null_count():
        row = int(cast.is_null().arg_max() or 0)
        raise ValueError(f"{what}: column {column} row {row}: {table[column][row]!r}, wanted a number")
    return table.with_columns(cast)


def _names(source: Path) -> dict[str, str]:
    """Name of each file to where it is inside the source."""
    if source.is_dir():
        return {path.name: str(path) for path in source.iterdir() if path.is_file()}
    if not source.is_file():
        return {}
    if not zipfile.is_zipfile(source):
        return {source.name: str(source)}
    with zipfile.ZipFile(source) as archive:
        return {PurePosixPath(name).name: name for name in archive.namelist() if not name.endswith("/")}


def _bytes(source: Path, place: str) -> bytes:
    if source.is_dir() or not zipfile.is_zipfile(source):
        return Path(place).read_bytes()
    with zipfile.ZipFile(source) as archive:
        return archive.read(place)
