"""What every file format gives: rows in order with a way to read a column, and rows that are none.

Shapes: N rows of a piece.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.sessions.cells import Cells
from foretaste.sessions.sources import File


class UnreadableFileError(ValueError):
    """A file that cannot be read at all."""

    def __init__(self, path: File, found: str, wanted: str) -> None:
        """Name the file, what is there and what was wanted."""
        super().__init__(f"{path}: {found}; wanted {wanted}")
        self.path, self.found, self.wanted = path, found, wanted


@dataclass(frozen=True, slots=True)
class Malformed:
    """A row that could not be divided into cells."""

    row: int  # 0-based place in the file
    line: int  # 1-based
    text: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a file, as found."""

    columns: tuple[str, ...]
    row_N: NDArray[np.int64]
    line_N: NDArray[np.int64] | None
    malformed: tuple[Malformed, ...]
    cells: Callable[[str, pa.DataType], Cells]  # one column in the type wanted
    original: Callable[[NDArray[np.int64]], pa.Table]  # rows by their number among the N
