"""A whole world on disk, partition by partition.

    raw/
      events/part-00000.parquet ...         EVENTS, one file a partition of members
      titles.parquet                        TITLES
      truth/titles.parquet                  TRUTH_TITLES
      truth/{members,sessions,choices,satisfaction}/part-00000.parquet ...
      manifest.json                         configuration, fingerprint, counts, files

A partition depends on the configuration and its number alone, so partitions may be made anywhere, in any order.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from foretaste.contracts.events import ACTIONS
from foretaste.ops.files import whole_folder, write_json, write_parquet
from foretaste.worlds.choices import Habits, make_habits
from foretaste.worlds.config import WorldConfig
from foretaste.worlds.log import events_table
from foretaste.worlds.members import Members, make_members, truth_members
from foretaste.worlds.records import session_names, truth_choices, truth_satisfaction, truth_sessions
from foretaste.worlds.scenes import State
from foretaste.worlds.simulation import Simulation
from foretaste.worlds.slates import SlatePolicy
from foretaste.worlds.titles import Titles, make_titles, titles_table, truth_titles

EVENTS_TABLE = "events"
TRUTH = ("members", "sessions", "choices", "satisfaction")


@functools.lru_cache(maxsize=2)
def catalogue_of(config: WorldConfig) -> Titles:
    """Give the catalogue of a world, the same in every partition."""
    return make_titles(config)


PolicyOf = Callable[[Titles, Members, Habits], SlatePolicy]
"""Makes the policy that fills the slates of a partition's members."""


def partition(config: WorldConfig, index: int, policy_of: PolicyOf | None = None) -> dict[str, pa.Table]:
    """Make one partition of members: tables "events", "members", "sessions", "choices", "satisfaction".

    The slates are the logging policy's, or those of `policy_of`, which the same members then live with.
    Pure: the same configuration and index give the same tables. Raises IndexError where there is no such partition.
    """
    titles = catalogue_of(config)
    rng = np.random.default_rng([config.seed, 2, index])
    members = make_members(config, index, rng)
    state, habits = State.empty(len(members), len(titles)), make_habits(config, members, titles)
    simulation = Simulation(config, titles, members, habits, state, rng)
    if policy_of is not None:
        simulation.slates = policy_of(titles, members, habits)
    simulation.run()
    sessions = simulation.records.session_columns()
    choices = simulation.records.choice_columns(before=config.end_us)
    names = session_names(config, members, sessions, partition=index)
    events = events_table(simulation.log, config, titles, names, partition=index)
    return {
        EVENTS_TABLE: events,
        "members": truth_members(members),
        "sessions": truth_sessions(members, sessions, names.session_id),
        "choices": truth_choices(titles, choices, names.session_id),
        "satisfaction": truth_satisfaction(config, sessions, names.session_id),
    }


def write_partition(config: WorldConfig, index: int, raw: Path) -> dict[str, int]:
    """Make one partition and write its files under `raw`; gives the rows of each table and of each action."""
    tables = partition(config, index)
    for name, table in tables.items():
        folder = raw / name if name == EVENTS_TABLE else raw / "truth" / name
        write_parquet(table, folder / f"part-{index:05d}.parquet")
    actions = pc.value_counts(tables[EVENTS_TABLE]["action"]).to_pylist()
    return {name: table.num_rows for name, table in tables.items()} | {
        f"action:{row['values']}": row["counts"] for row in actions
    }


def finish(config: WorldConfig, raw: Path, parts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Write the catalogue and the manifest beside the partitions; gives the counts of the world."""
    titles = catalogue_of(config)
    write_parquet(titles_table(titles, config), raw / "titles.parquet")
    write_parquet(truth_titles(titles), raw / "truth" / "titles.parquet")
    rows: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            rows[name] = rows.get(name, 0) + count
    counts = {name: rows.get(name, 0) for name in (EVENTS_TABLE, *TRUTH[:3])}
    counts |= {"titles": len(titles), "episodes": len(titles.episodes.ids)}
    manifest: dict[str, Any] = {
        "source": "world",
        "config": config.model_dump(mode="json"),
        "fingerprint": config.fingerprint(),
        "counts": counts,
        "actions": {action: rows[f"action:{action}"] for action in ACTIONS if f"action:{action}" in rows},
        "files": [_file(path, raw) for path in sorted(raw.rglob("*.parquet"))],
    }
    write_json(manifest, raw / "manifest.json")
    return counts


def generate(config: WorldConfig, out: Path, *, advance: Callable[[float], None]) -> dict[str, int]:
    """Write a whole world to the folder `out`, whole or not at all; gives its counts.

    `advance` is told the number of events after each partition. One partition is in memory at a time.
    """
    with whole_folder(out) as raw:
        parts = []
        for index in range(config.num_partitions):
            part = write_partition(config, index, raw)
            parts.append({name: part[name] for name in sorted(part)})
            advance(part[EVENTS_TABLE])
        return finish(config, raw, parts)


def _file(path: Path, raw: Path) -> dict[str, Any]:
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return {"path": str(path.relative_to(raw)), "bytes": path.stat().st_size, "blake2b": digest}
