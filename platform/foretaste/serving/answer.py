"""From a chosen slate to what goes over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from foretaste.contracts.catalogue import Catalogue
from foretaste.contracts.tenants import outside
from foretaste.contracts.wire import (
    Explain,
    FallbackAnswer,
    Freshness,
    Item,
    LayoutHint,
    PolicyAnswer,
    RecommendAnswer,
    RecommendRequest,
    StageAnswer,
)
from foretaste.models.intent import IntentPrediction
from foretaste.policies.slate import Slate, SlatePolicy
from foretaste.serving.budget import SESSION_LOG
from foretaste.serving.explain import in_words, popular_titles, reasons, told, top_classes
from foretaste.serving.record import places
from foretaste.serving.slow import Views
from foretaste.serving.stages import Scored, Seen
from foretaste.serving.watch import Lap, Watch
from foretaste.surfaces.page import layout

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
        stages = stages_of(watch.laps)
        signals = told(seen.signals, catalogue)
    return RecommendAnswer(
        decision_id=decision_id,
        items=items,
        intent=None if scored.prediction is None else _intent(scored.prediction),
        top_intent=None if scored.prediction is None else top_intent(scored.prediction),
        layout=None if scored.prediction is None else layout_of(scored.prediction),
        policy=PolicyAnswer(name=policy.name, version=policy.version, explored=slate.explored),
        freshness=freshness_of(seen, views.stale),
        fallback=FallbackAnswer(used=scored.fallback is not None, reason=scored.fallback, level=scored.source),
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
            source=scored.source.value,
        )
        for position, (index, propensity, _) in enumerate(places(slate))
    ]


def _intent(prediction: IntentPrediction) -> dict[str, dict[str, float]]:
    return shares(prediction) | {"attention": attention(prediction)}


def shares(prediction: IntentPrediction) -> dict[str, dict[str, float]]:
    """Probability of each class by head, of the first member of a prediction."""
    return {
        head: dict(zip(prediction.classes[head], share_BC[0].tolist(), strict=True))
        for head, share_BC in prediction.intents.items()
    }


def attention(prediction: IntentPrediction) -> dict[str, float]:
    """Weight of each head, of the first member of a prediction; they sum to 1."""
    return dict(zip(prediction.heads, prediction.attention_BI[0].tolist(), strict=True))


def top_intent(prediction: IntentPrediction) -> str | None:
    """Say in words what the head that weighs most expects; None where no head is on."""
    found = top_classes(prediction)
    return in_words(*found[0][:3], prediction.labels) if found else None


def layout_of(prediction: IntentPrediction) -> LayoutHint | None:
    """The layout hint; None where the action head is off."""
    found = layout(prediction.intents, prediction.classes)
    return None if found is None else LayoutHint(hint=found.hint, probability=found.probability)


def stages_of(laps: Sequence[Lap]) -> list[StageAnswer]:
    """Tell what each stage took."""
    return [StageAnswer(stage=lap.stage, num_in=lap.num_in, num_out=lap.num_out, ms=lap.ms) for lap in laps]


def freshness_of(seen: Seen, stale_views: Sequence[str] = ()) -> Freshness:
    """Tell what is known of the member, and which inputs (the session log, slow views) are not what they should be."""
    stale = [*([SESSION_LOG] if seen.failed else []), *stale_views]
    if not seen.rows:
        return Freshness(last_event_id=None, last_event_at=None, age_seconds=None, stale=stale)
    newest = seen.rows[-1]
    return Freshness(
        last_event_id=outside(newest["event_id"]),
        last_event_at=_EPOCH + timedelta(microseconds=newest["at"]),
        age_seconds=(seen.asof_us - newest["at"]) / 1e6,
        stale=stale,
    )
