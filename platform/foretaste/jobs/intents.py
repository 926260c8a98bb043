"""`foretaste intents`: what every member is probably here for, as features for other models, and their segments."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.table import Table

from foretaste.contracts.histories import Histories
from foretaste.contracts.intents import Intent
from foretaste.contracts.segments import PUBLISHED, SEGMENTS_FILE, Segments, nearest
from foretaste.evaluation.segment_config import SegmentConfig
from foretaste.feedback.session_log import microseconds
from foretaste.feedback.tombstones import TOMBSTONES_FILE, Tombstones
from foretaste.jobs import segments as stage
from foretaste.jobs.export import Predicting, model_of, part_file
from foretaste.jobs.prepare import spread_by_ray
from foretaste.jobs.settings import Settings
from foretaste.jobs.workspace import needed
from foretaste.models.intent import IntentPrediction
from foretaste.ops.bundles import Bundle, fetch_bundle
from foretaste.ops.files import read_json, read_parquet, whole_file, whole_folder, write_json
from foretaste.ops.tables import prepared_buckets, prepared_files, read_manifest, read_prepared
from foretaste.ops.telemetry import console, progress, say
from foretaste.serving.recompute import one_thread
from foretaste.sessions.spread import Item, Spread

FORMAT = "foretaste intents 1"
MANIFEST, MEMBERS, MEMBER_SEGMENTS, PAGE = "manifest.json", "members", "segments.parquet", "segments.html"
POINTS = 4_000
"""Members on the plot."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def intents(
    settings: Settings,
    *,
    as_of: str | None = None,
    out: Path | None = None,
    segments: int | None = None,
    spread: Spread | None = None,
) -> dict[str, Any]:
    """Write what the current intent model says of every member as of an instant, with their segments.

    `as_of` is RFC 3339, by default just after all that is prepared. The folder is written whole and takes the place of
    an earlier one. Raises ValueError where the instant has no offset, nobody did anything before it, or the folder
    holds something else.
    """
    tables = settings.tables
    prepared = needed(tables.prepared, made_by="prepare")
    bundle = fetch_bundle(needed(tables.registry, made_by="train intent"), "intent")
    target = _free(out.absolute() if out is not None else tables.intents)
    config = settings.segments
    if segments is not None:
        config = SegmentConfig.model_validate(config.model_dump() | {"num": segments})
    asof_us = _asof(prepared, as_of)
    known = _ask_nobody(tables.registry, prepared, bundle)
    with contextlib.ExitStack() as stack:
        spread = spread or spread_by_ray(settings.cluster, stack)
        stack.enter_context(one_thread())
        folder = stack.enter_context(whole_folder(target))
        work = _predicting(settings, bundle, asof_us, folder / "drawn")
        counts = _members(prepared, work, spread)
        made = None
        if config.num and known.heads:
            made = _segments(settings, work, config, bundle, known, counts, spread, folder)
        if made is None:
            work.folder.replace(folder / MEMBERS)
        manifest = _manifest(prepared, bundle, known, work, counts, config if made else None)
        write_json(manifest, folder / MANIFEST)
    learned = manifest["trained_until"]
    if learned is not None and asof_us < microseconds(datetime.fromisoformat(learned)):
        say(f"intents: the model has learned from choices up to {learned}: of this past its rows know too much")
    say(f"intents: {manifest['members']:,} members as of {manifest['as_of']} in {target}")
    if made is not None:
        console.print(_table(made))
    return manifest | {"out": str(target), "stability": None if made is None else made["stability"]}


def _predicting(settings: Settings, bundle: Bundle, asof_us: int, folder: Path) -> Predicting:
    log = settings.serving.session_log
    return Predicting(
        registry=settings.tables.registry,
        prepared=settings.tables.prepared,
        model=bundle.fingerprint,
        asof_us=asof_us,
        newest=log.read_events,
        window_us=log.window_us(""),
        deleted=Tombstones(settings.tables.serving / TOMBSTONES_FILE).read(),
        folder=folder,
    )


def _members(prepared: Path, work: Predicting, spread: Spread) -> dict[str, int]:
    """Predict every bucket; members by bucket, those that have any."""
    counts: dict[str, int] = {}
    with progress("intents", total=None, unit="members") as advance:
        for answer in spread(_items(prepared, prepared_buckets(prepared)), work):
            counts |= {answer["bucket"]: answer["members"]} if answer["members"] else {}
            advance(answer["members"])
    if not counts:
        raise ValueError(f"no member did anything before {_iso(work.asof_us)}")
    return dict(sorted(counts.items()))


def _segments(
    settings: Settings,
    work: Predicting,
    config: SegmentConfig,
    bundle: Bundle,
    known: IntentPrediction,
    counts: Mapping[str, int],
    spread: Spread,
    folder: Path,
) -> dict[str, Any] | None:
    """Fit centres, assign everyone, describe and draw; returns segments.json, None where there is nothing to divide."""
    from foretaste.evaluation.segment_page import page
    from foretaste.evaluation.segments import explained, fit_centres, plane, stability

    total = sum(counts.values())
    z_BD = stage.drawn([part_file(work.folder, one) for one in counts], total=total, most=config.max_members)
    if (z_BD == z_BD[0]).all():
        say("intents: the intent model gives everyone the same embedding (flat heads, or none): no segments")
        return None
    centre_KD = fit_centres(z_BD, config)
    unnamed = Segments(
        model=bundle.fingerprint,
        as_of=_EPOCH + timedelta(microseconds=work.asof_us),
        labels=tuple(str(number) for number in range(len(centre_KD))),
        centres=tuple(map(tuple, centre_KD.tolist())),
    )
    declared = tuple(intent for intent in known.labels.intents if intent is not Intent.SEARCH)  # its rule needs words
    profiling = stage.Profiling(
        registry=work.registry,
        prepared=work.prepared,
        segments=unnamed,
        labels=known.labels.model_copy(update={"intents": declared}),
        devices=_devices(work.prepared),
        asof_us=work.asof_us,
        config=config,
        deleted=work.deleted,
        rows=work.folder,
        folder=folder / MEMBERS,
    )
    profiles = stage.added(spread(_items(work.prepared, list(counts)), profiling))
    for file in work.folder.iterdir():
        file.unlink()
    work.folder.rmdir()
    found = stage.described(profiles, {head: known.classes[head] for head in known.heads}, config)
    published = unnamed.model_copy(update={"labels": tuple(one["label"] for one in found)})
    stage.write_member_segments([part_file(folder / MEMBERS, one) for one in counts], folder / MEMBER_SEGMENTS)
    mean_D, direction_D2, variance_2 = plane(z_BD)
    members = read_parquet(folder / MEMBER_SEGMENTS)
    said = {
        PUBLISHED: published.model_dump(mode="json"),
        "as_of": _iso(work.asof_us),
        "model_version": bundle.version,
        "members": total,
        "fitted_to": len(z_BD),
        "config": config.model_dump(mode="json"),
        "variance": variance_2.tolist(),
        "stability": stability(z_BD, centre_KD, config),
        "explained": explained(z_BD, centre_KD, config),
        "segments": found,
        "truth": stage.with_truth(settings.tables.raw / "truth", members, asof=published.as_of),
    }
    write_json(said, folder / SEGMENTS_FILE)
    points = np.sort(np.random.default_rng(config.seed).permutation(len(z_BD))[:POINTS])
    with whole_file(folder / PAGE) as partial:
        drawing = page(said, (z_BD[points] - mean_D) @ direction_D2, nearest(z_BD[points], centre_KD)[0])
        partial.write_text(drawing, encoding="utf-8")
    return said


def _ask_nobody(registry: Path, prepared: Path, bundle: Bundle) -> IntentPrediction:
    """What the model says of an empty history: its heads, classes and width."""
    model = model_of(registry, prepared, bundle.fingerprint).intent
    assert model is not None
    codes, floats = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
    times = np.zeros(0, dtype=np.int64)
    nobody = Histories(np.zeros(2, dtype=np.int64), codes, codes, times, codes, floats, floats)
    return model.predict(nobody, np.zeros(1, dtype=np.int64))


def _items(prepared: Path, buckets: Sequence[str]) -> list[Item]:
    rows = {bucket: prepared_files(prepared, "acts", bucket=bucket) for bucket in buckets}
    return [
        {"bucket": bucket, "rows": sum(pq.read_metadata(file).num_rows for file in files)}
        for bucket, files in rows.items()
    ]


def _asof(prepared: Path, as_of: str | None) -> int:
    """The instant in microseconds: as asked, or just after the newest event of all."""
    if as_of is not None:
        at = datetime.fromisoformat(as_of)
        if at.tzinfo is None:
            raise ValueError(f"--as-of {as_of}: wanted a time with its offset, e.g. 2026-03-01T00:00:00Z")
        return microseconds(at.astimezone(UTC))
    newest = [
        microseconds(at)
        for bucket in prepared_buckets(prepared)
        if (at := pc.max(read_prepared(prepared, "acts", columns=["at"], bucket=bucket)["at"]).as_py()) is not None
    ]
    return max(newest, default=0) + 1


def _devices(prepared: Path) -> tuple[str, ...]:
    """Devices that events name."""
    found: set[str] = set()
    for bucket in prepared_buckets(prepared):
        found |= set(read_prepared(prepared, "acts", columns=["device"], bucket=bucket)["device"].unique().to_pylist())
    return tuple(sorted(device for device in found if device is not None))


def _free(target: Path) -> Path:
    """Check that a folder may be replaced: it is not there, is empty, or was written by this verb."""
    if target.exists():
        manifest = target / MANIFEST
        ours = manifest.is_file() and read_json(manifest).get("format") == FORMAT
        if not target.is_dir() or (any(target.iterdir()) and not ours):
            raise ValueError(f"{target} holds something that `foretaste intents` did not write; nothing was changed")
    return target


def _manifest(
    prepared: Path,
    bundle: Bundle,
    known: IntentPrediction,
    work: Predicting,
    counts: Mapping[str, int],
    config: SegmentConfig | None,
) -> dict[str, Any]:
    about = read_manifest(prepared)
    return {
        "format": FORMAT,
        "model": bundle.fingerprint,
        "model_version": bundle.version,
        "as_of": _iso(work.asof_us),
        "trained_until": bundle.manifest["about"].get("trained_until"),
        "members": sum(counts.values()),
        "read": {"newest_events": work.newest, "window_us": work.window_us},
        "width": known.z_BD.shape[1],
        "heads": {head: list(known.classes[head]) for head in known.heads},
        "parts": [{"file": f"{MEMBERS}/{part_file(Path(), one).name}", "rows": rows} for one, rows in counts.items()],
        "segments": None if config is None else config.model_dump(mode="json"),
        "prepared": {name: about.get(name) for name in ("created_at", "run", "config_fingerprint")},
    }


def _table(said: Mapping[str, Any]) -> Table:
    """Lay the segments out for a terminal."""
    halves = [said["stability"][name]["mean"] for name in ("halves", "halves_shuffled")]
    between = list(said["explained"].values())
    shown = Table(
        "segment", "members", "what stands out", "lift", "in the days after",
        title=f"segments of {said['members']:,} members by intent",
        caption="of members, and with nothing to find (columns shuffled): adjusted Rand index of halves "
        f"{halves[0]:.2f} and {halves[1]:.2f}, variance between segments {between[0]:.0%} and {between[1]:.0%}",
    )  # fmt: skip
    for one in said["segments"]:
        found = one["over_represented"][: stage.NUM_LABELS] or [None]
        for place, thing in enumerate(found):
            head = [f"{one['number']}", f"{one['members']:,}"] if place == 0 else ["", ""]
            shown.add_row(*head, *(["nothing"] if thing is None else _cells(thing)))
        shown.add_section()
    return shown


def _cells(thing: Mapping[str, Any]) -> list[str]:
    lifts = [
        "" if one is None else f"{one['lift']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
        for one in (thing, thing[stage.AFTER])
    ]
    return [f"{thing['what']} {thing['name']}", *lifts]


def _iso(us: int) -> str:
    return (_EPOCH + timedelta(microseconds=us)).isoformat()
