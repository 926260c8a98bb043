"""Where raw files lie: in local folders, or in object stores by URI (see `ops.stores`)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.fs as pafs

from foretaste.ops.stores import filesystem_of

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_BUFFER = 4 << 20


@dataclass(frozen=True, slots=True)
class File:
    """One raw file, with what tells whether it is still the same."""

    name: str  # path, or URI without its query
    query: str = ""  # of the URI
    size: int = -1  # bytes
    mtime_ns: int = -1

    def __str__(self) -> str:
        """What messages call it."""
        return self.name

    @property
    def remote(self) -> bool:
        """Whether it lies in an object store."""
        return "://" in self.name

    @property
    def suffix(self) -> str:
        """Ending of the name, which says the format."""
        return Path(self.name).suffix

    @property
    def stem(self) -> str:
        """Name without folder and ending."""
        return Path(self.name).stem

    @property
    def parent(self) -> str:
        """Folder."""
        return self.name.rpartition("/")[0]

    def open(self) -> BinaryIO:
        """Open for reading, with seeking. Raises OSError."""
        if not self.remote:
            return Path(self.name).open("rb")
        filesystem, path = filesystem_of(self.name, self.query)
        return io.BufferedReader(_Raw(filesystem.open_input_file(path)), _BUFFER)

    def open_arrow(self) -> Any:
        """Open for pyarrow's own readers. Raises OSError."""
        if not self.remote:
            return self.name
        filesystem, path = filesystem_of(self.name, self.query)
        return filesystem.open_input_file(path)


def file_at(path: Path) -> File:
    """A local file, whether it is there or not."""
    if not path.is_file():
        return File(str(path))
    found = path.stat()
    return File(str(path), "", found.st_size, found.st_mtime_ns)


def child(root: str | Path, name: str) -> str:
    """Folder within a folder or a URI."""
    place, mark, query = str(root).partition("?") if is_uri(root) else (str(root), "", "")
    return f"{place.rstrip('/')}/{name}{mark}{query}"


def is_uri(root: str | Path) -> bool:
    """Whether a source is a URI rather than a path."""
    return "://" in str(root)


def files_under(root: str | Path, *, recursive: bool = True) -> list[File]:
    """List what can be read in a folder (and below), in order of name; names with a dot or in such are unfinished.

    An empty list where the folder is not there. Raises ValueError for a URI that leads nowhere.
    """
    if not is_uri(root):
        folder = Path(root)
        paths = sorted(folder.rglob("*") if recursive else folder.glob("*"))
        shown = (p for p in paths if p.suffix in SUFFIXES and not _hidden(p.relative_to(folder)))
        return [file_at(p) for p in shown if p.is_file()]
    uri = str(root)
    place, _, query = uri.partition("?")
    filesystem, path = filesystem_of(place, query)
    try:
        found = filesystem.get_file_info(pafs.FileSelector(path, recursive=recursive, allow_not_found=True))
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{place}: cannot be listed: {error}; wanted a folder of an object store") from error
    scheme = place.partition("://")[0]
    files = [f for f in found if f.type == pafs.FileType.File and Path(f.path).suffix in SUFFIXES]
    own = [f for f in files if not _hidden(Path(f.path[len(path) :].lstrip("/")))]
    return sorted(
        (File(f"{scheme}://{f.path}", query, int(f.size or 0), int(f.mtime_ns or 0)) for f in own),
        key=lambda file: file.name,
    )


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


class _Raw(io.RawIOBase):
    """A file of pyarrow as Python's readers want it."""

    def __init__(self, file: pa.NativeFile) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
