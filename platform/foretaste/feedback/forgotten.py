"""Decisions of deleted members: which they are, and how they go.

A deletion is an instant up to which everything of an actor goes (see `tombstones`). Decisions of before are among it,
and so are those that were made while it went on and still saw something of before.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foretaste.contracts.events import GUEST
from foretaste.ops.files import PARTIAL, write_parquet

OLDEST = ("oldest_event_at", "oldest_sequence")
"""What decisions say of the oldest that they saw, in `features`: its time, and its sequence, which is a time too."""
MEMBERS_VERSION = "members_asof_ms"
DELETING_US = 120_000_000
"""How long a deletion may take until nothing of before it is seen."""

_LOCK = ".lock"


def before_deletion(decision: Mapping[str, Any], deleted: Mapping[str, int]) -> bool:
    """Say whether a decision is of what a member did before they were deleted, of which nothing may be left.

    `decision` has actor_id, at and features, `deleted` the instant by actor; both in microseconds. One that was made
    while a deletion went on is among them where it still saw something of before. A later one is not: whatever it
    saw of before is a fault.
    """
    gone_at = deleted.get(decision["actor_id"])
    if gone_at is None or decision["at"] > gone_at + DELETING_US:
        return False
    known = {one["name"]: one["value"] for one in decision["features"]}
    seen = [int(known[name]) for name in OLDEST if name in known]
    version_ms = int(known.get(MEMBERS_VERSION, -1))
    seen += [version_ms * 1000] if version_ms >= 0 else []
    return bool(decision["at"] <= gone_at or any(one <= gone_at for one in seen))


def actors_of(decisions: pa.Table) -> pa.ChunkedArray:
    """Actor of each of some DECISIONS rows; see contracts.events.actor_id."""
    guests = pc.binary_join_element_wise(GUEST, decisions["session_id"], "")
    return pc.coalesce(decisions["member_id"], guests)


def of_deleted(decisions: pa.Table, deleted: Mapping[str, int]) -> pa.Array:
    """Say of each of some DECISIONS rows (member_id, session_id, at and features are read) whether it is to go."""
    actors = actors_of(decisions)
    concerned = pc.is_in(actors, value_set=pa.array(list(deleted), type=pa.string())).combine_chunks()
    if not pc.any(concerned).as_py():
        return concerned
    at = decisions["at"].cast(pa.int64())
    rows = pa.table({"actor_id": actors, "at": at, "features": decisions["features"]}).filter(concerned).to_pylist()
    gone = iter([before_deletion(row, deleted) for row in rows])
    return pa.array([is_so and next(gone) for is_so in concerned.to_pylist()], type=pa.bool_())


def forget_decisions(folder: Path, deleted: Mapping[str, int]) -> int:
    """Rewrite the Parquet files of a decision log without the decisions of deleted actors; returns how many went.

    One process at a time, another one returns 0 at once.
    """
    removed = 0
    with alone_in(folder) as held:
        for path in sorted(folder.glob("*.parquet")) if held and deleted else []:
            if not path.name.startswith(PARTIAL):
                removed += _forget(path, deleted)
    return removed


def _forget(path: Path, deleted: Mapping[str, int]) -> int:
    about = pq.read_table(path, columns=["member_id", "session_id", "at", "features"], partitioning=None)
    gone = of_deleted(about, deleted)
    removed = int(pc.sum(gone).as_py() or 0)
    if removed == len(gone):
        path.unlink()
    elif removed:
        write_parquet(pq.read_table(path, partitioning=None).filter(pc.invert(gone)), path)
    return removed


@contextmanager
def alone_in(folder: Path, *, lock: str = _LOCK) -> Iterator[bool]:
    """Whether this process may rewrite what lies in a folder; one at a time may, and nobody waits."""
    descriptor = os.open(folder / lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
