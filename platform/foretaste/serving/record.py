"""A decision as it is logged: enough to make the answer again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from foretaste.contracts.columns import AT, DECISIONS
from foretaste.contracts.decisions import Level
from foretaste.feedback.forgotten import MEMBERS_VERSION, OLDEST
from foretaste.feedback.session_log import SessionLogConfig
from foretaste.policies.slate import Price, Slate
from foretaste.serving.budget import FEATURES, INTENT, RANKER, SESSION_KNN, SESSION_LOG
from foretaste.serving.exploring import Acting
from foretaste.serving.models import Models
from foretaste.serving.shaping import Asked
from foretaste.serving.slow import MEMBERS, Views
from foretaste.serving.stages import Scored, Seen
from foretaste.serving.tenancy import request_outside, row_outside
from foretaste.serving.watch import Lap
from foretaste.signals.declared import SIGNALS_VERSION
from foretaste.signals.served import encode, of_answer, sampled

SIGNALS = "signals"
FAILED, ANSWERED = "failed", "answered"
NEIGHBOURS = "session_knn"
"""Fingerprint of the nearest sessions, where the scores are theirs."""
INDEX = "title_index"
"""Name of the index that found the pool, where the catalogue is too large to score each title."""
PRICE, INSTEAD_OF = "exploration_price", "policy_asked"
"""What the dice are expected to give up, and of what worth; the policy that was asked for and could not act."""
CATALOGUE, RULE, WINDOW = "catalogue", "session_rule", "session_window"
TITLES_VERSION = "titles_asof_ms"
GENERATION, TITLES_GENERATION = "views_generation", "titles_generation"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def record(
    decision_id: str,
    asked: Asked,
    seen: Seen,
    views: Views,
    scored: Scored,
    slate: Slate,
    *,
    acting: Acting,
    seed: int,
    models: Models,
    laps: Sequence[Lap],
    reading: Mapping[str, str],
    audit_share: float,
    release: str | None = None,
    arm: str | None = None,
) -> dict[str, Any]:
    """Make the DECISIONS row of an answer by the models of a `release`, in an `arm`; times in microseconds.

    `reading` is what of the configuration its features depend on, by name; of a share of `audit_share` of the
    decisions every value that was used is in the row too.
    """
    request = asked.request
    ids = [models.catalogue.ids[code - 1] for code in scored.codes_C.tolist()]
    scores = scored.scores_C.tolist()
    known = versions(views, scored) | failed(seen, views) | answered(seen, views, scored) | oldest(seen) | dict(reading)
    if scored.source is Level.SESSION_KNN and models.neighbours_fingerprint is not None:
        known[NEIGHBOURS] = models.neighbours_fingerprint
    if models.index is not None and scored.prediction is not None:
        known[INDEX] = models.index.name
    known |= priced(slate.price) | ({} if acting.instead_of is None else {INSTEAD_OF: acting.instead_of})
    return {
        "decision_id": decision_id,
        "member_id": request.member_id,
        "session_id": request.session_id,
        "surface": request.surface,
        "at": seen.asof_us,
        "request": request_outside(request).model_dump_json(),
        "candidates": ids,
        "candidate_scores": scores,
        "items": [
            {
                "title_id": ids[index],
                "score": scores[index],
                "position": asked.offset + position,
                "propensity": propensity,
                "source": scored.source.value,
                "explored": explored,
            }
            for position, (index, propensity, explored) in enumerate(places(slate))
        ],
        "slate_propensity": slate.slate_propensity,
        "policy": acting.policy.name,
        "policy_version": acting.policy.version,
        "policy_params": json.dumps(acting.params),
        "explored": slate.explored,
        "seed": seed,
        "intent_model": models.intent_fingerprint,
        "ranker_model": models.ranker_fingerprint,
        "features": [{"name": name, "value": value} for name, value in known.items()],
        "served": served(decision_id, seen, views, scored, share=audit_share),
        "sequence_mark": seen.mark,
        "newest_event_at": seen.rows[-1]["at"] if seen.rows else None,
        "num_events_visible": len(seen.rows),
        "timings": [{"stage": lap.stage, "ms": lap.ms} for lap in laps],
        "fallback": None if scored.fallback is None else scored.fallback.value,
        "experiment_arm": arm,
        "kind": asked.kind.value,
        "previous_id": asked.previous_id,
        "controls": asked.controls.model_dump_json(),
        "release": release,
    }


def priced(price: Price | None) -> dict[str, str]:
    """Estimated reward that a list's dice are expected to give up, and that of the list without them, as JSON."""
    if price is None:
        return {}
    return {PRICE: json.dumps([float(price.given_up_K.sum()), float(price.best_K.sum())])}


def places(slate: Slate) -> list[tuple[int, float, bool]]:
    """Index into the pool, propensity and whether by dice, of each place."""
    return list(zip(slate.order_K.tolist(), slate.propensity_K.tolist(), slate.explored_K.tolist(), strict=True))


def reading(models: Models, log: SessionLogConfig) -> dict[str, str]:
    """What of the configuration the features of an answer depend on, by name, so that a replay needs no settings."""
    return {
        CATALOGUE: models.catalogue.fingerprint,
        RULE: models.rule.model_dump_json(),
        "signals": SIGNALS_VERSION,
        WINDOW: log.model_dump_json(include={"read_events", "window_days", "guest_days"}),
    }


def served(decision_id: str, seen: Seen, views: Views, scored: Scored, *, share: float) -> list[dict[str, Any]] | None:
    """Every value that an answer was computed from, where its decision is among the share."""
    if not sampled(decision_id, share):
        return None
    values = of_answer(
        seen.history,
        seen.signals,
        views.members,
        views.titles,
        scored.pool_C,
        scored.prediction,
        scored.inputs,
    )
    return encode(values)


def failed(seen: Seen, views: Views) -> dict[str, str]:
    """Inputs that could not be read, so that nothing stands in for them; no entry where all could."""
    names = [*seen.failures, *views.failures]
    return {FAILED: ",".join(names)} if names else {}


def answered(seen: Seen, views: Views, scored: Scored) -> dict[str, str]:
    """Stages that answered in time, in their order."""
    did = {
        SESSION_LOG: not seen.failed,
        FEATURES: MEMBERS not in views.failures,
        INTENT: scored.prediction is not None,
        RANKER: scored.inputs is not None,
        SESSION_KNN: scored.source is Level.SESSION_KNN,
    }
    return {ANSWERED: ",".join(stage for stage, is_so in did.items() if is_so)}


def oldest(seen: Seen) -> dict[str, str]:
    """Time of the oldest event that was visible, and the smallest sequence, by which a deletion knows its decisions."""
    if not seen.rows:
        return {}
    return dict(zip(OLDEST, (str(seen.rows[0]["at"]), str(min(row["sequence"] for row in seen.rows))), strict=True))


def versions(views: Views, scored: Scored) -> dict[str, str]:
    """Versions of the slow views that were read: one for all candidates, or a JSON list where they differ."""
    asof_C = views.titles.asof_ms[scored.codes_C]
    alike = len(np.unique(asof_C)) <= 1
    titles = str(int(asof_C[0]) if len(asof_C) else -1) if alike else json.dumps(asof_C.tolist())
    found = {MEMBERS_VERSION: str(int(views.members.asof_ms_B[0])), TITLES_VERSION: titles}
    for name, generation in ((GENERATION, views.generation), (TITLES_GENERATION, views.titles_generation)):
        found |= {} if generation is None else {name: generation}
    return found


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """A logged decision for people: times as RFC 3339, JSON columns as objects."""
    result = row_outside(row)
    for field in DECISIONS:
        if field.type == AT and row[field.name] is not None:
            at = _EPOCH + timedelta(microseconds=row[field.name])
            result[field.name] = at.isoformat().replace("+00:00", "Z")
    told = ("request", "policy_params", "controls")
    return result | {name: None if row[name] is None else json.loads(row[name]) for name in told}
