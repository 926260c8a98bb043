"""`foretaste rewards`: what a reward program makes of all outcomes, a new version beside the old.

rewards/completion/v0001/
  program.json                                      what was declared; a version is one program for good
  20260212T000000000000Z-1a2b3c4d5e6f/              of these outcomes; with predictions: .../+MODEL_VERSION
    bucket-00000.parquet ...                        REWARDS
    manifest.json
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs.outcomes import forget, latest
from foretaste.jobs.prepare import spread_by_ray
from foretaste.jobs.settings import Settings
from foretaste.ops.files import parquet_files, read_json, whole_folder, write_json, write_parquet
from foretaste.ops.tables import MANIFEST
from foretaste.ops.telemetry import console, progress, say
from foretaste.rewards.fields import PREDICTED
from foretaste.rewards.library import chosen, read_programs
from foretaste.rewards.programs import FIELDS, Program, State, rewards
from foretaste.sessions.spread import Item, Spread

FORMAT = "foretaste rewards 1"
DECLARED = "program.json"


def compute(
    settings: Settings,
    *,
    program: str | None = None,
    programs: Path | None = None,
    outcomes: str | None = None,
    predicted: str | None = None,
    spread: Spread | None = None,
) -> dict[str, Any]:
    """Compute a program over the newest outcomes, or those named; without a program list those that there are.

    `predicted` is the version of the model whose predictions stand beside these outcomes. Raises ValueError for a
    program that is wrong or not there, or whose version was another program before; FileNotFoundError without outcomes.
    """
    path = programs or settings.rewards.programs
    library = read_programs(path)
    if program is None:
        return _listed(library, path)
    one = chosen(library, program, what=str(path))
    tables = settings.tables
    forget(tables.root, Tombstones(tables.serving / TOMBSTONES_FILE).read())
    source = latest(tables.outcomes, outcomes)
    told = None if predicted is None else _predictions(tables.predicted, source.name, predicted)
    version = tables.rewards / one.name / f"v{one.version:04d}"
    _declare(one, version)
    target = version / (source.name if predicted is None else f"{source.name}+{predicted}")
    total: Counter[str] = Counter()
    sums = np.zeros(2)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(whole_folder(target))
        items = [_item(file, told) for file in parquet_files(source)]
        with progress("rewards", total=sum(item["rows"] for item in items), unit="outcomes") as advance:
            for found in (spread or spread_by_ray(settings.cluster, stack))(items, Rewarding(one, folder)):
                total.update(found["states"])
                sums += found["sums"]
                advance(sum(found["states"].values()))
        num_known = total[State.FINAL] + total[State.PREDICTED]
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "program": one.model_dump(mode="json"),
            "program_fingerprint": one.identity,
            "outcomes": source.name,
            "model_version": predicted,
            "states": {state.value: total[state] for state in State if total[state]},
            "sum": float(sums[0]),
            "mean": float(sums[0] / num_known) if num_known else None,
        }
        write_json(manifest, folder / MANIFEST)
    mean = "nothing is known yet" if manifest["mean"] is None else f"mean {manifest['mean']:.4f}"
    states = ", ".join(f"{num:,} {state}" for state, num in manifest["states"].items())
    say(f"rewards: {one.name} v{one.version} ({one.identity}): {states}; {mean}; in {target}")
    return manifest | {"out": str(target)}


@dataclass(frozen=True, slots=True)
class Rewarding:
    """The work on one bucket: a file of REWARDS; answers with counts by state and sums."""

    program: Program
    folder: Path

    def __call__(self, item: Item) -> Item:
        """Compute one bucket."""
        file = Path(item["file"])
        told = None if item["predicted"] is None else pq.read_table(item["predicted"], partitioning=None)
        found = rewards(self.program, pq.read_table(file, partitioning=None), told)
        write_parquet(found, self.folder / file.name)
        states = pl.Series(pl.from_arrow(found["reward_state"].combine_chunks())).value_counts()
        known = found["reward"].drop_null().to_numpy()
        return {"states": dict(states.iter_rows()), "sums": [float(known.sum()), float((known**2).sum())]}


def read_rewards(folder: Path) -> pa.Table:
    """Read the REWARDS of a folder that `compute` wrote."""
    return pa.concat_tables([pq.read_table(file, partitioning=None) for file in parquet_files(folder)])


def _item(file: Path, told: Path | None) -> Item:
    beside = None if told is None else told / file.name
    there = beside is not None and beside.is_file()
    return {"file": str(file), "predicted": str(beside) if there else None, "rows": pq.read_metadata(file).num_rows}


def _predictions(folder: Path, outcomes: str, version: str) -> Path:
    found = folder / outcomes / version
    if not (found / MANIFEST).is_file():
        there = sorted(path.parent.name for path in (folder / outcomes).glob(f"*/{MANIFEST}"))
        raise FileNotFoundError(
            f"{folder / outcomes}: wanted predicted feedback of model {version}, found {', '.join(there) or 'none'}"
        )
    return found


def _declare(program: Program, folder: Path) -> None:
    path = folder / DECLARED
    if path.is_file():
        before = read_json(path)["program_fingerprint"]
        if before != program.identity:
            raise ValueError(
                f"program {program.name}: version {program.version} was another one before ({before}, now "
                f"{program.identity}): give it a new version"
            )
        return
    write_json(program.model_dump(mode="json") | {"program_fingerprint": program.identity}, path)


def _listed(library: dict[str, Program], path: Path) -> dict[str, Any]:
    table = Table("program", "version", "fingerprint", "predicted", "about")
    for one in library.values():
        needs = sorted(name for name in one.compiled.fields if name.startswith(PREDICTED))
        table.add_row(one.name, str(one.version), one.identity, ", ".join(needs), one.about)
    fields = Table("field", "what it is")
    for name, what in FIELDS.items():
        fields.add_row(name, what)
    console.print(table, fields)
    told = [{"name": one.name, "version": one.version, "fingerprint": one.identity} for one in library.values()]
    return {"programs": told, "file": str(path), "fields": dict(FIELDS)}
