"""A decision as it is logged: enough to make the answer again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from foretaste.contracts.columns import AT, DECISIONS
from foretaste.contracts.wire import RecommendRequest
from foretaste.policies.slate import Slate, SlatePolicy
from foretaste.serving.models import Models
from foretaste.serving.slow import Views
from foretaste.serving.stages import Scored, Seen
from foretaste.serving.watch import Lap

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def record(
    decision_id: str,
    request: RecommendRequest,
    seen: Seen,
    views: Views,
    scored: Scored,
    slate: Slate,
    *,
    policy: SlatePolicy,
    seed: int,
    models: Models,
    laps: Sequence[Lap],
) -> dict[str, Any]:
    """Make the DECISIONS row of an answer; times in microseconds."""
    ids = [models.catalogue.ids[code - 1] for code in scored.codes_C.tolist()]
    scores = scored.scores_C.tolist()
    return {
        "decision_id": decision_id,
        "member_id": request.member_id,
        "session_id": request.session_id,
        "surface": request.surface,
        "at": seen.asof_us,
        "request": request.model_dump_json(),
        "candidates": ids,
        "candidate_scores": scores,
        "items": [
            {
                "title_id": ids[index],
                "score": scores[index],
                "position": position,
                "propensity": propensity,
                "source": scored.source,
                "explored": explored,
            }
            for position, (index, propensity, explored) in enumerate(places(slate))
        ],
        "slate_propensity": slate.slate_propensity,
        "policy": policy.name,
        "policy_version": policy.version,
        "policy_params": json.dumps(policy.params),
        "explored": slate.explored,
        "seed": seed,
        "intent_model": models.intent_fingerprint,
        "ranker_model": models.ranker_fingerprint,
        "features": [{"name": name, "value": value} for name, value in versions(views, scored).items()],
        "served": None,
        "sequence_mark": seen.mark,
        "newest_event_at": seen.rows[-1]["at"] if seen.rows else None,
        "num_events_visible": len(seen.rows),
        "timings": [{"stage": lap.stage, "ms": lap.ms} for lap in laps],
        "fallback": None if scored.fallback is None else scored.fallback.value,
        "experiment_arm": None,
    }


def places(slate: Slate) -> list[tuple[int, float, bool]]:
    """Index into the pool, propensity and whether by dice, of each place."""
    return list(zip(slate.order_K.tolist(), slate.propensity_K.tolist(), slate.explored_K.tolist(), strict=True))


def versions(views: Views, scored: Scored) -> dict[str, str]:
    """Versions of the slow views that were read: one for all candidates, or a JSON list where they differ."""
    asof_C = views.titles.asof_ms[scored.codes_C]
    alike = len(np.unique(asof_C)) <= 1
    titles = str(int(asof_C[0]) if len(asof_C) else -1) if alike else json.dumps(asof_C.tolist())
    return {"members_asof_ms": str(int(views.members.asof_ms_B[0])), "titles_asof_ms": titles}


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """A logged decision for people: times as RFC 3339, JSON columns as objects."""
    result = dict(row)
    for field in DECISIONS:
        if field.type == AT and row[field.name] is not None:
            at = _EPOCH + timedelta(microseconds=row[field.name])
            result[field.name] = at.isoformat().replace("+00:00", "Z")
    return result | {"request": json.loads(row["request"]), "policy_params": json.loads(row["policy_params"])}
