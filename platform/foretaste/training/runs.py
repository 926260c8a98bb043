"""The checkpoints of a run, in a folder or in an object store: only whole ones are ever read.

    PLACE/RUN/RUN-0001-5f2c9a/checkpoint_.../loop.json and shards

A run is named by what is trained, so that whoever is asked for the same finds what was done of it, on whatever
machine. Every submission writes below a name of its own, so that what another one left half-written is nobody's. What
a run wrote stands until its model is filed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.fs as pafs
from pydantic import BaseModel
from torch import Tensor

from foretaste.ops.stores import filesystem_of
from foretaste.training.checkpoints import RECORDS, Checkpoint, read_checkpoint, write_records, write_shard

_log = logging.getLogger(__name__)


class Found(NamedTuple):
    """A whole checkpoint and where it is."""

    path: str
    checkpoint: Checkpoint


class Run:
    """The checkpoints of one run at a place: a folder, or the URI of an object store (see `ops.stores`).

    Methods raise OSError where the store does not answer, ValueError for a URI that leads nowhere.
    """

    def __init__(self, place: Path | str, name: str) -> None:
        """Nothing is made or asked yet, apart from what the URI leaves to be found out."""
        if isinstance(place, Path):
            self.store, root = pafs.LocalFileSystem(), str(place.absolute())
        else:
            where, _, query = place.partition("?")
            self.store, root = filesystem_of(where, query)
        self.name = name
        self.path = f"{root.rstrip('/')}/{name}"

    def attempt(self) -> str:
        """A name below which one submission writes, in order of those that are there, and never theirs."""
        there = self.store.get_file_info(pafs.FileSelector(self.path, allow_not_found=True))
        begun = sum(one.type == pafs.FileType.Directory for one in there)
        return f"{self.name}-{begun + 1:04d}-{uuid.uuid4().hex[:6]}"

    def newest(self) -> Found | None:
        """The whole checkpoint with the most epochs, of whichever submission; those that are not whole are left."""
        found = []
        for one in self.store.get_file_info(pafs.FileSelector(self.path, recursive=True, allow_not_found=True)):
            if one.base_name == RECORDS:
                with self.store.open_input_stream(one.path) as file:
                    num_epochs = _epochs(file.read())
                found.append((num_epochs, one.path.removesuffix(f"/{RECORDS}")))
        for _, path in sorted(found, reverse=True):
            try:
                return Found(path, self.read(path))
            except (FileNotFoundError, ValueError) as error:
                _log.warning("%s: a checkpoint is not whole and is left: %s", self.name, error)
        return None

    def read(self, path: str) -> Checkpoint:
        """Read a checkpoint of this run. Raises FileNotFoundError or ValueError where it is not whole."""
        if isinstance(self.store, pafs.LocalFileSystem):
            return read_checkpoint(Path(path))
        with tempfile.TemporaryDirectory(prefix="foretaste-checkpoint-") as folder:
            here = pafs.LocalFileSystem()
            pafs.copy_files(path, folder, source_filesystem=self.store, destination_filesystem=here, use_threads=False)
            return read_checkpoint(Path(folder))

    def put(self, attempt: str, name: str, records: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Have a checkpoint of one worker there, whole; what the attempt wrote before goes."""
        folder = f"{self.path}/{attempt}"
        before = [
            one.path
            for one in self.store.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
            if one.type == pafs.FileType.Directory
        ]
        with self._written(f"{folder}/{name}") as here:
            write_shard(here, name, tensors, rank=0, of=1)
            write_records(here, name, records, tensors, of=1)
        for path in before:
            self.store.delete_dir(path)

    def remove(self) -> None:
        """Have nothing of the run there any more."""
        if self.store.get_file_info(self.path).type == pafs.FileType.Directory:
            self.store.delete_dir(self.path)

    @contextmanager
    def _written(self, path: str) -> Iterator[Path]:
        """A folder to write a checkpoint to, which is at `path` in the end; what makes it one comes last."""
        if isinstance(self.store, pafs.LocalFileSystem):
            yield Path(path)
            return
        with tempfile.TemporaryDirectory(prefix="foretaste-checkpoint-") as folder:
            yield Path(folder)
            names = sorted((file.name for file in Path(folder).iterdir()), key=lambda name: (name == RECORDS, name))
            for name in names:
                here = pafs.LocalFileSystem()
                pafs.copy_files(
                    f"{folder}/{name}", f"{path}/{name}", source_filesystem=here, destination_filesystem=self.store,
                    use_threads=False,
                )  # fmt: skip


def run_name(kind: str, *about: Any) -> str:
    """Name a run by what is trained: configurations, arrays, plain values, and records and sequences of such.

    Raises TypeError for another kind of value, of which nobody knows what it is made of.
    """
    digest = hashlib.blake2b(digest_size=6)
    for one in about:
        _feed(digest, one)
    return f"{kind}-{digest.hexdigest()}"


def _feed(digest: Any, value: Any) -> None:
    digest.update(type(value).__name__.encode())
    if isinstance(value, BaseModel):
        digest.update(value.model_dump_json().encode())
    elif isinstance(value, Tensor):
        _feed(digest, value.detach().cpu().numpy())
    elif isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(repr(value.tolist()).encode() if value.dtype.hasobject else value.tobytes())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            _feed(digest, getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            _feed(digest, str(key))
            _feed(digest, value[key])
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for one in value:
            _feed(digest, one)
    elif value is None or isinstance(value, bool | int | float | str | bytes):
        digest.update(repr(value).encode())
    else:
        raise TypeError(f"a run cannot be named by {type(value).__name__}")


def _epochs(written: bytes) -> int:
    """Epochs that records tell of; -1 where they are half-written."""
    try:
        return len(json.loads(written)["records"]["epochs"])
    except (ValueError, KeyError, TypeError):
        return -1
