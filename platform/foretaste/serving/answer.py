"""From a chosen slate to what goes over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.wire import (
    Explain,
    FallbackAnswer,
    Freshness,
    Item,
    PolicyAnswer,
    RecommendAnswer,
    RecommendRequest,
    StageAnswer,
)
from foretaste.models.intent import IntentPrediction
from foretaste.policies.slate import Slate, SlatePolicy
from foretaste.serving.explain import popular_titles, reasons, told
from foretaste.serving.record import SESSION_LOG, places
from foretaste.serving.slow import Views
from foretaste.serving.stages import Scored, Seen
from foretaste.serving.watch import Watch

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def answer(
    decision_id: str | None,
    request: RecommendRequest,
    seen: Seen,
    views: Views,
    scored: Scored,
    slate: Slate,
    *,
    policy: SlatePolicy,
    catalogue: Catalogue,
    watch: Watch,
) -> RecommendAnswer:
    """Make the answer of a request."""
    items = _items(request.explain, seen, views, scored, slate, catalogue)
    watch.lap("answer", num_in=len(slate), num_out=len(items))
    stages = signals = None
    if request.explain is Explain.STAGES:
        stages = [StageAnswer(stage=lap.stage, num_in=lap.num_in, num_out=lap.num_out, ms=lap.ms) for lap in watch.laps]
        signals = told(seen.signals, catalogue)
    return RecommendAnswer(
        decision_id=decision_id,
        items=items,
        intent=None if scored.prediction is None else _intent(scored.prediction),
        policy=PolicyAnswer(name=policy.name, version=policy.version, explored=slate.explored),
        freshness=_freshness(seen, views),
        fallback=FallbackAnswer(used=scored.fallback is not None, reason=scored.fallback),
        missing_ids=[title_id for title_id in request.exclude_ids if title_id not in catalogue.code_of],
        stages=stages,
        signals=signals,
        took_ms=watch.elapsed_ms,
    )


def _items(
    explain: Explain, seen: Seen, views: Views, scored: Scored, slate: Slate, catalogue: Catalogue
) -> list[Item]:
    codes = scored.codes_C[slate.order_K].tolist()
    why: list[list[str]] = [[] for _ in codes]
    if explain is not Explain.NONE:
        why = reasons(
            codes,
            slate.explored_K.tolist(),
            prediction=scored.prediction,
            catalogue=catalogue,
            popular_N1=popular_titles(np.asarray(views.titles.plays_7d, dtype=np.float32)),
            seen=seen.history.title_T,
        )
    return [
        Item(
            title_id=catalogue.ids[codes[position] - 1],
            name=catalogue.names[codes[position] - 1],
            score=float(scored.scores_C[index]),
            position=position,
            propensity=propensity,
            reasons=why[position],
            source=scored.source,
        )
        for position, (index, propensity, _) in enumerate(places(slate))
    ]


def _intent(prediction: IntentPrediction) -> dict[str, dict[str, float]]:
    heads = {
        head: dict(zip(prediction.classes[head], share_BC[0].tolist(), strict=True))
        for head, share_BC in prediction.intents.items()
    }
    return heads | {"attention": dict(zip(prediction.heads, prediction.attention_BI[0].tolist(), strict=True))}


def _freshness(seen: Seen, views: Views) -> Freshness:
    stale = [*([SESSION_LOG] if seen.failed else []), *views.stale]
    if not seen.rows:
        return Freshness(last_event_id=None, last_event_at=None, age_seconds=None, stale=stale)
    newest = seen.rows[-1]
    return Freshness(
        last_event_id=newest["event_id"],
        last_event_at=_EPOCH + timedelta(microseconds=newest["at"]),
        age_seconds=(seen.asof_us - newest["at"]) / 1e6,
        stale=stale,
    )
