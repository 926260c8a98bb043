"""Files that are whole or absent: everything is written under a temporary name and renamed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PARTIAL = ".partial-"
"""Names that begin so are unfinished; readers skip them (as Parquet readers skip names with a dot)."""


_HELD = ".held"
"""In a scratch folder: locked by the process whose it is."""


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success make it durable and rename it, on failure remove it.

    What is not `durable` outlives the program but not the machine.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f"{PARTIAL}{uuid.uuid4().hex}-{path.name}"
    try:
        yield partial
        if durable:
            _sync(partial)
        partial.replace(path)
        if durable:
            _sync(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; on success it takes the place of `path`, on failure it goes.

    Where `path` exists, it is set aside by one rename, so that between the two renames a reader finds
    nothing rather than a mixture.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f"{PARTIAL}{uuid.uuid4().hex}-{path.name}"
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            old = path.parent / f"{PARTIAL}{uuid.uuid4().hex}-old-{path.name}"
            path.replace(old)
            partial.replace(path)
            shutil.rmtree(old)
        else:
            partial.replace(path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextlib.contextmanager
def scratch_folder(root: Path, name: str) -> Iterator[Path]:
    """Give a folder under `root` that is there while the block runs; what killed processes left of that name goes.

    A process holds a lock on its own as long as it lives, so that nobody takes another's for left.
    """
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _locked(root / f"{PARTIAL}{name}.lock", wait=True):
            for left in root.glob(f"{PARTIAL}{name}-*"):
                # one that goes just now is gone
                with contextlib.suppress(FileNotFoundError), _locked(left / _HELD, wait=False) as abandoned:
                    if abandoned:
                        shutil.rmtree(left, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(prefix=f"{PARTIAL}{name}-", dir=root))
            stack.enter_context(_locked(folder / _HELD, wait=True))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock that goes with the process; whether it is held, where nobody waits for it."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table as one whole Parquet file (zstd)."""
    with whole_file(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_parquet(path: Path, *, columns: list[str] | None = None) -> pa.Table:
    """Read one file, or all `*.parquet` files under a folder in order of their path; unfinished ones are skipped.

    Raises FileNotFoundError when there is none.
    """
    files = parquet_files(path)
    return pa.concat_tables([pq.read_table(file, columns=columns, partitioning=None) for file in files])


def parquet_files(path: Path) -> list[Path]:
    """List the finished Parquet files at or under `path`, sorted. Raises FileNotFoundError when there is none."""
    if path.is_file():
        return [path]
    files = sorted(f for f in path.rglob("*.parquet") if PARTIAL not in str(f.relative_to(path)))
    if not files:
        raise FileNotFoundError(f"no Parquet files at {path}")
    return files


def write_json(value: Any, path: Path, *, durable: bool = True) -> None:
    """Write a value as one whole, indented JSON file."""
    with whole_file(path, durable=durable) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())
