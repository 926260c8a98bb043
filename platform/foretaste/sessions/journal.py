"""What a run has finished, so that the next one over the same inputs goes on where it was killed; and what goes.

A prepared folder holds the tables that its manifest lists, a journal (`.journal`) while a run is under way or after
one was killed, and what killed runs left. The next run sweeps all that neither the manifest nor the journal names.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from foretaste.ops.files import PARTIAL, read_json, write_json
from foretaste.ops.tables import MANIFEST, SUPERSEDED, TABLES

JOURNAL = ".journal"
LOCK = ".lock"
OURS = (*TABLES, SUPERSEDED, "tails", "ids", "pairs", "quarantine", "titles", "titles.parquet")
"""What lies in a prepared folder; anything else in it is left alone."""

Record = dict[str, Any]


def key(*about: Any) -> str:
    """Name of a piece of work: sixteen hexadecimal digits that change with anything it depends on."""
    body = json.dumps(about, sort_keys=True, default=str).encode()
    return hashlib.blake2b(body, digest_size=8).hexdigest()


@contextlib.contextmanager
def locked(prepared: Path) -> Iterator[None]:
    """Keep other runs out of a folder; the lock of a killed run is free. Raises RuntimeError where one is running."""
    prepared.mkdir(parents=True, exist_ok=True)
    with (prepared / LOCK).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RuntimeError(f"{prepared}: another preparation is writing here; wait for it") from error
        yield


class Journal:
    """Records of finished work in a folder of the prepared tables."""

    def __init__(self, prepared: Path) -> None:
        self.prepared = prepared
        self.folder = prepared / JOURNAL

    @property
    def staging(self) -> Path:
        """Where good events stand by bucket until their sessions are made."""
        return self.folder / "events"

    def start(self, keys: Sequence[str]) -> None:
        """Keep the records and the staged events of these keys only."""
        for name in ("done", "events"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        wanted = set(keys)
        for path in [*(self.folder / "done").iterdir(), *self.staging.iterdir()]:
            if path.name.partition(".")[0].partition("-")[0] not in wanted:
                path.unlink()

    def note(self, of: str, record: Record, files: Sequence[str]) -> Record:
        """Say that work is done, and which files (below the prepared folder) it left."""
        sizes = {file: (self.prepared / file).stat().st_size for file in files}
        whole = record | {"files": sizes}
        write_json(whole, self.folder / "done" / f"{of}.json", durable=False)
        return whole

    def found(self, of: str) -> Record | None:
        """The record of finished work whose files are all there."""
        path = self.folder / "done" / f"{of}.json"
        if not path.is_file():
            return None
        try:
            record: Record = read_json(path)
        except ValueError:
            return None  # the machine went down while it was written
        for file, size in record["files"].items():
            stored = self.prepared / file
            if not stored.is_file() or stored.stat().st_size != size:
                return None
        return record

    def sweep(self, manifest: Record | None) -> int:
        """Remove files that neither the manifest nor a record names, and return how many."""
        kept = {MANIFEST, LOCK, *listed(manifest)}
        done = self.folder / "done"
        for path in done.glob("*.json") if done.is_dir() else ():
            if PARTIAL not in path.name:
                found = self.found(path.stem)
                kept |= {str(path.relative_to(self.prepared)), *(found["files"] if found else ())}
        gone = 0
        for path in sorted(self.prepared.rglob("*"), reverse=True):
            name = path.relative_to(self.prepared)
            ours = name.parts[0] in OURS or PARTIAL in name.name
            if path.is_dir() and ours:
                with contextlib.suppress(OSError):
                    path.rmdir()  # where nothing is left in it
            elif path.is_file() and ours and str(name) not in kept:
                path.unlink(missing_ok=True)
                gone += 1
        return gone

    def close(self) -> None:
        """Forget everything: the run is committed."""
        shutil.rmtree(self.folder, ignore_errors=True)


def listed(manifest: Record | None) -> list[str]:
    """Every file that a manifest names."""
    if manifest is None or "tables" not in manifest:
        return []
    parts = [part for buckets in manifest["tables"].values() for found in buckets.values() for part in found]
    return [manifest.get("titles", "titles.parquet"), *(part["file"] for part in parts)]
