"""`foretaste foresee`: models of feedback that comes late, trained on outcomes, and what they expect of what is open.

predicted/20260212T000000000000Z-1a2b3c4d5e6f/      of these outcomes
  20260212T000102-9f8e7d6c5b4a/                     by this model; by several: the newest's instant, a digest of all
    bucket-00000.parquet ...                        columns.predicted_outcomes
    manifest.json
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foretaste.contracts.columns import OUTCOMES, predicted_outcomes
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs.cluster import cluster
from foretaste.jobs.outcomes import described, forget, latest
from foretaste.jobs.settings import Settings
from foretaste.models.delayed import DelayedConfig
from foretaste.models.delayed_rows import Pending
from foretaste.ops.files import parquet_files, whole_folder, write_json, write_parquet
from foretaste.ops.tables import MANIFEST
from foretaste.ops.telemetry import say
from foretaste.rewards.pending import FINAL, SIGNALS, pending_of
from foretaste.rewards.predicted import Predictor, fetch_predictor, predictions
from foretaste.training.delayed import train_delayed
from foretaste.training.loop import Epoch

FORMAT = "foretaste predicted 1"
MOST_EARLIER = 4
"""Outcomes as of earlier instants that say what was known of a decision when it was younger."""


def foresee(
    settings: Settings, *, feedback: Sequence[str], now: datetime, outcomes: str | None = None
) -> dict[str, Any]:
    """Train a model of each feedback on the newest outcomes, or those named, and predict all of their rows.

    Outcomes as of earlier instants and of the same settings are landmarks; without one nothing is known of decisions
    when they were younger, and predictions hang on the context and on time alone. All rows are held in memory.
    Raises FileNotFoundError without outcomes, ValueError for feedback that has no instant or is named twice.
    """
    if unknown := [name for name in feedback if name not in FINAL]:
        raise ValueError(f"--feedback {unknown[0]}: wanted one of {', '.join(FINAL)}")
    if not feedback or len(set(feedback)) < len(feedback):
        raise ValueError(f"--feedback {','.join(feedback)}: wanted each once, and one at least")
    tables = settings.tables
    forget(tables.root, Tombstones(tables.serving / TOMBSTONES_FILE).read())
    source = latest(tables.outcomes, outcomes)
    horizon = float(described(source)["config"]["window_hours"]) / 24.0
    buckets = [_shown(file, _earlier(tables.outcomes, source)) for file in parquet_files(source)]
    codes = {name: code for code, name in enumerate(_titles(buckets), start=1)}
    told: list[pa.Table | None] = [None] * len(buckets)
    versions = {}
    for what in feedback:
        parts = [pending_of(bucket, what, codes=codes) for bucket in buckets]
        with cluster(settings.cluster) if settings.delayed_training.executor == "ray" else contextlib.nullcontext():
            result = train_delayed(
                parts,
                tables.registry,
                what=what,
                signals=SIGNALS,
                model=scaled(settings.delayed, horizon),
                training=settings.delayed_training,
                storage=tables.runs,
                runs=settings.runs_url,
                tracking=settings.tracking,
                now=now,
                on_progress=_progress(what),
            )
        predictor = fetch_predictor(tables.registry, what, result.bundle.version)
        versions[what] = predictor.version
        for number, (bucket, part) in enumerate(zip(buckets, parts, strict=True)):
            found = _predicted(predictor, bucket[-1], part)
            before = told[number]
            column = f"predicted_{what}"
            told[number] = found if before is None else before.append_column(column, found[column])
    version = _version(versions)
    target = tables.predicted / source.name / version
    schema = predicted_outcomes(feedback)
    with whole_folder(target) as folder:
        for file, table in zip(parquet_files(source), told, strict=True):
            assert table is not None
            stamped = table.set_column(3, schema.field(3), pa.array([version] * table.num_rows, pa.string()))
            write_parquet(stamped.cast(schema), folder / file.name)
        rows = sum(bucket[-1].num_rows for bucket in buckets)
        manifest = {"format": FORMAT, "outcomes": source.name, "models": versions, "rows": rows}
        write_json(manifest, folder / MANIFEST)
    say(f"foresee: {', '.join(feedback)} of {rows:,} outcomes as model {version} in {target}")
    return manifest | {"version": version, "out": str(target)}


def scaled(config: DelayedConfig, horizon_days: float) -> DelayedConfig:
    """The same for a horizon of other length: all ages stretch alike."""
    ratio = horizon_days / config.horizon_days
    ages = {name: getattr(config, name) * ratio for name in ("horizon_days", "wait_days", "elapsed_days")}
    edges = tuple(edge * ratio for edge in config.edges_days)
    return DelayedConfig.model_validate(config.model_dump() | ages | {"edges_days": edges})


def _earlier(folder: Path, source: Path) -> list[Path]:
    """Outcomes of the same settings as of instants before, the last few."""
    settings = source.name.rpartition("-")[2]
    there = sorted(path.parent for path in folder.glob(f"*-{settings}/{MANIFEST}") if path.parent.name < source.name)
    return there[-MOST_EARLIER:]


def _shown(file: Path, earlier: Sequence[Path]) -> list[pa.Table]:
    """A bucket of outcomes as of rising instants, the newest last, without what was not shown.

    Buckets of another number of parts hold other members; what is not found there has no landmark.
    """
    paths = [*(one / file.name for one in earlier), file]
    tables = [pq.read_table(path, partitioning=None) for path in paths if path.is_file()]
    tables = [OUTCOMES.empty_table()] * (1 + len(earlier) - len(tables)) + tables
    return [table.filter(pc.fill_null(table["shown"], True)) for table in tables]


def _titles(buckets: Sequence[Sequence[pa.Table]]) -> list[str]:
    found = {name for bucket in buckets for name in pc.unique(bucket[-1]["title_id"]).to_pylist()}
    return sorted(found)


def _predicted(predictor: Predictor, outcomes: pa.Table, pending: Pending) -> pa.Table:
    ids = {f"{name}s": outcomes[name].to_pylist() for name in ("decision_id", "title_id")}
    as_of = outcomes["as_of"][0].as_py() if outcomes.num_rows else datetime.min
    return predictions(predictor, pending, as_of=as_of, **ids)


def _version(versions: dict[str, str]) -> str:
    if len(versions) == 1:
        return next(iter(versions.values()))
    text = ",".join(f"{what}={version}" for what, version in sorted(versions.items()))
    instant = max(version.partition("-")[0] for version in versions.values())
    return f"{instant}-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"


def _progress(what: str) -> Callable[[Epoch], None]:
    def show(epoch: Epoch) -> None:
        say(f"foresee {what}: epoch {epoch.number} of {epoch.of}, loss {epoch.loss:.4f}")

    return show
