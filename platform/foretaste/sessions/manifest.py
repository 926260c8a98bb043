"""What a prepared table says of itself: counts that agree, cuts, and what follows from the log."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from foretaste.contracts.events import ENGAGEMENT, PLAY_LIKE, Action
from foretaste.contracts.splits import Cuts
from foretaste.sessions.config import PrepareConfig

MANIFEST = "manifest.json"

REPEATS_FROM = 0.01
"""Share of interactions with a title chosen before, above which a log counts as one with repeats."""

Counts = dict[str, int]


def manifest(
    config: PrepareConfig,
    *,
    now: datetime,
    num_titles: int,
    bad_by_kind: Counts,
    counts: Counts,
    cut: Cuts,
    splits: Counts,
) -> dict[str, Any]:
    """Compose the manifest. `counts` has events, bad and what the second pass counted; `splits` rows by part."""
    must_equal("interactions", counts["interactions"], "rows written", sum(_of(splits, "split_time").values()))
    actions = _of(counts, "action")
    return {
        "created_at": now.isoformat(),
        "config": config.model_dump(mode="json"),
        "config_fingerprint": config.fingerprint(),
        "rule_fingerprint": config.rule.fingerprint(),
        "counts": {name: count for name, count in counts.items() if ":" not in name} | {"titles": num_titles},
        "bad_by_kind": bad_by_kind,
        "engagement_by_action": actions,
        "split_time": _of(splits, "split_time"),
        "split_last": _of(splits, "split_last"),
        "tables": _listed(config.num_buckets),
        "cuts": {name: _iso(us) for name, us in asdict(cut).items()},
        "target_actions": _targets(config, set(actions)),
        "repeats": counts["repeated_interactions"] > REPEATS_FROM * counts["interactions"],
    }


def must_equal(what: str, one: int, other_what: str, other: int) -> None:
    """Raise RuntimeError where two counts of the same rows differ."""
    if one != other:
        raise RuntimeError(f"prepare: {what} {one:,}, but {other_what} {other:,}: rows were lost or doubled")


def _targets(config: PrepareConfig, actions: set[str]) -> list[str]:
    if config.target_actions is not None:
        return sorted(map(str, config.target_actions))
    return sorted(map(str, PLAY_LIKE if actions & PLAY_LIKE else ENGAGEMENT - {Action.THUMB_DOWN}))


def _of(counts: Counts, prefix: str) -> Counts:
    return {name.partition(":")[2]: count for name, count in sorted(counts.items()) if name.startswith(f"{prefix}:")}


def _iso(microseconds: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()


def _listed(num_buckets: int) -> dict[str, Any]:
    buckets = [f"bucket={number:04d}" for number in range(num_buckets)]
    return {
        table: {bucket: [{"file": f"{table}/{bucket}/part.parquet", "run": 1}] for bucket in buckets}
        for table in ("interactions", "acts", "impressions")
    }
