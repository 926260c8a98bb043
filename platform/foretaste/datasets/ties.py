"""A raw log once more, with the order of events of equal time drawn by a seed.

Preparation orders events by (time, event id), and importers number events in the order of their file. So another order
within ties is another numbering: everything after that, sessions, splits, training and test, follows it alike.

Shapes: E events of one file.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from foretaste.ops.files import read_json, read_parquet, whole_folder, write_json, write_parquet

_DIGITS = 19


def shuffle_ties(raw: Path, out: Path, *, seed: int) -> None:
    """Write a raw folder to `out` with a number drawn by `seed` before every event id, whole or not at all.

    The same files and seed give the same ids. Raises FileNotFoundError where `raw` has no events.
    """
    files = sorted((raw / "events").glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{raw / 'events'} has no events: run `foretaste import` first")
    rng = np.random.default_rng(seed)
    with whole_folder(out) as folder:
        for file in files:
            write_parquet(_renumbered(read_parquet(file), rng), folder / "events" / file.name)
        for other in sorted(raw.iterdir()):
            if other.name == "events":
                continue
            copy = shutil.copytree if other.is_dir() else shutil.copy2
            copy(other, folder / other.name)
        about = read_json(raw / "manifest.json") if (raw / "manifest.json").is_file() else {}
        write_json(about | {"ties_seed": seed}, folder / "manifest.json")


def _renumbered(events: pa.Table, rng: np.random.Generator) -> pa.Table:
    drawn_E = rng.integers(0, 2**63 - 1, size=events.num_rows)
    pairs = zip(drawn_E.tolist(), events["event_id"].to_pylist(), strict=True)
    ids = [f"{drawn:0{_DIGITS}d}-{own}" for drawn, own in pairs]
    place = events.schema.get_field_index("event_id")
    return events.set_column(place, events.schema.field(place), pa.array(ids, events.schema.field(place).type))
