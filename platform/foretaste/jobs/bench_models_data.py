"""The logs that models are compared on: imported and prepared once, in a folder each below the benchmark's.

Shapes: T interactions, C classes of one intent.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from foretaste.contracts.catalogue import Catalogue, catalogue
from foretaste.contracts.events import ENGAGEMENT, Action
from foretaste.contracts.histories import ARRAYS
from foretaste.contracts.intents import LabelConfig
from foretaste.datasets import caution, shuffle_ties
from foretaste.jobs.bench_options import BenchOptions
from foretaste.jobs.imports import WHEELS, import_log
from foretaste.jobs.settings import Settings
from foretaste.ops.files import read_json, write_json
from foretaste.ops.tables import read_manifest, read_prepared, read_titles
from foretaste.sessions import prepare as stage
from foretaste.sessions.label import Labels, intent_labels, queries_of
from foretaste.sessions.spread import in_threads
from foretaste.signals.histories import pack
from foretaste.signals.interactions import runs

WORLDS: dict[str, dict[str, Any]] = {
    "world": {},
    "world-aspects": {"mechanism": "aspects"},
    "world-control": {"intents": False},
}
"""The synthetic services by name: what each changes in the settings of the world."""

QUICK_WORLD = {"num_members": 600, "days": 42}

CHOICES: dict[str, tuple[Action, ...]] = {
    "deskdrop": tuple(action for action in Action if action in ENGAGEMENT and action is not Action.THUMB_DOWN)
}
"""Logs in which anything done with a title counts as choosing it: of Deskdrop's likes alone there are a few hundred."""

MADE = "made.json"


@dataclass(frozen=True)
class Log:
    """A prepared log, read once."""

    name: str
    raw: Path
    prepared: Path
    ties_seed: int | None

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the preparation says of itself."""
        return read_manifest(self.prepared)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The titles."""
        return catalogue(read_titles(self.prepared))

    @cached_property
    def interactions(self) -> pa.Table:
        """All prepared interactions."""
        return read_prepared(self.prepared, "interactions")

    @property
    def target_actions(self) -> list[str]:
        """Actions that count as a choice."""
        return list(self.manifest["target_actions"])

    @property
    def caution(self) -> str | None:
        """What must be said beside figures on this log."""
        return caution(self.raw)

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change with any interaction, title or part of a split."""
        digest = hashlib.blake2b(self.catalogue.fingerprint.encode(), digest_size=6)
        histories, actors = pack(self.interactions, self.catalogue)
        digest.update("\n".join([*actors, *self.target_actions]).encode())
        for name in ("offsets_B1", *ARRAYS):
            digest.update(np.ascontiguousarray(getattr(histories, name)).tobytes())
        for split in ("split_time", "split_last"):
            digest.update("".join(part[:2] for part in self.interactions[split].to_pylist()).encode())
        return digest.hexdigest()

    @cached_property
    def labels(self) -> LabelConfig:
        """The intents, with what counts as choosing in this log."""
        return LabelConfig().following(self.manifest["target_actions"], self.manifest.get("engagement_by_action"))

    @cached_property
    def labels_T(self) -> Labels:
        """Labels of all interactions."""
        timeline, _ = pack(self.interactions, self.catalogue)
        return intent_labels(timeline, self.catalogue, self.labels, queries_of(self.interactions))

    def learned_T(self, split: str) -> NDArray[np.bool_]:
        """Which interactions are choices to learn from."""
        marks = self.interactions["split_time" if split == "time" else "split_last"]
        chosen = pc.is_in(self.interactions["action"], value_set=pa.array(self.target_actions))
        return np.asarray(pc.and_(pc.equal(marks, "train"), chosen).combine_chunks(), dtype=np.bool_)


def bench_folder(settings: Settings) -> Path:
    """Where the benchmark of models keeps everything."""
    return settings.tables.root / "bench" / "models"


def log(settings: Settings, options: BenchOptions, name: str, *, ties_seed: int | None = None) -> Log:
    """Import and prepare a log, or find it as it was made before; with `ties_seed` equal times in an order drawn.

    All in this process: no Ray is started. Raises ValueError where a real log needs a source and none was given.
    """
    settings = _of_log(settings, name, quick=options.quick)
    folder = bench_folder(settings) / (f"{name}-quick" if options.quick and name in WORLDS else name)
    raw = folder / "raw"
    wanted = {"world": settings.world.fingerprint()} if name in WORLDS else {"source": str(options.source)}
    if not _is_made(raw, wanted, any_source=options.source is None):
        fetch = name in WHEELS and options.source is None
        import_log(settings, "world" if name in WORLDS else name, source=options.source, fetch=fetch, out=raw)
        write_json(wanted, raw / MADE)
    suffix = "" if ties_seed is None else f"-ties-{ties_seed}"
    prepared = folder / f"prepared{suffix}"
    if ties_seed is not None and not _is_made(folder / f"raw{suffix}", wanted, any_source=options.source is None):
        shuffle_ties(raw, folder / f"raw{suffix}", seed=ties_seed)
    raw = folder / f"raw{suffix}"
    stage.prepare(
        raw, prepared, settings.prepare, now=datetime.now(UTC), collapse=runs, spread=in_threads,
        advance=lambda amount: None,
    )  # fmt: skip
    return Log(name, raw, prepared, ties_seed)


def _of_log(settings: Settings, name: str, *, quick: bool) -> Settings:
    changed: dict[str, Any] = {}
    if name in WORLDS:
        changed["world"] = settings.world.model_copy(update=WORLDS[name] | (QUICK_WORLD if quick else {}))
    if name in CHOICES:
        changed["prepare"] = settings.prepare.model_copy(update={"target_actions": CHOICES[name]})
    return settings.model_copy(update=changed)


def _is_made(raw: Path, wanted: dict[str, str], *, any_source: bool) -> bool:
    """Whether the raw folder is there and of the same origin; where no source is given any will do."""
    if not (raw / MADE).is_file():
        return False
    found = read_json(raw / MADE)
    return bool(found == wanted or (any_source and "source" in wanted and "source" in found))
