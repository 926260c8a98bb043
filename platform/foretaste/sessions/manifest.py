"""What a prepared table says of itself: counts that agree, cuts, files, and what follows from the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from foretaste.contracts.events import ENGAGEMENT, PLAY_LIKE, Action
from foretaste.contracts.splits import SPLITS, TEST, TRAIN, VALIDATION, Cuts
from foretaste.sessions.config import PrepareConfig
from foretaste.sessions.sources import File

FORMAT = 3
"""Changes with what is stored; tables of another one are made from the start."""

REPEATS_FROM = 0.01
"""Share of interactions with a title chosen before, above which a log counts as one with repeats."""

Counts = dict[str, int]
Manifest = dict[str, Any]

EVENT_KINDS = ("engagement_events", "impression_events", "other_events")
_WITHIN = ("events_in_runs", "pairs", "actors_to_leave_one_out", "erased")
"""Counts that are kept for the next run only."""


def manifest(
    config: PrepareConfig,
    *,
    now: datetime,
    run: dict[str, Any],
    made_by: str,
    num_buckets: int,
    files: Sequence[File],
    titles: dict[str, Any],
    deleted: dict[str, int],
    bad_by_kind: Counts,
    read: Counts,
    buckets: dict[str, Counts],
    cut: Cuts,
    tables: dict[str, Any],
) -> Manifest:
    """Compose the manifest. `read` has events, bad and deleted of all runs, `buckets` what each bucket holds."""
    totals = read | added(*buckets.values())
    split = {part: totals[f"split:{part}"] for part in sorted(SPLITS.tolist())}
    must_agree(totals, split)
    actions = {name.partition(":")[2]: n for name, n in sorted(totals.items()) if name.startswith("action:") and n}
    counts = {name: n for name, n in totals.items() if ":" not in name and name not in _WITHIN}
    held = totals["actors_to_leave_one_out"]
    repeated = totals["interactions"] - totals["pairs"]
    left_out = {TEST: held, TRAIN: totals["interactions"] - 2 * held, VALIDATION: held}
    return {
        "format": FORMAT,
        "created_at": now.isoformat(),
        "run": run,
        "made_by": made_by,
        "num_buckets": num_buckets,
        "config": config.model_dump(mode="json"),
        "config_fingerprint": config.fingerprint(),
        "rule_fingerprint": config.rule.fingerprint(),
        "counts": counts | {"repeated_interactions": repeated, "titles": titles["rows"]},
        "read": read,
        "buckets": buckets,
        "bad_by_kind": bad_by_kind,
        "engagement_by_action": actions,
        "split_time": {part: n for part, n in split.items() if n},
        "split_last": {part: n for part, n in left_out.items() if n},
        "cuts": {name: _iso(us) for name, us in asdict(cut).items()},
        "target_actions": _targets(config, set(actions)),
        "repeats": repeated > REPEATS_FROM * totals["interactions"],
        "titles": titles["file"],
        "deleted": deleted,
        "sources": [[file.name, file.size, file.mtime_ns] for file in files],
        "tables": tables,
    }


def must_agree(totals: Counts, split: Counts) -> None:
    """Raise RuntimeError where counts of the same rows differ."""
    good = totals["events"] - totals["bad"] - totals["deleted"]
    kinds = ("duplicates", *EVENT_KINDS)
    must_equal("good events", good, " + ".join(kinds), sum(totals[kind] for kind in kinds))
    must_equal("engagement events", totals["engagement_events"], "those in interactions", totals["events_in_runs"])
    must_equal("interactions", totals["interactions"], "rows in parts", sum(split.values()))


def must_equal(what: str, one: int, other_what: str, other: int) -> None:
    """Raise RuntimeError where two counts of the same rows differ."""
    if one != other:
        raise RuntimeError(f"prepare: {what} {one:,}, but {other_what} {other:,}: rows were lost or doubled")


def stored_cuts(found: Manifest) -> Cuts:
    """The cuts of a manifest."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    cuts = found["cuts"].items()
    return Cuts(**{name: (datetime.fromisoformat(at) - epoch) // timedelta(microseconds=1) for name, at in cuts})


def added(*all_counts: Counts) -> Counts:
    """Add counts up by name."""
    total: Counts = {}
    for counts in all_counts:
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count
    return total


def _targets(config: PrepareConfig, actions: set[str]) -> list[str]:
    if config.target_actions is not None:
        return sorted(map(str, config.target_actions))
    return sorted(map(str, PLAY_LIKE if actions & PLAY_LIKE else ENGAGEMENT - {Action.THUMB_DOWN}))


def _iso(microseconds: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()
