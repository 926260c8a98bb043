"""Rolled decisions in an object store, or in another folder, beside those of this machine.

    TARGET/date=2026-01-02/20260102T030405-41-5f2c9a10-000000.parquet      the day in the file's name

A file appears there whole: it is written under a name that readers skip, measured, and moved. Where the store does not
take it, it stays here and is tried again. One process of a folder ships at a time. What was shipped stays here for some
days, too; after that it is read there. A target belongs to one decision log.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from foretaste.contracts.columns import DECISIONS, conform
from foretaste.feedback.forgotten import alone_in, of_deleted
from foretaste.ops.files import PARTIAL, read_json, write_json
from foretaste.ops.stores import filesystem_of

SHIPPED = ".shipped.json"
"""What a folder's log knows of its target: files with what they were like when they were shipped, and deletions."""
LOCK = ".ship-lock"
_CONCERNED = ["member_id", "session_id", "at", "features"]

_log = logging.getLogger(__name__)


class StoreError(OSError):
    """A target does not answer, or not as it should."""


class Target:
    """The decisions at a URI; every method raises StoreError where the store does not answer."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._place, _, self._query = uri.partition("?")

    def names(self) -> dict[str, str]:
        """Path of every file there, by its name without ending, in order of name."""
        store, root = self._store()
        found = _asked(lambda: store.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True)))
        paths = [one.path for one in found if one.type == pafs.FileType.File and one.path.endswith(".parquet")]
        return dict(sorted((Path(path).stem, path) for path in paths if not Path(path).name.startswith(".")))

    def names_of(self, days: list[str]) -> dict[str, str]:
        """The same of some days alone, e.g. "20260102"."""
        store, root = self._store()
        found: dict[str, str] = {}
        for day in days:
            folder = pafs.FileSelector(f"{root}/{_folder(day)}", allow_not_found=True)
            for one in _asked(partial(store.get_file_info, folder)):
                if one.path.endswith(".parquet") and not Path(one.path).name.startswith("."):
                    found[Path(one.path).stem] = one.path
        return found

    def put(self, local: Path) -> None:
        """Have a file of this machine there, whole; what was there under its name goes."""

        def write(store: pafs.FileSystem, path: str) -> None:
            here = pafs.LocalFileSystem()
            pafs.copy_files(str(local), path, source_filesystem=here, destination_filesystem=store, use_threads=False)

        self._whole(local.stem, write, size=local.stat().st_size)

    def replace(self, name: str, table: pa.Table) -> None:
        """Write a file there anew."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue()

        def write(store: pafs.FileSystem, path: str) -> None:
            with store.open_output_stream(path) as out:
                out.write(data)

        self._whole(name, write, size=data.size)

    def remove(self, name: str) -> None:
        """Have a file there no more; one that is not there is none."""
        store, root = self._store()
        path = f"{root}/{_path(name)}"
        if _asked(lambda: store.get_file_info(path)).type == pafs.FileType.File:
            _asked(lambda: store.delete_file(path))

    def read(self, path: str, *, columns: list[str] | None = None, decision_id: str | None = None) -> pa.Table:
        """Rows of a file at a path of `names`."""
        wanted = None if decision_id is None else [("decision_id", "==", decision_id)]
        store, _ = self._store()

        def read() -> pa.Table:
            return pq.read_table(path, columns=columns, filters=wanted, partitioning=None, filesystem=store)

        table = _asked(read)
        return table if columns is not None else conform(table, DECISIONS, what=path)

    def _whole(self, name: str, write: Callable[[pafs.FileSystem, str], None], *, size: int) -> None:
        store, root = self._store()
        path = f"{root}/{_path(name)}"
        folder, _, file = path.rpartition("/")
        unfinished = f"{folder}/{PARTIAL}{file}"
        if isinstance(store, pafs.LocalFileSystem):
            _asked(lambda: store.create_dir(folder, recursive=True))
        _asked(lambda: write(store, unfinished))
        found = _asked(lambda: store.get_file_info(unfinished)).size
        if found != size:
            raise StoreError(f"{self._place}: {file} has {found} bytes there, wanted {size}")
        _asked(lambda: store.move(unfinished, path))

    def _store(self) -> tuple[pafs.FileSystem, str]:
        try:
            store, root = filesystem_of(self._place, self._query)
        except ValueError as error:  # of S3 the region may be asked for
            raise StoreError(str(error)) from error
        return store, root.rstrip("/")


class Shipper:
    """Ships the rolled files of a log's folder; every method may be called from any thread."""

    def __init__(self, folder: Path, target: Target, *, keep: timedelta, clock: Callable[[], datetime]) -> None:
        self.num_failed = 0  # rounds that the target ended
        self.num_shipped = 0  # files
        self.down = False  # whether the last round did not get through
        self._folder = folder
        self._target = target
        self._keep = keep
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> tuple[int, int]:
        """Files that are not shipped, and their bytes."""
        shipped = _known(self._folder)["files"]
        sizes = [stat["size"] for name, stat in _rolled(self._folder).items() if not _same(shipped.get(name), stat)]
        return len(sizes), sum(sizes)

    def begin(self, deleted: Mapping[str, int]) -> None:
        """Ship in the background, unless it is being done."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self.ship, args=(deleted,), name="decision-log-shipper")
                self._thread.daemon = True
                self._thread.start()

    def close(self, deleted: Mapping[str, int]) -> None:
        """Wait for what is being shipped, and ship the rest unless the target is down."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
        if not self.down:
            self.ship(deleted)

    def ship(self, deleted: Mapping[str, int]) -> int:
        """Ship what is new or was changed, have there no more what is not here any more, and remove what is old here.

        Of `deleted` actors (see `forgotten`) nothing is left in what is only there. Returns how many files were
        shipped; one process at a time, another one returns 0 at once. What fails is tried again next time.
        """
        num_shipped = 0
        with alone_in(self._folder, lock=LOCK) as held:
            if not held:
                return 0
            try:
                for _ in self._round(deleted):
                    num_shipped += 1
                    self.num_shipped += 1
                self.down = False
            except Exception as error:  # nothing is lost by it, and somebody has to be told
                self.num_failed += 1
                self.down = True
                known = isinstance(error, StoreError)
                _log.error("decision log: what is rolled is not shipped and stays here: %s", error, exc_info=not known)
        return num_shipped

    def _round(self, deleted: Mapping[str, int]) -> Iterator[str]:
        known = _known(self._folder)
        files: dict[str, dict[str, Any]] = known["files"]
        for name, stat in _rolled(self._folder).items():
            if _same(files.get(name), stat):
                continue
            local = self._folder / f"{name}.parquet"
            try:
                self._target.put(local)
            except FileNotFoundError as error:
                if local.exists():
                    raise StoreError(str(error)) from error
                continue  # all its decisions were deleted meanwhile
            files[name] = stat | {"at": self._clock().isoformat()}
            self._write(known)
            yield name
        for name in sorted(files.keys() - _rolled(self._folder).keys()):  # its decisions were deleted, all of them
            self._target.remove(name)
            del files[name]
            self._write(known)
        self._remove_old(known)
        told = _digest(deleted)
        if deleted and known["forgot"] != told:
            self._forget(deleted, here=_rolled(self._folder))
            known["forgot"] = told
            self._write(known)

    def _remove_old(self, known: dict[str, Any]) -> None:
        files: dict[str, dict[str, Any]] = known["files"]
        now = self._clock()
        old = [name for name, stat in files.items() if now - datetime.fromisoformat(stat["at"]) >= self._keep]
        if not old:
            return
        with alone_in(self._folder) as held:  # nobody takes deleted decisions out of it meanwhile
            rolled = _rolled(self._folder) if held else {}
            for name in old:
                if _same(files[name], rolled.get(name, {})):
                    del files[name]
                    self._write(known)  # first: what is here and not known is shipped again, which does no harm
                    (self._folder / f"{name}.parquet").unlink()

    def _forget(self, deleted: Mapping[str, int], *, here: Mapping[str, Any]) -> None:
        """Take the decisions of deleted actors out of the files that are only there."""
        for name, path in self._target.names().items():
            if name in here:
                continue
            gone = of_deleted(self._target.read(path, columns=_CONCERNED), deleted)
            if pc.all(gone).as_py():
                self._target.remove(name)
            elif pc.any(gone).as_py():
                self._target.replace(name, self._target.read(path).filter(pc.invert(gone)))

    def _write(self, known: Mapping[str, Any]) -> None:
        write_json(known, self._folder / SHIPPED)


def find_shipped(target: Target, decision_id: str, *, days: list[str]) -> pa.Table:
    """The decision of an id, as DECISIONS, among the files of some days; an empty table where it is not."""
    for path in target.names_of(days).values():
        found = target.read(path, decision_id=decision_id)
        if found.num_rows:
            return found
    return DECISIONS.empty_table()


def _asked(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise StoreError(str(error)) from error


def _folder(day: str) -> str:
    return f"date={day[:4]}-{day[4:6]}-{day[6:8]}"


def _path(name: str) -> str:
    return f"{_folder(name)}/{name}.parquet"


def _rolled(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and time of change of every whole file, by name; a file that goes meanwhile is not among them."""
    found = {}
    for path in sorted(folder.glob("*.parquet")):
        if path.name.startswith(PARTIAL):
            continue
        try:
            about = path.stat()
        except FileNotFoundError:
            continue
        found[path.stem] = {"size": about.st_size, "mtime_ns": about.st_mtime_ns}
    return found


def _same(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    return one is not None and all(one[name] == other.get(name) for name in ("size", "mtime_ns"))


def _known(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(folder / SHIPPED)
    except FileNotFoundError:
        return {"files": {}, "forgot": _digest({})}
    return found


def _digest(deleted: Mapping[str, int]) -> str:
    return hashlib.sha256(json.dumps(sorted(deleted.items())).encode()).hexdigest()
